"""Runs inside of a run: what of its observation is theirs."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from taskvault.run.inputs import InputsUnusable
from taskvault.run.nested import Note, Parts
from taskvault.run.weak_key import WeakKey
from tvfs.plugin_api import Event, Observation, Process, Use

OUTER, INNER, CHILD, OTHER = 1, 2, 3, 4
PROCESSES = (
    Process(OUTER, 0, 0, 9, ("/bin/make",), 0),
    Process(INNER, OUTER, 0, 9, ("/bin/cc",), 0),
    Process(CHILD, INNER, 0, 9, ("/bin/as",), 0),
    Process(OTHER, OUTER, 0, 9, ("/bin/strip",), 0),
)
EVENTS = (
    Event(Use.READ, "/p/makefile", OUTER),
    Event(Use.READ, "/p/a.c", INNER),
    Event(Use.CREATED, "/p/b.o", OTHER),
    Event(Use.CREATED, "/p/a.s", CHILD),
    Event(Use.READ, "/p/a.s", INNER),
    Event(Use.DELETED, "/p/a.s", CHILD),
)


def note(process: int = INNER) -> Note:
    weak = WeakKey(("cc",), "", "/bin/cc", {}, {})
    given = {
        "process": process, "began_ns": 0, "ended_ns": 9, "duration_ns": 9, "weak": weak, "root": "/p", "scratch": "/s",
        "home": "", "sockets": [], "channels": [], "ignored": [], "caches": [], "prepared_in": "", "logical_roots": [],
        "umask": 0o022, "scope": "main", "environment": {}, "replace": False, "stdout": b"", "stderr": b"", "order": [],
        "incomplete": "", "started_ns": 0,
    }  # fmt: skip
    return msgspec.convert(msgspec.to_builtins(given, builtin_types=(bytes,)), Note)


def test_a_run_inside_is_told_what_it_and_its_children_did_in_that_order() -> None:
    part = Parts(Observation(EVENTS, PROCESSES, ("something",))).of(note())
    assert part.events == tuple(event for event in EVENTS if event.process in (INNER, CHILD))
    assert part.processes == (replace(PROCESSES[1], parent=0), PROCESSES[2])
    assert part.incomplete == ("something",)


@pytest.mark.parametrize("path", ["/p/a.s", "/p"])
def test_what_others_change_of_what_it_made_is_not_known_any_more(path: str) -> None:
    events = (*EVENTS, Event(Use.CHANGED, path, OTHER))
    if path == "/p":
        events = (*EVENTS, Event(Use.CREATED, "/p/d/x", CHILD), Event(Use.RENAMED, "/p/d", OTHER))
    with pytest.raises(InputsUnusable, match="again by /bin/strip"):
        Parts(Observation(events, PROCESSES, ())).of(note())


def test_a_run_whose_process_was_not_seen_is_not_taken_apart() -> None:
    with pytest.raises(InputsUnusable, match="was not seen"):
        Parts(Observation(EVENTS, PROCESSES, ())).of(note(99))
