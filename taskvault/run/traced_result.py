"""From what a traced run did to what may be stored of it, and under which key."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from taskvault.run.execute import Executed
from taskvault.run.held import held_by, session_values
from taskvault.run.inputs import InputsUnusable
from taskvault.run.outputs import Output, places_of
from taskvault.run.pathset import Pathset, encode, strong_key
from taskvault.run.record import Finished
from taskvault.run.settle import settle
from taskvault.run.staging import is_staging
from taskvault.run.stamps import DEPENDENCIES, LOG
from taskvault.run.states import Sight
from taskvault.run.traced_preparation import Prepared
from taskvault.run.used import use_of
from tvfs.digest import Digest
from tvfs.plugin_api import Observation


@dataclass(frozen=True, slots=True)
class Ended:
    """A run of which everything is known that can be."""

    prepared: Prepared
    executed: Executed
    observation: Observation
    observed: str
    """By which tracer."""
    scope: str
    environment: Mapping[str, str]
    """Of the command, all of it."""


def result_of(ended: Ended, sight: Sight) -> Finished:
    """Return what may be stored; raise `InputsUnusable` or `OutputsUnusable` with the reason if nothing may."""
    prepared, executed = ended.prepared, ended.executed
    captured = executed.captured
    assert captured is not None, "a traced run is captured"
    if captured.incomplete:
        raise InputsUnusable(captured.incomplete)
    used = use_of(ended.observation, prepared.places)
    settled = settle(used, prepared.places, sight, executed.began_ns, umask=prepared.umask)
    prepared.items, prepared.states = settled.pathset.items, settled.states
    values = session_values(ended.environment, prepared.environment)
    where = prepared.whereabouts
    held = held_by({*values, *where.paths, *where.names}, captured, prepared.root, settled.outputs)
    leaked = min((name for value, name in values.items() if value in held.texts), default=None)
    if leaked is not None:
        raise InputsUnusable(f"what it made holds the value of the variable {leaked}, which does not count")
    binding = where.binding(held)
    beside = "it looked at what lies beside it" if settled.pathset.bound_to_parent else ""
    prepared.bound = where.reason(held) or beside

    def found_by(pathset: Pathset, states: Sequence[bytes]) -> tuple[Digest, bytes]:
        encoded, function = encode(pathset), prepared.hash_function
        return Digest(function.name, strong_key(prepared.weak_hash, encoded, [*states, *binding], function), 0), encoded

    key, encoded = found_by(settled.pathset, settled.states)
    return Finished(
        ended.scope,
        key,
        prepared.root,
        settled.outputs,
        executed,
        deleted=settled.deleted,
        kept=settled.kept,
        stamped=_stamped(prepared.root, settled.outputs),
        modes=_unusual_modes(prepared.root, settled.outputs, prepared.umask),
        observed=ended.observed,
        weak_key=prepared.weak_hash.hex(),
        pathset=encoded,
        also=[found_by(*settled.filled)] if settled.filled else [],
    )


def _stamped(root: Path, outputs: Sequence[Output]) -> list[str]:
    """Return the outputs in which a tool wrote down when it made the others."""
    return [
        str(place.relative_to(root))
        for place in places_of(root, outputs)
        if place.name in (LOG, DEPENDENCIES) and place.is_file() and not place.is_symlink()
    ]


def _unusual_modes(root: Path, outputs: Sequence[Output], umask: int) -> dict[str, int]:
    modes: dict[str, int] = {}
    for output in outputs:
        place = root / output.path
        _add_mode(modes, output.path, os.lstat(place), umask)
        if output.is_directory:
            for directory, directories, files in os.walk(place):
                for name in (*directories, *files):
                    below = Path(directory, name)
                    _add_mode(modes, str(below.relative_to(root)), os.lstat(below), umask)
    return modes


def _add_mode(modes: dict[str, int], path: str, status: os.stat_result, umask: int) -> None:
    if is_staging(path):
        raise InputsUnusable(f"a replay inside was killed and left {path}")
    if stat.S_ISLNK(status.st_mode):
        return
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISREG(status.st_mode) and mode & 0o7000:
        raise InputsUnusable(f"it made {path} with rights of its own")
    executable = stat.S_ISDIR(status.st_mode) or mode & 0o111
    if mode != (0o777 if executable else 0o666) & ~umask:
        modes[path] = mode
