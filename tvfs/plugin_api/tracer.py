"""Contract of a tracer: runs a command and observes what it read, looked for, wrote and talked to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

import msgspec

API_VERSION = 1
"""Of this contract. A plugin may declare the one it was written for as `api_version`, on factory or plugin."""


class Use(StrEnum):
    """What was done with a path or an address."""

    READ = "read"
    """Opened for reading, so read or mapped; also what the kernel read to execute a program."""
    LISTED = "listed"
    """A directory whose names were asked for."""
    STATED = "stated"
    """Found to be there: its attributes, not its content, were asked for."""
    ABSENT = "absent"
    """Looked for and not there."""
    REFUSED = "refused"
    """Looked for, and refused otherwise; the detail is the error (`EACCES`)."""
    FOLLOWED = "followed"
    """A symlink that was read or led through; the detail is its target."""
    EXECUTED = "executed"
    CREATED = "created"
    """Made where nothing was: had something been there, the call would have failed."""
    MADE = "made"
    """Created, truncated or replaced: nothing of what was there before is left. The detail: what it was moved from."""
    CHANGED = "changed"
    """Opened for writing, or cut, with its old content in it."""
    ATTRIBUTES = "attributes"
    """Mode, owner, times or extended attributes set."""
    DELETED = "deleted"
    RENAMED = "renamed"
    """Moved away; the detail is where to."""
    INTERNET = "internet"
    """An address and a port."""
    LOCAL_SOCKET = "local_socket"
    """A path, or `@` and a name without one; the detail is the error if it did not answer."""
    OTHER_SOCKET = "other_socket"
    """The number of an address family: netlink, packets, virtual machines."""


CHANGES = frozenset({Use.CREATED, Use.MADE, Use.CHANGED, Use.ATTRIBUTES, Use.DELETED, Use.RENAMED})
"""Uses after which a path is not what it was."""


@dataclass(frozen=True, slots=True)
class Before:
    """What was at a path, its last name not followed if the call did not."""

    mode: int
    """Kind and permissions, as `stat` has them; 0: nothing was there."""
    size: int = 0
    mtime_ns: int = 0
    links: int = 0
    owner: int = 0
    group: int = 0


class Event(msgspec.Struct, frozen=True, gc=False):
    """The first time that a process did this to this path with this outcome."""

    use: Use
    path: str
    """Absolute, its directories free of symlinks, undecodable bytes as surrogates; an address for sockets."""
    process: int
    detail: str = ""
    before: Before | None = None
    """What was there just before it was made, changed, deleted or moved; None: the tracer does not know."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process: all its threads, through all programs that it became."""

    pid: int
    parent: int
    """0 for the command itself."""
    started_ns: int
    """Since 1970, as `ended_ns`."""
    ended_ns: int | None
    programs: tuple[str, ...]
    """What it executed, in order; the rest it inherited from its parent."""
    status: int | None
    """Exit status, -n if signal n ended it, None if that is not known."""
    arguments: tuple[tuple[str, ...] | None, ...] = ()
    """What each of `programs` was given, its name first; None where that is not known.  May be left out as a whole."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What a command did.  Only what happened is told: what it means for a result is for whoever asks."""

    events: tuple[Event, ...]
    """In the order in which they ended."""
    processes: tuple[Process, ...]
    incomplete: tuple[str, ...]
    """Why more may have happened than is told, one sentence part a reason; empty: nothing escaped."""

    def paths(self, *uses: Use) -> frozenset[str]:
        """The paths that were used in any of these ways."""
        return frozenset(event.path for event in self.events if event.use in uses)


@dataclass(frozen=True, slots=True)
class TracedCommand:
    """What to run, as `subprocess.Popen` would; signals, terminal and limits are the caller's own."""

    arguments: Sequence[str]
    directory: str
    """Absolute."""
    environment: Mapping[str, str]
    stdin: int | None = None
    """A descriptor; None: the caller's own, as for the other two."""
    stdout: int | None = None
    stderr: int | None = None
    descriptors: tuple[int, ...] = ()
    """Of the caller, which the command gets too."""


class TracedProcess(Protocol):
    """A command that runs.  Threads: used by one."""

    @property
    def pid(self) -> int:
        """The command's own: a child of the caller, who may send it signals."""
        ...

    def poll(self) -> int | None:
        """Return what `wait` would, or None while it runs."""
        ...

    def wait(self) -> int:
        """Return the exit status of the command when it has ended: -n if signal n ended it.

        It does not wait for processes that the command has left behind.
        """
        ...

    def observe(self) -> Observation:
        """Wait for the command, then return what was observed; what it left behind makes it incomplete.

        Reads the links and the headers of programs that were used, as they are now, so call it at once.
        """
        ...


class Tracer(Protocol):
    """Observes any command, without privileges.  Threads: called from several at once.

    Nothing is told that did not happen, and what happened is told or makes the observation incomplete: also if the
    tracer is killed, which may end the command but never leave it hanging.  A command that runs under a tracer
    behaves as without, but a set-user-id program gains no rights and no process of it can be debugged.
    """

    @property
    def name(self) -> str:
        """The entry-point name."""
        ...

    def trouble(self) -> str:
        """Say in one sentence why it cannot serve on this machine; empty if it can.  Tried once, then remembered."""
        ...

    def start(self, command: TracedCommand, /) -> TracedProcess:
        """Start it; raise `OSError` as `subprocess.Popen` does if there is no such program or directory."""
        ...


class SpawnedProcess(Protocol):
    """A program that was started, as `subprocess.Popen` has it."""

    @property
    def pid(self) -> int:
        """Its number."""
        ...

    def poll(self) -> int | None:
        """Return its exit status, -n if signal n ended it; None while it runs."""
        ...

    def wait(self) -> int:
        """Return the same when it has ended."""
        ...


class Spawn(Protocol):
    """Starts a program as the child of whoever is to be its parent, who need not be the process that asks."""

    def __call__(
        self, arguments: Sequence[str], command: TracedCommand, descriptors: Sequence[int], /
    ) -> SpawnedProcess:
        """Start `arguments` with the directory, variables and streams of `command`.

        `descriptors` and those of the command are passed on under their numbers, all others closed.  Raise `OSError`.
        """
        ...


@runtime_checkable
class SpawningTracer(Tracer, Protocol):
    """A tracer that starts its commands as it is told to; one need not be able to."""

    def start_by(self, spawn: Spawn, command: TracedCommand, /) -> TracedProcess:
        """As `start`, but every process is started by `spawn`."""
        ...


class TracerFactory(Protocol):
    """What the entry point names."""

    def __call__(self, parameters: Mapping[str, int | str], /) -> Tracer:
        """Return the tracer; raise `ValueError` for parameters it does not know."""
        ...
