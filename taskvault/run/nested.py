"""Runs inside a traced run: the outer one has the only tracer, sees all that they do, and stores their results.

An inner run that finds no result starts its command, keeps what that wrote, and leaves a note in a directory of the
outer run.  When the outer command has ended, what the inner one did is cut out of the observation by its process.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import msgspec

from taskvault.run.execute import Captured, Executed
from taskvault.run.inputs import InputsUnusable
from taskvault.run.named_outputs import NamedOutput
from taskvault.run.places import Places
from taskvault.run.traced_preparation import Prepared
from taskvault.run.weak_key import WeakKey
from tvfs.plugin_api import CHANGES, HashFunction, Observation, Use

VARIABLE = "TASKVAULT_RUN"
"""Names the directory for notes, to all that runs inside a traced run."""

_ASKS = "asks-"


class Note(msgspec.Struct, frozen=True):
    """What an inner run leaves behind."""

    process: int
    """Of its command."""
    began_ns: int
    """On the coarse clock that stamps files: what has this time or a later one may have changed since."""
    ended_ns: int
    """On the fine clock, which no file's time is ahead of."""
    duration_ns: int
    weak: WeakKey
    root: str
    scratch: str
    home: str
    sockets: frozenset[str]
    channels: frozenset[str]
    ignored: tuple[str, ...]
    caches: tuple[str, ...]
    prepared_in: str
    logical_roots: frozenset[str]
    umask: int
    scope: str
    environment: dict[str, str]
    replace: bool
    stdout: bytes
    stderr: bytes
    order: list[tuple[int, int]]
    incomplete: str
    started_ns: int
    refresh: bool = False
    """Somebody insists that it is stored."""
    named: list[NamedOutput] = []
    """What it was told to make, as far as it is small."""

    def prepared(self, hash_function: HashFunction) -> Prepared:
        """Return the run as it was known before it started."""
        places = Places(
            self.root, self.scratch, self.home, self.sockets, self.channels, self.ignored, self.caches,
            self.prepared_in,
        )  # fmt: skip
        return Prepared(
            self.weak, self.weak.hash(hash_function), Path(self.root), self.scratch, lambda: places, self.umask,
            hash_function, self.logical_roots,
        )  # fmt: skip

    def executed(self) -> Executed:
        """Return how its command ended."""
        captured = Captured(io.BytesIO(self.stdout), io.BytesIO(self.stderr), self.order, self.incomplete)
        return Executed(0, self.duration_ns, True, captured, None, self.process, self.began_ns)


def announce(directory: Path) -> None:
    """Say that what we ask the vault for is what runs ask for: results, by keys that count all they depend on.

    Where it cannot be said the outer run is not stored.
    """
    with suppress(OSError):
        (directory / f"{_ASKS}{os.getpid()}").touch()


def retract(directory: Path) -> None:
    """Take that back before we become a command, which may ask the vault for anything."""
    with suppress(OSError):
        (directory / f"{_ASKS}{os.getpid()}").unlink()


def without_lookups(observation: Observation, directory: Path, sockets: frozenset[str]) -> Observation:
    """Return what a command did without what runs inside asked the vault for: anything else there may change."""
    asked = {int(name.removeprefix(_ASKS)) for name in os.listdir(directory) if name.startswith(_ASKS)}
    if not asked:
        return observation
    events = (
        event
        for event in observation.events
        if not (event.use is Use.LOCAL_SOCKET and event.path in sockets and event.process in asked)
    )
    return replace(observation, events=tuple(events))


def leave(directory: Path, note: Note) -> None:
    """Leave a note for the outer run; raise `OSError`."""
    place = directory / str(note.process)
    unfinished = place.with_suffix(".part")
    unfinished.write_bytes(msgspec.msgpack.encode(note))
    unfinished.rename(place)


def notes_in(directory: Path) -> Iterator[Note]:
    """Yield the notes, in the order in which their commands began; what cannot be read is left out."""
    found = []
    for place in directory.iterdir():
        if place.name.isdigit():
            try:
                found.append(msgspec.msgpack.decode(place.read_bytes(), type=Note))
            except (OSError, msgspec.MsgspecError):
                continue
    return iter(sorted(found, key=lambda note: note.began_ns))


class Parts:
    """An observation, to be taken apart by the runs that ran inside."""

    def __init__(self, observation: Observation) -> None:
        self._observation = observation
        self._processes = {process.pid: process for process in observation.processes}
        self._children: dict[int, list[int]] = {}
        for process in observation.processes:
            self._children.setdefault(process.parent, []).append(process.pid)
        self._of_process: dict[int, list[int]] = {}
        """Where in the observation each process's events are."""
        for position, event in enumerate(observation.events):
            self._of_process.setdefault(event.process, []).append(position)
        self._changes = [event for event in observation.events if event.use in CHANGES]

    def of(self, note: Note) -> Observation:
        """Return what the command of an inner run and its descendants did.

        Raise `InputsUnusable` if others have changed since what it made: then what it made is not known any more.
        """
        if note.process not in self._processes:
            raise InputsUnusable("its process was not seen by the run around it")
        inside = self._inside(note.process)
        self._check_alone(note, inside)
        positions = sorted(position for pid in inside for position in self._of_process.get(pid, ()))
        return Observation(
            tuple(self._observation.events[position] for position in positions),
            tuple(
                replace(process, parent=0) if process.pid == note.process else process
                for process in self._observation.processes
                if process.pid in inside
            ),
            self._observation.incomplete,
        )

    def _inside(self, command: int) -> set[int]:
        inside: set[int] = set()
        waiting = [command]
        while waiting:
            pid = waiting.pop()
            if pid not in inside:
                inside.add(pid)
                waiting += self._children.get(pid, [])
        return inside

    def _check_alone(self, note: Note, inside: set[int]) -> None:
        made: set[str] = set()
        named = {output.path for output in note.named}
        below = f"{note.root}/"
        for event in self._changes:
            if not event.path.startswith(below):
                continue
            if event.process in inside:
                made.add(event.path)
            elif event.use is Use.DELETED and event.path in named:
                continue  # it is known what it was
            elif event.path in made or any(path.startswith(f"{event.path}/") for path in made):
                process = self._processes.get(event.process)
                who = process.programs[-1] if process and process.programs else "the run around it"
                raise InputsUnusable(f"{event.path} was {event.use} again by {who}")


def environment_for(environment: Mapping[str, str], scratch: str, notes: str) -> dict[str, str]:
    """Return the variables of a traced command."""
    return {**environment, "TMPDIR": scratch, VARIABLE: notes}


def directory_from(environment: Mapping[str, str]) -> Path | None:
    """Return where notes are left, if this is an inner run."""
    named = environment.get(VARIABLE, "")
    return Path(named) if named and os.path.isdir(named) else None


def is_inside(environment: Mapping[str, str]) -> bool:
    """Whether what we do is seen by a run around us, or by somebody else who traces us."""
    return directory_from(environment) is not None or is_traced()


def is_traced() -> bool:
    """Whether somebody traces us, an outer run or a debugger: then nobody else can trace what we start."""
    with suppress(OSError), open("/proc/self/status", encoding="ascii", errors="replace") as status:
        return any(line.startswith("TracerPid:") and line.split()[1] != "0" for line in status)
    return False
