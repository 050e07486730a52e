"""What is remembered of files and directories from one look to the next, so that nothing is read twice.

Everything is kept by identity: a file or directory that was changed has another one (`taskvault.run.steady` says when
that can be relied on).  A process that serves one run after the other keeps one `Memory`; digests of files are shared
with all processes of the user (`taskvault.run.digest_table`).
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from taskvault.run.coarse_clock import coarse_now_ns
from taskvault.run.digest_table import DigestTable, Identity
from taskvault.run.many_looks import followed, itself
from taskvault.run.own_view import holds_own_view
from taskvault.run.pathset import Item, Look, Pathset, decode
from taskvault.run.steady import DIRECTORIES_OF, FILES_OF, TICK_NS, FileSystems, mapped_ns

MOST_KEPT = 200_000
"""Paths, digests, and directories; beyond that everything is forgotten at once."""

LIKELY_S = 60.0
"""For so long the row of a weak key is not asked for where a result was found by it: the owner counts its uses."""

MOST_SEEN = 4_000
"""Pathsets in roots, of all pathsets together: of each 15 KiB are kept."""

MOST_PATHSETS = 4_000
"""A pathset of a compiler call takes some 60 KiB, decoded."""


@dataclass(slots=True)
class Seen:
    """What the looks of a plan told the last time, and the states that came of it."""

    told: bytearray
    """See `taskvault.run.many_looks`."""
    states: list[bytes]
    """Of the items."""
    anew: set[int]
    """Numbers of looks that must be looked at by themselves, whatever they tell."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A pathset, ordered for looking at it."""

    pathset: Pathset
    absences: tuple[tuple[bytes, frozenset[bytes], tuple[tuple[bytes, int], ...]], ...]
    """Directories (as in items), the names that were not in them, and the numbers of their items."""
    others: tuple[int, ...]
    """Numbers of all other items, but for the root itself."""
    of_root: tuple[int, ...]
    """Of that."""
    own_view: bool
    """Whether something was looked at that is another for each process."""
    paths: bytes
    """The looks of the plan: where each directory of `absences` leads, then the `others` themselves."""
    seen: dict[bytes, Seen | None] = field(default_factory=dict)
    """By root the last one; none if there was one only, which is all that most processes need."""


@dataclass(frozen=True, slots=True)
class AbsentNames:
    """What is known of one directory, which is there or not."""

    identity: Identity | None
    """Of what is there."""
    names: set[bytes] | None
    """Known not to be there, to which others may be added that are found not to be; None if no name is."""
    kept: bool
    """Whether that stays true as long as it is the same."""


class Memory:
    """What one process remembers."""

    def __init__(
        self,
        table: DigestTable | None = None,
        *,
        file_systems: FileSystems | None = None,
        now_ns: Callable[[], int] = coarse_now_ns,
    ) -> None:
        """`now_ns` is the clock that the kernel stamps files with."""
        self._table = table
        self._file_systems = file_systems or FileSystems()
        self.now_ns = now_ns
        self._digests: dict[Identity, bytes] = {}
        self._plans: dict[bytes, Plan] = {}
        self._items: dict[Item, Item] = {}
        self._seen = 0
        self._likely: dict[bytes, tuple[float, bytes]] = {}
        self.states: dict[tuple[bytes, int], tuple[Identity, bytes]] = {}
        """By absolute path and look: what was there, and the state that was made of it."""
        self._absent: dict[bytes, tuple[Identity, set[bytes]]] = {}

    def digest(self, identity: Identity) -> bytes | None:
        """Return the digest of a file's content, if it is known."""
        known = self._digests.get(identity)
        if known is None and self._table is not None:
            known = self._table.get(identity)
            if known is not None:
                self._digests[identity] = known
        return known

    def keep_digest(self, identity: Identity, digest: bytes) -> None:
        """Remember a digest; what the file holds must be steady."""
        _make_room(self._digests)
        self._digests[identity] = digest
        if self._table is not None:
            self._table.put(identity, digest)

    def keep_state(self, place: bytes, look: int, identity: Identity, state: bytes) -> None:
        """Remember a state; what it was made of must be steady."""
        _make_room(self.states)
        self.states[place, look] = identity, state

    def kind(self, place: bytes, status: os.stat_result) -> str:
        """Return the kind of file system that a path is on; empty if that cannot be known."""
        return self._file_systems.kind(status.st_dev, place)

    def is_steady(self, place: bytes, status: os.stat_result, looked_ns: int) -> bool:
        """Whether what a file or symlink holds goes with its identity; `looked_ns` is when it was looked at."""
        return (
            status.st_ctime_ns + mapped_ns() < looked_ns
            and self._file_systems.kind(status.st_dev, place) in FILES_OF
        )  # fmt: skip

    def absent_names(self, directory: bytes) -> AbsentNames:
        """Return the names that are known not to be in a directory; raise `OSError`."""
        looked_ns = self.now_ns()
        try:
            status = os.stat(directory)
        except (FileNotFoundError, NotADirectoryError):
            return AbsentNames(None, None, True)
        identity = identity_of(status)
        if not stat.S_ISDIR(status.st_mode):
            return AbsentNames(identity, None, True)
        known = self._absent.get(directory)
        if known is not None and known[0] == identity:
            return AbsentNames(identity, known[1], True)
        names: set[bytes] = set()
        kept = (
            status.st_ctime_ns + TICK_NS < looked_ns
            and self._file_systems.kind(status.st_dev, directory) in DIRECTORIES_OF
        )
        if kept:
            _make_room(self._absent)
            self._absent[directory] = identity, names
        return AbsentNames(identity, names, kept)

    def likely_pathset(self, weak: bytes) -> bytes | None:
        """Return the pathset by which a result was found for a weak key, if that was just now."""
        moment_s, encoded = self._likely.get(weak, (0.0, b""))
        return encoded if encoded and time.monotonic() - moment_s < LIKELY_S else None

    def keep_likely(self, weak: bytes, encoded: bytes) -> None:
        """Remember by which pathset a result was found."""
        _make_room(self._likely)
        self._likely[weak] = time.monotonic(), encoded

    def plan(self, encoded: bytes) -> Plan:
        """Return a pathset decoded; raise `PathsetsUnusable`."""
        found = self._plans.get(encoded)
        if found is None:
            if len(self._plans) >= MOST_PATHSETS:
                self._plans.clear()
                self._seen = 0
            found = self._plans[encoded] = planned(self._shared(decode(encoded)))
        return found

    def make_room_for_seen(self) -> None:
        """Count one more pathset in one more root of which it is kept what was seen; of too many all is forgotten."""
        self._seen += 1
        if self._seen > MOST_SEEN:
            self._seen = 1
            for plan in self._plans.values():
                plan.seen.clear()

    def _shared(self, pathset: Pathset) -> Pathset:
        """Return the pathset with the items that others have already: most of what two compiler calls look at."""
        if len(self._items) >= MOST_KEPT:
            self._items.clear()
        return replace(pathset, items=[self._items.setdefault(item, item) for item in pathset.items])


def planned(pathset: Pathset) -> Plan:
    """Order a pathset: what was not there by directory, so that one look at that may tell of all."""
    absences: dict[bytes, dict[bytes, int]] = {}
    others: list[int] = []
    of_root: list[int] = []
    for number, item in enumerate(pathset.items):
        directory, slash, name = item.path.rpartition(b"/")
        if item.look != Look.ABSENCE or not name:
            (others if item.path else of_root).append(number)
            continue
        absences.setdefault(directory or slash, {})[name] = number
    grouped = ((each, frozenset(names), tuple(names.items())) for each, names in absences.items())
    paths = [followed(directory or b".") for directory in absences]
    paths += [itself(pathset.items[number].path) for number in others]
    return Plan(
        pathset, tuple(grouped), tuple(others), tuple(of_root), holds_own_view(pathset.items), b"".join(paths)
    )  # fmt: skip


def identity_of(status: os.stat_result) -> Identity:
    """Return what changes when a file's content, or the names in a directory, may have."""
    return (
        status.st_dev, status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns,
    )  # fmt: skip


def _make_room(kept: dict[Any, Any]) -> None:
    if len(kept) >= MOST_KEPT:
        kept.clear()
