"""What is known of how each process treats times and the files that it makes, by the programs that it was.  Pure."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest

from taskvault.run import rules
from tvfs.plugin_api import Observation, Process, Use


@dataclass(frozen=True, slots=True)
class Manners:
    """Numbers of processes."""

    keep_times: frozenset[int]
    """For which times and owners of what they look at are content."""
    keep_file_times: frozenset[int]
    """The same, but for directories."""
    ignore_times: frozenset[int]
    """Which never compare when files were changed."""
    replace_outputs: frozenset[int]
    """Which look at what they are going to make only to remove it."""


def manners_of(observation: Observation) -> Manners:
    """Return the manners of all processes."""
    known = {process.pid: process for process in observation.processes}
    whose = {pid: _as_program(known, pid) for pid in known}
    names = {pid: [os.path.basename(name) for name in process.programs] for pid, process in whose.items()}
    setters = {event.process for event in observation.events if event.use is Use.ATTRIBUTES}
    return Manners(
        frozenset(
            pid
            for pid, process in whose.items()
            if _keeps_times(process) or (pid in setters and rules.COPY_TIMES.intersection(names[pid]))
        ),
        frozenset(pid for pid in known if rules.KEEP_TIMES_OF_FILES.intersection(names[pid])),
        frozenset(pid for pid in known if _all(rules.IGNORE_TIMES.match, names[pid])),
        frozenset(pid for pid in known if _all(rules.REPLACE_OUTPUTS.match, names[pid])),
    )


def _as_program(known: dict[int, Process], pid: int) -> Process:
    """A process that has not become a program of its own is still its parent's."""
    asked = {pid}
    while not known[pid].programs and known[pid].parent in known and known[pid].parent not in asked:
        # A number may have been used again, by a descendant.
        pid = known[pid].parent
        asked.add(pid)
    return known[pid]


def _keeps_times(process: Process) -> bool:
    given = zip_longest(process.programs, process.arguments)
    return any(rules.keeps_times(os.path.basename(name), arguments) for name, arguments in given)


def _all(matches: Callable[[str], object], names: list[str]) -> bool:
    return bool(names) and all(matches(name) for name in names)
