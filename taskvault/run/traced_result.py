"""From what a traced run did to what may be stored of it, and under which key."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from taskvault.run.execute import Captured, Executed
from taskvault.run.inputs import InputsUnusable
from taskvault.run.outputs import Output, holds_path, stream_holds
from taskvault.run.pathset import encode, strong_key
from taskvault.run.record import Finished
from taskvault.run.rules import is_session_variable
from taskvault.run.settle import settle
from taskvault.run.states import Sight
from taskvault.run.traced_preparation import Prepared
from taskvault.run.used import use_of
from tvfs.digest import Digest
from tvfs.plugin_api import Observation

_READ_BYTES = 1 << 20

_SHORTEST_SEARCHED = 4
"""Shorter values of variables are found everywhere by chance."""


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
    settled = settle(use_of(ended.observation, prepared.places), prepared.places, sight, executed.began_ns)
    prepared.items, prepared.states = settled.pathset.items, settled.states
    leaked = _leaked(ended.environment, captured)
    if leaked:
        raise InputsUnusable(f"it wrote the value of the variable {leaked}, which does not count")
    encoded = encode(settled.pathset)
    bound = [os.fsencode(prepared.root)] if _names_root(prepared, captured, settled.outputs) else []
    hash_function = prepared.hash_function
    key = strong_key(prepared.weak_hash, encoded, [*settled.states, *bound], hash_function)
    return Finished(
        ended.scope,
        Digest(hash_function.name, key, 0),
        prepared.root,
        settled.outputs,
        executed,
        deleted=settled.deleted,
        modes=_unusual_modes(prepared.root, settled.outputs, prepared.umask),
        observed=ended.observed,
        weak_key=prepared.weak_hash.hex(),
        pathset=encoded,
    )


def _leaked(environment: Mapping[str, str], captured: Captured) -> str:
    """Return the name of a session variable whose value was written out; empty if there is none.

    Paths are not looked for: programs name them for other reasons.
    """
    for name, value in environment.items():
        wanted = os.fsencode(value)
        if len(wanted) < _SHORTEST_SEARCHED or wanted.startswith(b"/") or not is_session_variable(name):
            continue
        if _streams_hold([wanted], captured):
            return name
    return ""


def _names_root(prepared: Prepared, captured: Captured, outputs: Sequence[Output]) -> bool:
    """Whether the result holds the absolute path of its root, and so is right only there."""
    paths = {os.fsencode(path) for path in (*prepared.logical_roots, prepared.places.root, prepared.places.scratch)}
    wanted = sorted(path for path in paths if len(path) > 1)
    return _streams_hold(wanted, captured) or holds_path(wanted, prepared.root, outputs)


def _streams_hold(wanted: Sequence[bytes], captured: Captured) -> bool:
    for stream in (captured.stdout, captured.stderr):
        stream.seek(0)
        if stream_holds(wanted, iter(partial(stream.read, _READ_BYTES), b"")):
            return True
    return False


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
    if stat.S_ISLNK(status.st_mode):
        return
    mode = stat.S_IMODE(status.st_mode)
    executable = stat.S_ISDIR(status.st_mode) or mode & 0o111
    if mode != (0o777 if executable else 0o666) & ~umask:
        modes[path] = mode
