"""Folds a native record without understanding anew what only repeats: most of a build looks at the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from tvfs.plugin_api.tracer import Before, Event, Observation, Use
from tvplugins.tracer.actions import only_looks
from tvplugins.tracer.calls import SIGNATURES, Call, Called, Clone, Exec, Raw, Trouble
from tvplugins.tracer.fold import Fold, knowing_links
from tvplugins.tracer.links import Disk, Links
from tvplugins.tracer.native_record import FIRST_ENTRY, NativeRecord
from tvplugins.tracer.notes import Notes
from tvplugins.tracer.repeats import Repeats
from tvplugins.tracer.tasks import Task

if TYPE_CHECKING:
    from ctypes import CDLL

_USE = (1 << 32) - 1
_CHANGING_DIRECTORY = frozenset(name for name, each in SIGNATURES.items() if each.action == "change_directory")


def observe_repeated(
    record: NativeRecord, descriptor: int, library: CDLL, *, command: int, directory: str, disk: Disk
) -> Observation:
    """As `tvplugins.tracer.fold.observe` of all events of a record, which is in a file; raise `MemoryError`."""
    began_ns = next((event.at_ns for event in record.events() if not isinstance(event, Trouble)), 0)
    end = FIRST_ENTRY if record.overflows else max(record.end, FIRST_ENTRY)
    walks: list[Repeats] = []

    def fold_with(links: Links) -> Fold:
        for walk in walks:
            walk.close()  # what came of that fold is not wanted
        repeats = Repeats(library, descriptor, FIRST_ENTRY, end)
        walks[:] = [repeats]
        fold = RepeatedFold(command, directory, links, began_ns, repeats)
        fold.take_all(record.events_at(repeats.stops(), lambda: repeats.number))
        return fold

    try:
        return knowing_links(fold_with, disk).finish()
    finally:
        for walk in walks:
            walk.close()


class NumberedNotes(Notes):
    """Notes that lie where repeats are noted as well; each use has a number."""

    def __init__(self, repeats: Repeats) -> None:
        super().__init__()
        self._repeats = repeats
        self._numbers: dict[tuple[Use, str, str], int] = {}
        self._before: dict[int, Before] = {}
        """By use and process, as they are noted."""
        self._recorded: dict[int, None] | None = None
        self._in_doubt = False

    @property
    def events(self) -> Iterable[Event]:
        """What was observed."""
        uses, before = list(self._numbers), self._before.get
        for noted in self._repeats.noted():
            use, path, detail = uses[noted & _USE]
            yield Event(use, path, noted >> 32, detail, before(noted))

    def record(self, action: Callable[[], None]) -> list[int] | None:
        """Carry an action out; return the uses that it noted, or None if others might have to note something else."""
        self._recorded, self._in_doubt = {}, False
        try:
            action()
            return None if self._in_doubt else list(self._recorded)
        finally:
            self._recorded = None

    def depends_on_process(self) -> None:
        """What is noted now would be something else for another process, as what /proc shows is."""
        self._in_doubt = True

    def _is_first(self, use: Use, path: str, process: int, detail: str, before: Before | None) -> bool:
        number = self._numbers.setdefault((use, path, detail), len(self._numbers))
        if self._recorded is not None:
            self._recorded[number] = None
        if not self._repeats.note(number, process):
            return False
        if before is not None:
            self._before[process << 32 | number] = before
        return True


class RepeatedFold(Fold):
    """A fold that tells its walk what calls mean, so that it need not stop at the same again."""

    def __init__(self, command: int, directory: str, links: Links, began_ns: int, repeats: Repeats) -> None:
        self._numbered = NumberedNotes(repeats)
        super().__init__(command, directory, links, began_ns, self._numbered)
        self._repeats = repeats
        self._directories: dict[str, int] = {}
        self._known_tasks: set[int] = set()
        self._known_links = links.version
        repeats.know_links(links.version)
        self._know_tasks([command])

    def take_all(self, record: Iterable[Raw]) -> None:
        """Take what the walk stops at."""
        repeats, links = self._repeats, self._links
        for event in record:
            self._take(event)
            if links.version != self._known_links:
                self._known_links = links.version
                repeats.know_links(links.version)

    def _take(self, event: Raw) -> None:
        if isinstance(event, (Called, Trouble)):
            super()._take(event)
            return
        changed = [event.tid]
        if isinstance(event, Clone):
            changed = [event.child]
        elif isinstance(event, Exec):
            changed = [event.tid, *self._tasks.beside(event.former)]
        super()._take(event)
        self._know_tasks(changed)

    def _call(self, task: Task, call: Call) -> None:
        action, number = self._by_name.get(call.name), self._repeats.number
        if action is None or not (number and only_looks(call)):
            super()._call(task, call)
            if call.name in _CHANGING_DIRECTORY:
                self._know_tasks(list(self._known_tasks))  # whoever shares it
            return
        uses = self._numbered.record(lambda: action(task, call))
        if uses is not None:
            self._repeats.learn(number, self._directory_of(task), uses)

    def _know_tasks(self, tids: Iterable[int]) -> None:
        for tid in tids:
            task = self._tasks.find(tid)
            if task is not None:
                self._known_tasks.add(tid)
                self._repeats.know_task(tid, task.process.pid, self._directory_of(task))
            elif tid in self._known_tasks:
                self._known_tasks.discard(tid)
                self._repeats.know_task(tid, 0, 0)

    def _directory_of(self, task: Task) -> int:
        return self._directories.setdefault(task.directory.path, len(self._directories) + 1)
