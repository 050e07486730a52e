"""What an observation means for a result: what was input, what the run made, and why nothing may be stored.

Pure: it knows the order of events, and nothing of the disk.  The rules are in docs/design/task-key.md.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import IntFlag
from itertools import zip_longest

from taskvault.run import rules
from taskvault.run.crates import searched_by_digest
from taskvault.run.manners import manners_of
from taskvault.run.places import Place, Places
from taskvault.run.staging import is_staged, is_staging
from tvfs.plugin_api import CHANGES, Before, Event, Observation, Use

_SAID_ONCE = frozenset({Use.READ, Use.STATED, Use.ABSENT, Use.REFUSED, Use.FOLLOWED})
"""Uses that add nothing where they were told before, but who looked; compiled modules lie in caches, not here."""
_ASKING = frozenset({Use.STATED, Use.ABSENT})
_LOOKS = frozenset({Use.READ, Use.EXECUTED, Use.STATED, Use.LISTED, Use.REFUSED, Use.FOLLOWED, Use.CHANGED})
"""Uses that tell something of what is there; what is opened to be written to can be asked for its size."""


class Seen(IntFlag):
    """How a command looked at a path before it changed it, if it did."""

    CONTENT = 1
    STATUS = 2
    NAMES = 4
    ABSENCE = 8
    TARGET = 16
    TIMES = 32
    REFUSAL = 64
    TIMES_OF_FILE = 128
    """As TIMES, unless it is a directory."""


_ASKED = Seen.STATUS | Seen.ABSENCE


@dataclass(slots=True)
class Change:
    """The first thing that a command did to a path."""

    before: Before | None
    """What was there; None if that is not known."""
    only_where_nothing_was: bool = False
    """It would have failed otherwise."""
    only_where_something_was: bool = False
    keeps_attributes: bool = False
    """It was emptied and written to: permissions, owner and other names of what was there stayed."""


@dataclass(slots=True)
class Used:
    """What became of an observation."""

    seen: dict[str, Seen] = field(default_factory=dict)
    targets: dict[str, str] = field(default_factory=dict)
    """Symlinks that were followed, and where they led to."""
    changes: dict[str, Change] = field(default_factory=dict)
    """Paths that are now as the command left them; what lies below such a directory too."""
    rewritten: dict[str, str] = field(default_factory=dict)
    """Files that were there before and were opened for writing, or whose attributes were set; and what was done."""
    stated: dict[int, dict[str, None]] = field(default_factory=dict)
    """By process: what it may have compared by times."""
    lookers: dict[str, set[int]] = field(default_factory=dict)
    """By path: the processes that asked whether it is there, and no more."""
    filled: dict[str, None] = field(default_factory=dict)
    """What it made in tools' caches where nothing was."""
    searched: set[str] = field(default_factory=set)
    """Directories that were listed only to find crates that were then opened."""
    reasons: list[str] = field(default_factory=list)
    """Why nothing may be stored."""

    def is_own(self, path: str) -> bool:
        """Whether what is at a path is the command's own doing."""
        if path in self.changes:
            return True
        while len(path) > 1:
            path = path.rpartition("/")[0] or "/"
            if path in self.changes:
                return True
        return False


def use_of(observation: Observation, places: Places) -> Used:
    """Return what an observation means."""
    fold = _Fold(places, observation)
    fold.take_all(observation.events)
    fold.finish()
    fold.used.reasons += [f"it could not be followed: {reason}" for reason in observation.incomplete]
    return fold.used


class _Fold:
    def __init__(self, places: Places, observation: Observation) -> None:
        self.used = Used()
        self._places = places
        self._known_places: dict[str, Place] = {}
        self._manners = manners_of(observation)
        self._moved: dict[str, str] = {}
        """Where a file is that was there before the command moved it, and from where: what it holds, nobody may see."""
        self._looked_at: set[str] = set()
        self._processes = {process.pid: process for process in observation.processes}
        self._crates: dict[int, frozenset[str]] = {}
        self._running: dict[int, str] = {}
        """What each process is at the moment, if it became a program of its own."""
        self._said: set[tuple[Use, str]] = set()
        """What was used in the system since something was changed there, or anything moved: most processes of a build
        look at the same."""
        self._with_manners = self._manners.keep_times | self._manners.keep_file_times
        self._actions: dict[Use, Callable[[Event, Place], None]] = {
            Use.READ: self._read,
            Use.EXECUTED: self._read,
            Use.STATED: self._stated,
            Use.LISTED: self._listed,
            Use.ABSENT: self._absent,
            Use.REFUSED: self._refused,
            Use.FOLLOWED: self._followed,
            Use.CREATED: self._made,
            Use.MADE: self._made,
            Use.CHANGED: self._changed,
            Use.ATTRIBUTES: self._attributes,
            Use.DELETED: self._deleted,
            Use.RENAMED: self._renamed,
        }

    def take_all(self, events: Iterable[Event]) -> None:
        said, with_manners = self._said, self._with_manners
        for event in events:
            if (event.use, event.path) not in said or event.process in with_manners:
                self._take(event)
            elif event.use in _ASKING and event.path in self.used.lookers:
                self.used.lookers[event.path].add(event.process)

    def _take(self, event: Event) -> None:
        action = self._actions.get(event.use)
        if action is None:
            self._talked(event)
            return
        if event.use is Use.EXECUTED:
            self._running[event.process] = os.path.basename(event.path)
        if event.path in self._moved:
            self._meet_moved(event)
        if event.use in _LOOKS and not is_staged(event.path):
            self._looked_at.add(event.path)
        if event.use in _ASKING and is_staging(event.path):
            return  # whether a replay is under way says nothing
        place = self._known_place(event.path)
        if event.use is Use.READ and rules.TERMINALS.match(event.path):
            self._reason("it read from the terminal")
        if place in (Place.NOTHING, Place.SCRATCH, Place.PREPARED) or self._counts_processors(event):
            return
        if place is Place.PROCESSES:
            # That there is a /proc says nothing of who runs.
            if event.path != "/proc" or event.use is Use.LISTED:
                self._reason(f"it looked at other processes ({event.path})")
            return
        if event.use is Use.RENAMED or (place is Place.SYSTEM and event.use in CHANGES):
            self._said.clear()
        action(event, place)
        if place is Place.SYSTEM and event.use in _SAID_ONCE and not self.used.is_own(event.path):
            self._said.add((event.use, event.path))

    def finish(self) -> None:
        """Whatever was moved and is still there is a result that depends on what it was."""
        for path in self._moved:
            if self._known_place(path) is not Place.PREPARED:
                self._tell_moved(path)

    def _counts_processors(self, event: Event) -> bool:
        program = self._running.get(event.process, "")
        return bool(rules.LIMITS.match(event.path) and rules.COUNT_PROCESSORS.match(program))

    # --- looked at ---------------------------------------------------------------------------------------------------

    def _read(self, event: Event, place: Place) -> None:
        self._see(event, Seen.CONTENT)
        source = _source_of(event.path)
        if source in self.used.seen and not self.used.is_own(event.path):
            # Python takes it only if it holds the time of its source.
            self.used.seen[source] |= Seen.TIMES

    def _stated(self, event: Event, place: Place) -> None:
        if self._places.leads_to_scratch(event.path):
            return  # it was made for the run, or is there on every machine
        own = self.used.is_own(event.path)
        self._see(event, Seen.STATUS)
        if not own and place is Place.PROJECT and event.process not in self._manners.ignore_times:
            self.used.stated.setdefault(event.process, {})[event.path] = None

    def _listed(self, event: Event, place: Place) -> None:
        if event.path in self._crates_of(event.process):
            self.used.searched.add(event.path)
            self._see(event, Seen.STATUS)
            return
        self._see(event, Seen.NAMES)

    def _crates_of(self, pid: int) -> frozenset[str]:
        """Return where a process only looks for crates of crates: if it was never anything but a rustc."""
        known = self._crates.get(pid)
        if known is None:
            process = self._processes.get(pid)
            ran = zip_longest(process.programs, process.arguments) if process is not None else ()
            found = [searched_by_digest(each) if _is_rustc(name) else frozenset() for name, each in ran]
            known = self._crates[pid] = frozenset.intersection(*found) if found else frozenset()
        return known

    def _absent(self, event: Event, place: Place) -> None:
        self._see(event, Seen.ABSENCE)

    def _refused(self, event: Event, place: Place) -> None:
        self._see(event, Seen.REFUSAL)

    def _followed(self, event: Event, place: Place) -> None:
        if not self.used.is_own(event.path):
            self.used.targets.setdefault(event.path, event.detail)
        self._see(event, Seen.TARGET)

    def _known_place(self, path: str) -> Place:
        place = self._known_places.get(path)
        if place is None:
            place = self._known_places[path] = self._places.place(path)
        return place

    def _see(self, event: Event, seen: Seen) -> None:
        used = self.used
        if used.is_own(event.path) or event.path in used.filled:
            return
        if event.process in self._manners.keep_times and seen & (Seen.CONTENT | Seen.STATUS):
            seen |= Seen.TIMES
        if event.process in self._manners.keep_file_times and seen & (Seen.CONTENT | Seen.STATUS):
            seen |= Seen.TIMES_OF_FILE
        known = used.seen.get(event.path)
        used.seen[event.path] = seen if known is None else known | seen
        if seen & _ASKED:
            used.lookers.setdefault(event.path, set()).add(event.process)

    # --- made and changed --------------------------------------------------------------------------------------------

    def _made(self, event: Event, place: Place) -> None:
        created = event.use is Use.CREATED
        if place is Place.CACHE:
            if created or (event.before is not None and not event.before.mode):
                self.used.filled[event.path] = None
            return
        emptied = not (created or event.detail)
        known = self.used.changes.get(event.path)
        if known is not None:
            # Renamed over, say, it is another file.
            known.keeps_attributes = known.keeps_attributes and emptied
        self._change(event, only_where_nothing_was=created, keeps_attributes=emptied)

    def _changed(self, event: Event, place: Place) -> None:
        if place is Place.CACHE or self.used.is_own(event.path):
            if place is Place.CACHE and event.before is not None and not event.before.mode:
                self.used.filled[event.path] = None
            return
        if event.before is not None and not event.before.mode:
            # What would have been there would still be there.
            self._change(event, only_where_nothing_was=True)
        else:
            self.used.rewritten.setdefault(event.path, "written to")

    def _attributes(self, event: Event, place: Place) -> None:
        if event.path in self.used.changes:
            self.used.changes[event.path].keeps_attributes = False
        if place is not Place.CACHE and not self.used.is_own(event.path):
            self.used.rewritten.setdefault(event.path, "given other attributes")

    def _deleted(self, event: Event, place: Place) -> None:
        if event.path in self.used.changes:
            self.used.changes[event.path].keeps_attributes = False
        if place is not Place.CACHE:
            self._change(event, only_where_something_was=event.process not in self._manners.replace_outputs)
        self.used.filled.pop(event.path, None)

    def _renamed(self, event: Event, place: Place) -> None:
        if place is Place.CACHE:
            self.used.filled.pop(event.path, None)
            return
        if not self.used.is_own(event.path):
            self._moved[event.detail] = event.path
            # The same look by the same process is told once: a second one, after the move, would not be seen.  Where
            # replays put together what they move into place they look before, and never after.
            seen = event.detail in self._looked_at and self._known_place(event.detail) is not Place.PREPARED
            if event.before is None or not stat.S_ISREG(event.before.mode) or seen:
                self._tell_moved(event.detail)
        self._change(event, only_where_something_was=True)

    def _meet_moved(self, event: Event) -> None:
        """A file that was moved away is harmless if it is removed unseen: as if it had been removed where it was."""
        if event.use is Use.DELETED:
            del self._moved[event.path]
        elif not (event.use is Use.MADE and event.detail == self._moved[event.path]):
            self._tell_moved(event.path)

    def _tell_moved(self, path: str) -> None:
        self._reason(f"it moved {self._moved[path]}, which was there before")

    def _change(
        self,
        event: Event,
        *,
        only_where_nothing_was: bool = False,
        only_where_something_was: bool = False,
        keeps_attributes: bool = False,
    ) -> None:
        if not self.used.is_own(event.path):
            self.used.changes[event.path] = Change(
                event.before, only_where_nothing_was, only_where_something_was, keeps_attributes
            )
            if event.process in self._manners.replace_outputs:
                self._forget_look(event)

    def _forget_look(self, event: Event) -> None:
        """A compiler looks at what it makes only to remove it, so that is no input if nobody else looked."""
        used = self.used
        plain = event.before is None or not event.before.mode or stat.S_ISREG(event.before.mode)
        seen = used.seen.get(event.path, Seen(0))
        known = event.before is not None or seen == Seen.ABSENCE
        if not (seen and plain and known) or seen & ~(Seen.STATUS | Seen.ABSENCE):
            return
        if all(process in self._manners.replace_outputs for process in used.lookers.get(event.path, ())):
            del used.seen[event.path]
            for paths in used.stated.values():
                paths.pop(event.path, None)

    # --- other -------------------------------------------------------------------------------------------------------

    def _talked(self, event: Event) -> None:
        if event.use is Use.LOCAL_SOCKET:
            if event.detail in (errno.errorcode[errno.ENOENT], errno.errorcode[errno.ECONNREFUSED]):
                if not event.path.startswith("@"):
                    self._see(event, Seen.ABSENCE)
                return
            self._reason(f"it talked to {event.path}")
        elif event.use is Use.INTERNET:
            self._reason(f"it used the network ({event.path})")
        else:
            self._reason(f"it talked to the kernel or to others through a socket of family {event.path}")

    def _reason(self, reason: str) -> None:
        if reason not in self.used.reasons:
            self.used.reasons.append(reason)


def _is_rustc(program: str | None) -> bool:
    return program is not None and os.path.basename(program) == "rustc"


def _source_of(path: str) -> str:
    """Return the source of a compiled Python module; empty for all else."""
    directory, name = os.path.split(path)
    above, cache = os.path.split(directory)
    if cache != "__pycache__" or not name.endswith(".pyc"):
        return ""
    return os.path.join(above, f"{name.split('.')[0]}.py")
