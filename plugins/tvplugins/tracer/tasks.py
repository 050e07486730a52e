"""Tasks, as the kernel calls processes and threads: who is whose, and which working directory they share."""

from __future__ import annotations

from dataclasses import dataclass, field

from tvfs.plugin_api.tracer import Process
from tvplugins.tracer.calls import CLONE_FS, CLONE_THREAD, Clone, Exec, Exit


@dataclass(slots=True)
class Directory:
    """A working directory, which tasks may share."""

    path: str


@dataclass(slots=True)
class Living:
    """A process, as it grows."""

    pid: int
    parent: int
    started_ns: int
    programs: list[str] = field(default_factory=list)
    arguments: list[tuple[str, ...] | None] = field(default_factory=list)
    ended_ns: int | None = None
    status: int | None = None

    def told(self) -> Process:
        """As the observation has it."""
        return Process(
            self.pid,
            self.parent,
            self.started_ns,
            self.ended_ns,
            tuple(self.programs),
            self.status,
            tuple(self.arguments),
        )


@dataclass(slots=True)
class Task:
    """One thread."""

    process: Living
    directory: Directory

    def leave_shared_directory(self) -> None:
        """Have a working directory of its own from now on."""
        self.directory = Directory(self.directory.path)


class Tasks:
    """All that have been seen; kernel numbers that are used again get a new process."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._alive: dict[int, Task] = {}
        self.processes: list[Living] = []

    def find(self, tid: int) -> Task | None:
        """Return a task that is alive and whose parent is known, or None."""
        return self._alive.get(tid)

    def beside(self, tid: int) -> list[int]:
        """Return all tasks of the process that a task is of, or none if it is not known."""
        task = self._alive.get(tid)
        return [] if task is None else [each for each, other in self._alive.items() if other.process is task.process]

    def begin(self, tid: int, at_ns: int, parent: int = 0) -> Task:
        """Take in a process whose parent is outside, or was not seen."""
        living = Living(tid, parent, at_ns)
        self.processes.append(living)
        task = self._alive[tid] = Task(living, Directory(self._directory))
        return task

    def clone(self, event: Clone) -> None:
        """Take in what a known task made."""
        maker = self._alive[event.tid]
        directory = maker.directory if event.flags & CLONE_FS else Directory(maker.directory.path)
        if event.flags & CLONE_THREAD:
            living = maker.process
        else:
            living = Living(event.child, maker.process.pid, event.at_ns)
            self.processes.append(living)
        self._alive[event.child] = Task(living, directory)

    def execute(self, event: Exec) -> Task:
        """All threads but one are gone, and it has the process's number; its directory is its own now."""
        task = self._alive.pop(event.former, None) or self._alive[event.tid]
        for tid in [tid for tid, other in self._alive.items() if other.process is task.process]:
            del self._alive[tid]
        task.leave_shared_directory()
        self._alive[event.tid] = task
        return task

    def end(self, event: Exit) -> None:
        """Take a task out; a process ends with its first thread, as the kernel reports that one last."""
        task = self._alive.pop(event.tid, None)
        if task is not None and task.process.pid == event.tid:
            task.process.ended_ns = event.at_ns
            task.process.status = event.status

    @property
    def alive(self) -> list[Living]:
        """Processes whose end was not seen."""
        return [living for living in self.processes if living.ended_ns is None]
