"""For each rule that keeps a wrong result from being given back: how to do without it, as a naive cache would.

A switch is turned off in a process of its own, which `tests.runs.driver` forks for one run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from taskvault.run import (
    digests,
    outputs,
    pathset,
    places,
    quick_sight,
    rules,
    settle,
    states,
    traced,
    traced_preparation,
    traced_result,
    used,
    whereabouts,
)
from taskvault.run.pathset import Look
from tvfs.plugin_api import Observation


@dataclass(frozen=True)
class Switch:
    """One rule."""

    says: str
    turn_off: Callable[[], None]


def _puts(*replacements: tuple[object, str, Any]) -> Callable[[], None]:
    def turn_off() -> None:
        for owner, name, value in replacements:
            assert hasattr(owner, name), f"{owner} has no {name} any more: mend this switch"
            setattr(owner, name, value)

    return turn_off


def _untold(*without: Look) -> Callable[[], None]:
    """Leave some looks out of every state."""

    def turn_off() -> None:
        told = states.told

        def other(look: Look, status: Any) -> object:
            return None if look in without else told(look, status)

        _puts((states, "told", other), (settle, "told", other))()
        if Look.STATE in without:
            _puts(
                (states.Sight, "_content", lambda self, place, found: None),
                (quick_sight, "state_of_directory", lambda *a: msgspec.msgpack.encode([None])),
            )()
        if Look.NAMES in without:
            _puts((states.Sight, "_names", lambda *a: None), (settle, "names_told", lambda names: None))()
        if Look.TARGET in without:
            _puts((states.Sight, "_target", lambda *a: None))()

    return turn_off


def _weak_without(field: str, value: Any) -> Callable[[], None]:
    weak = traced_preparation.WeakKey
    return _puts((traced_preparation, "WeakKey", lambda **given: weak(**{**given, field: value})))


def _platform_without(name: str) -> Callable[[], None]:
    weak = traced_preparation.WeakKey

    def made(**given: Any) -> object:
        given["platform"] = {key: value for key, value in given["platform"].items() if key != name}
        return weak(**given)

    return _puts((traced_preparation, "WeakKey", made))


def _size_and_time(self: digests.Digests, place: bytes, status: os.stat_result) -> bytes:
    return repr((status.st_size, status.st_mtime_ns)).encode().ljust(32)[:32]


def _stateless(self: states.Sight, place: bytes, found: os.stat_result) -> object:
    status = states.Status.of(found)
    return [status.kind, self._digest_of(place, found) if status.kind == "f" else None]


def _without_reason(pattern: str) -> Callable[[], None]:
    use_of = traced_result.use_of

    def other(observation: Observation, where: places.Places) -> used.Used:
        found = use_of(observation, where)
        found.reasons = [reason for reason in found.reasons if not re.search(pattern, reason)]
        return found

    return _puts((traced_result, "use_of", other))


def _without_orders() -> None:
    rest = states.rest_of_states

    def other(found: pathset.Pathset, times: Any, sight: Any) -> list[bytes]:
        return rest(pathset.Pathset(found.version, found.items, found.upward, [], found.bound_to_parent), times, sight)

    _puts((states, "rest_of_states", other), (settle, "rest_of_states", other))()


def _status_ignored() -> None:
    execute = traced.execute
    _puts((traced, "execute", lambda *a, **k: replace(execute(*a, **k), exit_code=0)))()


def _read_without(field: str, value: Any) -> Callable[[], None]:
    read = traced.read_result
    return _puts((traced, "read_result", lambda *a: replace(read(*a), **{field: value})))


def _ignoring(kind: str) -> Callable[[], None]:
    return _puts((used._Fold, kind, lambda self, *given, **more: None))


SWITCHES: dict[str, Switch] = {
    # --- inputs ---
    "content": Switch(
        "the content of a file counts, not its size and time", _puts((digests.Digests, "__call__", _size_and_time))
    ),
    "state": Switch("what is at a path that was read or looked at counts", _untold(Look.STATE)),
    "mode": Switch(
        "permissions of what was looked at count",
        _puts(
            (states.Sight, "_content", _stateless),
            (quick_sight, "state_of_directory", lambda *a: msgspec.msgpack.encode([[states.DIRECTORY, None]])),
        ),
    ),
    "names": Switch("the names in a directory that was listed count", _untold(Look.NAMES)),
    "absence": Switch("that something was not there counts", _untold(Look.ABSENCE)),
    "target": Switch("where symlinks on the way lead to counts", _untold(Look.TARGET)),
    "refusal": Switch("why something was refused counts", _untold(Look.REFUSAL)),
    "room": Switch("what is in the place of an output counts, if it is in the way", _untold(Look.ROOM)),
    "created": Switch("what could be made only where nothing was is not made over something", _untold(Look.ABSENCE)),
    "orders": Switch("the order in which files were changed counts for who compares it", _without_orders),
    "keep times": Switch(
        "times count for programs that keep them",
        _puts(
            (rules, "KEEP_TIMES", frozenset()),
            (rules, "KEEP_TIMES_OF_FILES", frozenset()),
            (rules, "COPY_TIMES", frozenset()),
        ),
    ),
    "upward": Switch(
        "what was found in no directory above the root counts",
        _puts((states.Sight, "none_above", lambda self, names: True)),
    ),
    # --- the way it is started ---
    "environment": Switch("variables count", _puts((traced_preparation, "counting", lambda *a: {}))),
    "workdir": Switch("the working directory counts", _weak_without("workdir", "")),
    "umask": Switch("the umask counts", _platform_without("umask")),
    "stdin": Switch("what stdin holds counts", _platform_without("stdin")),
    # --- not stored ---
    "status": Switch("what failed is not stored", _status_ignored),
    "incomplete": Switch("what escaped the tracer is not stored", _without_reason("could not be followed")),
    "network": Switch("what used the network is not stored", _without_reason("network|talked to")),
    "processes": Switch("what looked at other processes is not stored", _without_reason("other processes")),
    "rewritten": Switch(
        "what changed an input in place is not stored", _puts((settle._Settling, "_check_rewritten", lambda self: None))
    ),
    "moved": Switch("what moved something that was there is not stored", _without_reason("it moved")),
    "outside": Switch(
        "what wrote outside its root is not stored", _puts((settle._Settling, "_check_outside", lambda *a: None))
    ),
    "steady": Switch(
        "what changed while the command ran is not stored", _puts((settle._Settling, "_is_new", lambda *a: False))
    ),
    "directories": Switch(
        "what lies in a directory that was moved meanwhile is not stored",
        _puts((settle._Settling, "_check_directories", lambda self: None)),
    ),
    "links": Switch(
        "what has another name is not overwritten", _puts((settle._Settling, "_check_links", lambda *a: None))
    ),
    "overwritten": Switch("what was read and then replaced is not stored", _ignoring("_see")),
    "bound": Switch(
        "what holds the path or the name of its root is found only there",
        _puts((whereabouts.Whereabouts, "binding", lambda *a: [])),
    ),
    "pyc": Switch(
        "the time of a source counts where its compiled form was read", _puts((used, "_source_of", lambda path: ""))
    ),
    "compressed": Switch(
        "what cannot be searched is taken to hold the path of its root", _puts((outputs, "COMPRESSED", (b"never",)))
    ),
    "leaked": Switch(
        "what holds a variable that does not count is not stored",
        _puts((traced_result, "session_values", lambda *a: {})),
    ),
    "directory": Switch(
        "what was made in a directory needs it", _puts((settle._Settling, "_put_directory", lambda *a: None))
    ),
    # --- replay ---
    "deleted": Switch("a replay removes what the command removed", _read_without("deleted", ())),
    "modes": Switch("a replay gives the permissions that the command gave", _read_without("modes", ())),
    "kept": Switch("what is written into keeps its permissions and names", _read_without("kept", ())),
}
