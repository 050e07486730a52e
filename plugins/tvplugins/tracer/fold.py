"""Folds the record of a run into what was observed.  Pure: all it knows of the machine comes through `Disk`."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Sequence

import msgspec

from tvfs.plugin_api.tracer import Observation
from tvplugins.tracer.actions import Actions
from tvplugins.tracer.calls import CLONE_NEW, FORBIDDEN, SIGNATURES, Call, Called, Clone, Exec, Raw, Trouble
from tvplugins.tracer.links import Disk, Links
from tvplugins.tracer.notes import Notes
from tvplugins.tracer.tasks import Task, Tasks


def observe(record: Sequence[Raw], *, command: int, directory: str, disk: Disk) -> Observation:
    """Return what a record says of the process `command` and all that came of it, started in `directory`."""
    began_ns = next((event.at_ns for event in record if not isinstance(event, Trouble)), 0)

    def fold_with(links: Links) -> Fold:
        fold = Fold(command, directory, links, began_ns)
        fold.take_all(record)
        return fold

    return knowing_links(fold_with, disk).finish()


def knowing_links(fold_with: Callable[[Links], Fold], disk: Disk) -> Fold:
    """Return the fold of a record that knows which symlinks the command made."""
    fold = fold_with(Links(disk))
    if fold.links_made:
        # What is a symlink on disk now was none before the command made it: go through it again, knowing that.
        links = Links(disk)
        for path in fold.links_made:
            links.forget(path)
        fold = fold_with(links)
    return fold


class Fold:
    """Takes the events of a record in their order."""

    def __init__(
        self, command: int, directory: str, links: Links, began_ns: int = 0, notes: Notes | None = None
    ) -> None:
        self._tasks = Tasks(directory)
        self._tasks.begin(command, began_ns)
        self._notes = Notes() if notes is None else notes
        self._links = links
        self._actions = Actions(links, self._notes)
        self._by_name = {name: getattr(self._actions, signature.action) for name, signature in SIGNATURES.items()}
        self._waiting: dict[int, list[Raw]] = {}
        """Events of tasks whose maker's call has not returned yet in the record."""

    @property
    def links_made(self) -> frozenset[str]:
        """Where the command made symlinks."""
        return frozenset(self._actions.links_made)

    def take_all(self, record: Iterable[Raw]) -> None:
        """Take a record, or the next part of it."""
        for event in record:
            self._take(event)

    def finish(self) -> Observation:
        """Return what was observed."""
        if any(self._waiting.values()):
            self._notes.trouble("a process appeared whose parent was not seen")
        for living in self._tasks.alive:
            of = os.path.basename(living.programs[-1]) if living.programs else "a process"
            self._notes.trouble(f"{of} was still running at the end, or was lost sight of")
        processes = tuple(living.told() for living in self._tasks.processes)
        return Observation(tuple(self._notes.events), processes, tuple(self._notes.troubles))

    def _take(self, event: Raw) -> None:
        if isinstance(event, Trouble):
            self._notes.trouble(event.reason)
            return
        source = event.former if isinstance(event, Exec) else event.tid
        task = self._tasks.find(source)
        if task is None:
            self._waiting.setdefault(source, []).append(event)
        elif isinstance(event, Called):
            self._call(task, event.call)
        elif isinstance(event, Clone):
            self._clone(event)
        elif isinstance(event, Exec):
            self._actions.executed(self._tasks.execute(event), event)
        else:
            self._tasks.end(event)

    def _call(self, task: Task, call: Call) -> None:
        action = self._by_name.get(call.name)
        if action is not None:
            action(task, call)
        elif call.name in FORBIDDEN:
            if call.result >= 0:
                self._notes.trouble(f"a process {FORBIDDEN[call.name]} ({call.name})")
            elif call.name == "ptrace" and call.result == -errno.EPERM:
                self._notes.trouble("a process could not trace another, because it is traced itself")
        elif call.result != -errno.ENOSYS:
            self._notes.trouble(f"a process made the system call {call.name}, which the tracer does not know")

    def _clone(self, event: Clone) -> None:
        if event.flags & CLONE_NEW:
            self._notes.trouble("a process was started in a namespace of its own")
        waiting = self._waiting.pop(event.child, [])
        if waiting and not isinstance(waiting[0], Trouble):
            # It began before whoever made it was heard of.
            event = msgspec.structs.replace(event, at_ns=min(event.at_ns, waiting[0].at_ns))
        self._tasks.clone(event)
        for each in waiting:
            self._take(each)
