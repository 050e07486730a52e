"""Evictable directories: which there are, what is known of the files in them, and how one of these is evicted.

A directory is evictable if it, or one above it, is marked; so what is moved in or out needs no rows to be so.  What is
known of a file (`FileUse`) is begun when it gets a name in one, and may be out of date when it is read: it is believed
only after its name has been looked up.  Evicting removes one name by the owner's hand, in the batch that lets go of
the content, and then the kernel is told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec

from tvfs.catalog.catalog import Batch, Catalog, Family
from tvfs.catalog.rocks import CatalogFull
from tvfs.clock import Clock
from tvfs.content.tree_index import TreeIndexMissing
from tvfs.errors import RowDamaged, TaskVaultError
from tvfs.filesystem.change import Change
from tvfs.filesystem.evictable_rows import (
    FILE,
    MARKED,
    MOST_PLACES,
    NAMES_FIRST,
    RANGE_NEXT,
    TO_GATHER,
    VERSION,
    FileUse,
    decode_use,
    encode_use,
    file_row,
    inode_of,
    last_of,
    parse_file_rank,
    rank_row,
)
from tvfs.filesystem.inode import EVICTABLE, NO_HASH, STAGED, Inode, changed
from tvfs.filesystem.model import WORK
from tvfs.filesystem.namespace import Namespace
from tvfs.filesystem.nodes import Nodes
from tvfs.filesystem.posix_error import NotFound, Stale
from tvfs.filesystem.recent import Recent
from tvfs.filesystem.staging import Staging
from tvfs.plugin_api.eviction import EntryFacts
from tvfs.vault.entry_ranks import EntryRanks
from tvfs.vault.entry_usage import BY_AGE, FILES_BY_RANK
from tvfs.vault.references import references_of

QUIET_S = 1.0
"""How long a file is left alone after it was made or written: programs write, close, and then rename."""
NOTED_EVERY_S = 60.0
"""How often the use of one file is noted."""
_AFTER_RANKS = BY_AGE
"""Rows of entries follow, before those of files by number."""
PASSED_OVER_AT_ONCE = 256
"""Files in use that are passed over in one step."""
RANKED_AT_ONCE = 32
ASK_AGAIN_S = 0.1
_REMEMBERED = 16_384


class NotMarkable(TaskVaultError):
    """What is there cannot be evictable."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"Only directories below `work/` can be evictable, and this {reason}.")


class RankedFile(NamedTuple):
    """A file whose turn it may be."""

    rank: float
    ino: int


class Evictables:
    """The owner's trio thread only; everything is synchronous."""

    def __init__(  # noqa: PLR0913 - what becomes of a file
        self,
        catalog: Catalog,
        nodes: Nodes,
        namespace: Namespace,
        staging: Staging,
        ranks: EntryRanks,
        clock: Clock,
        *,
        is_open: Callable[[int], bool],
        is_known: Callable[[int], bool],
        sharers: Callable[[bytes], int],
        function: str,
    ) -> None:
        """`is_known` says whether the kernel has a reference to an inode, `sharers` how many rows refer to an object.

        `function` names the vault's hash function.
        """
        self._catalog = catalog
        self._nodes = nodes
        self._namespace = namespace
        self._staging = staging
        self._ranks = ranks
        self._clock = clock
        self._is_open = is_open
        self._is_known = is_known
        self._sharers = sharers
        self._function = function
        self._marked: set[int] = set()
        self._active = False
        """Whether there may be rows; as long as there are none nothing is looked for."""
        self._noted: Recent[float] = Recent(_REMEMBERED)
        self._evicted: set[int] = set()
        """Inodes that were evicted and that the kernel has not forgotten yet."""
        # No row is below the one or above the other: those that were removed cost a search as much as any, 4 µs each
        # backwards, so that a search from the end of a long queue would hold the owner for longer and longer.
        self._floor = FILES_BY_RANK
        self._ceiling = last_of(TO_GATHER)
        self._from = FILES_BY_RANK
        self._seen_quiet = False
        self._ask_again_s: float | None = None
        self.tell: Callable[[int, bytes, int], None] = _nobody
        """Called with parent, name and inode of what was evicted, for the kernel; must not wait."""

    # Directories.

    def start(self) -> None:
        """Read which directories are marked."""
        self._marked = {inode_of(key) for key, _ in self._catalog.scan(Family.USAGE, MARKED, last_of(MARKED))}
        kinds = (FILES_BY_RANK, FILE, TO_GATHER, MARKED)
        rows = (next(self._catalog.scan(Family.USAGE, kind, kind + b"\xff" * 17), None) for kind in kinds)
        self._active = any(row is not None for row in rows)

    def mark(self, ino: int, evictable: bool) -> None:
        """Mark a directory below `work/`, or unmark it; raise `NotMarkable` or `NotFound`."""
        inode = self._nodes.get(ino)
        if not inode.is_directory:
            raise NotMarkable("is no directory")
        if ino == WORK or not self._is_below(ino, {WORK}):
            raise NotMarkable("is none of them")
        if bool(inode.flags & EVICTABLE) == evictable:
            return
        change = self._namespace.change()
        if evictable:
            change.put(ino, changed(inode, flags=inode.flags | EVICTABLE))
            change.batch.put(Family.USAGE, file_row(MARKED, ino), b"")
            self.queue(change, ino, NAMES_FIRST)
            change.afterwards.append(lambda: self._marked.add(ino))
            self._active = True
        else:
            change.put(ino, changed(inode, flags=inode.flags & ~EVICTABLE))
            change.batch.delete(Family.USAGE, file_row(MARKED, ino))
            change.afterwards.append(lambda: self._marked.discard(ino))
        change.commit()

    def covers(self, directory: int) -> bool:
        """Whether files in a directory may be evicted: it, or one above it, is marked."""
        return bool(self._marked) and self._is_below(directory, self._marked)

    def is_evictable(self, ino: int, parent: int) -> bool:
        """Whether a directory is evictable, or the file that has a name in `parent` may be evicted one day."""
        inode = self._nodes.get(ino)
        if inode.is_directory:
            return self.covers(ino)
        return inode.is_regular and inode.nlink == 1 and self.covers(parent)

    def _is_below(self, ino: int, tops: set[int]) -> bool:
        while ino not in tops:
            found = self._nodes.find(ino)
            if found is None or found.parent in (0, ino):
                return False
            ino = found.parent
        return True

    # Directories that are to be gone through: see `tvfs.filesystem.gathering`.

    def queue(self, change: Change, ino: int, state: bytes) -> None:
        """Let a directory be gone through, or its range be dissolved, soon."""
        row = file_row(TO_GATHER, ino)
        change.batch.put(Family.USAGE, row, state)
        self._ceiling = max(self._ceiling, row)

    def last_queued(self) -> tuple[int, bytes] | None:
        """Return the greatest inode number that is queued, and what is to be done."""
        if self._ceiling < TO_GATHER:
            return None
        row = self._catalog.last(Family.USAGE, self._ceiling)
        if row is None or not row[0].startswith(TO_GATHER):
            self._ceiling = b""
            return None
        self._ceiling = row[0]
        return inode_of(row[0]), row[1]

    # What happens to names and files.

    def entered(self, change: Change, parent: int, name: bytes, ino: int, inode: Inode) -> None:
        """An inode gets a name, in this change."""
        if not self._marked or not self.covers(parent):
            return
        if inode.is_directory:
            has_more = bool(inode.entries) or inode.hash != NO_HASH
            before = self._nodes.find(ino) if has_more else None
            if has_more and (before is None or not self.covers(before.parent)):
                self.queue(change, ino, NAMES_FIRST)
        elif inode.is_regular:
            self.know(change, (parent, name), ino, inode, used_ns=change.now_ns)

    def know(self, change: Change, place: tuple[int, bytes], ino: int, inode: Inode, *, used_ns: int) -> None:
        """Know a file by a name (parent and name) that is in an evictable directory."""
        use = self._use(ino)
        if use is None:
            known = FileUse(VERSION, [place], None, False, change.now_ns, used_ns)
        elif place not in use.places or use.used_ns < used_ns:
            others = [each for each in use.places if each != place]
            known = changed_use(use, places=[*others, place][-MOST_PLACES:], used_ns=max(use.used_ns, used_ns))
        else:
            return
        self._put(change.batch, ino, use, self._ranked(ino, inode, known))

    def one_name_left(self, change: Change, ino: int) -> None:
        """All names of a file but one were removed: it is in the ranking again."""
        use = self._use(ino) if self._active else None
        if use is not None and use.rank is None:
            self._put(change.batch, ino, use, self._ranked(ino, change.inode(ino), use))

    def gone(self, change: Change, ino: int, inode: Inode) -> None:
        """An inode is removed, in this change."""
        if not self._active:
            return
        if inode.is_directory:
            for kind in (TO_GATHER, MARKED):
                change.batch.delete(Family.USAGE, file_row(kind, ino))
            change.afterwards.append(lambda: self._marked.discard(ino))
        elif inode.is_regular:
            self._forget(change.batch, ino, self._use(ino))

    def range_left(self, change: Change, first: int) -> None:
        """The root of an attached tree is removed: what was moved out of the tree needs its range for a while yet."""
        self.queue(change, first, RANGE_NEXT)
        self._active = True

    def range_gone(self, change: Change, first: int, end: int) -> None:
        """All inodes with numbers from `first` to `end` are removed, in this change."""
        if self._active:
            for kind in (FILE, TO_GATHER, MARKED):
                change.batch.delete_range(Family.USAGE, file_row(kind, first), file_row(kind, end))
            change.afterwards.append(self.start)

    def forgotten(self, ino: int) -> None:
        """The kernel has no reference to an inode any more."""
        self._evicted.discard(ino)

    def opened(self, ino: int) -> None:
        """Somebody opens a file; raise `Stale` if it has been evicted and the kernel believes that it is there."""
        if not self._active:
            return
        if ino in self._evicted:
            raise Stale
        now_s = self._clock.monotonic_s()
        noted_s = self._noted.get(ino)
        if noted_s is not None and now_s - noted_s < NOTED_EVERY_S:
            return
        self._noted.put(ino, now_s)
        self._used(ino, 1)

    def written(self, ino: int) -> None:
        """Nobody writes to a file any more: its length may be another."""
        if self._active:
            self._used(ino, 0)

    def _used(self, ino: int, uses: int) -> None:
        use, inode = self._use(ino), self._nodes.find(ino)
        if use is None or inode is None or use.rank is None:
            return
        used = changed_use(use, used_ns=self._clock.now_ns(), uses=use.uses + uses)
        batch = Batch()
        self._put(batch, ino, use, self._ranked(ino, inode, used))
        with suppress(CatalogFull):  # nobody who opens a file should hear of it
            self._catalog.write(batch)

    # Candidates: see `tvd.eviction.CandidateSource`.

    def lowest(self, limit: int) -> Sequence[RankedFile]:
        """Return up to `limit` files that nobody uses now, the lowest rank first."""
        self._ask_again_s = None
        if not self._active:
            return []
        found: list[RankedFile] = []
        passed_over = 0
        from_floor = self._from <= self._floor
        for key, _ in self._catalog.scan(Family.USAGE, max(self._from, self._floor), _AFTER_RANKS):
            if from_floor:
                self._floor, from_floor = key, False
            rank, ino = parse_file_rank(key)
            if self._is_in_use(ino):
                passed_over += 1
                if passed_over == PASSED_OVER_AT_ONCE:
                    self._from = key + b"\0"
                    self._ask_again_s = 0.0
                    break
                continue
            found.append(RankedFile(rank, ino))
            if len(found) == limit:
                break
        else:
            if self._seen_quiet or self.last_queued() is not None:
                self._ask_again_s = ASK_AGAIN_S
            if from_floor:
                self._floor = _AFTER_RANKS  # there was none
            self._from, self._seen_quiet = FILES_BY_RANK, False
        return found

    def ask_again_s(self) -> float | None:
        """If `lowest` found nothing: after how many seconds it may find something; None if not."""
        return self._ask_again_s

    def spare(self, candidate: RankedFile, /) -> bool:
        """Give a file a second chance if the policy wants that."""
        use, inode = self._use(candidate.ino), self._found(candidate.ino)
        if use is None or inode is None or use.rank != candidate.rank:
            return False
        rank = self._ranks.spare_file(self._facts(candidate.ino, inode, use))
        if rank is None:
            return False
        batch = Batch()
        self._put(batch, candidate.ino, use, changed_use(use, rank=rank, by_use=False, spared_uses=use.uses))
        self._catalog.write(batch)
        return True

    def let_go(self, candidate: RankedFile, /) -> int:
        """Remove the file if it is still what it was; return about how many bytes that gives back, or 0."""
        rank, ino = candidate
        use, inode = self._use(ino), self._found(ino)
        change = self._namespace.change()
        place = None
        if use is None or use.rank != rank:
            change.batch.delete(Family.USAGE, rank_row(rank, ino))
        elif inode is None or not inode.is_regular or not inode.nlink:
            self._forget(change.batch, ino, use)
        else:
            place = self._place_now(ino, use)
            if place is None:
                self._forget(change.batch, ino, use)
            elif inode.nlink > 1:
                # Another name would keep the content, and may be anywhere.
                self._put(change.batch, ino, use, changed_use(use, rank=None))
                place = None
        if place is None or inode is None or use is None:
            change.commit()
            return 0
        size_bytes = self._bytes_of(ino, inode)
        self._forget(change.batch, ino, use)
        self._ranks.age_file(change.batch, rank, by_use=use.by_use)
        self._namespace.leave(change, *place, inode)
        # Also if the kernel knows the inode: who waits for room may keep it from being told.
        self._namespace.purge(change, ino)
        change.commit()
        if self._is_known(ino):
            self._evicted.add(ino)
        self.tell(*place, ino)
        return max(1, size_bytes)

    def rank_some(self, after: bytes | None) -> bytes | None:
        """Rank the next files anew, after a row; return after which to go on, or None when all are done."""
        batch = Batch()
        rows = self._catalog.scan(Family.USAGE, FILE if after is None else after + b"\0", last_of(FILE) + b"\0")
        for looked_at, (key, _) in enumerate(rows, 1):
            ino = inode_of(key)
            use, inode = self._use(ino), self._found(ino)
            if use is not None and inode is not None and use.rank is not None:
                self._put(batch, ino, use, self._ranked(ino, inode, use))
            if looked_at == RANKED_AT_ONCE:
                self._catalog.write(batch)
                return key
        self._catalog.write(batch)
        return None

    def _is_in_use(self, ino: int) -> bool:
        if self._is_open(ino):
            return True
        file = self._staging.files.get(ino)
        if file is not None and (file.busy or file.locked or self._clock.monotonic_s() - file.written_s < QUIET_S):
            self._seen_quiet = True
            return True
        use = self._use(ino)
        # Only the latest moments count: a clock that was set back must not protect anything.
        if use is not None and 0 <= self._clock.now_ns() - use.used_ns < QUIET_S * 1e9:
            self._seen_quiet = True
            return True
        return False

    def _place_now(self, ino: int, use: FileUse) -> tuple[int, bytes] | None:
        """Return parent and name of the file, in an evictable directory; None if it is not known there."""
        for parent, name in reversed(use.places):
            with suppress(NotFound, TreeIndexMissing, RowDamaged):
                directory = self._nodes.get(parent)
                is_name = directory.is_directory and self._namespace.child(parent, name)[0] == ino
                if is_name and directory.nlink and self.covers(parent):
                    return parent, name
        return None

    def _bytes_of(self, ino: int, inode: Inode) -> int:
        if inode.state == STAGED:
            file = self._staging.files.get(ino)
            return 0 if file is None else file.occupied_bytes
        refers = references_of(Family.INODE, b"", inode.encode(), self._function)
        return inode.size // max(1, self._sharers(refers[0])) if refers else 0

    # Rows.

    def _found(self, ino: int) -> Inode | None:
        try:
            return self._nodes.find(ino)
        except (TreeIndexMissing, RowDamaged):
            return None

    def _use(self, ino: int) -> FileUse | None:
        row = self._catalog.get(Family.USAGE, file_row(FILE, ino))
        try:
            return None if row is None else decode_use(row)
        except RowDamaged:
            return None

    def _put(self, batch: Batch, ino: int, before: FileUse | None, use: FileUse) -> None:
        if before is not None and before.rank is not None and before.rank != use.rank:
            batch.delete(Family.USAGE, rank_row(before.rank, ino))
        batch.put(Family.USAGE, file_row(FILE, ino), encode_use(use))
        if use.rank is not None:
            row = rank_row(use.rank, ino)
            batch.put(Family.USAGE, row, b"")
            self._floor = min(self._floor, row)

    def _forget(self, batch: Batch, ino: int, use: FileUse | None) -> None:
        if use is not None:
            batch.delete(Family.USAGE, file_row(FILE, ino))
            if use.rank is not None:
                batch.delete(Family.USAGE, rank_row(use.rank, ino))

    def _ranked(self, ino: int, inode: Inode, use: FileUse) -> FileUse:
        rank, by_use = self._ranks.rank_file(self._facts(ino, inode, use))
        return changed_use(use, rank=rank, by_use=by_use)

    def _facts(self, ino: int, inode: Inode, use: FileUse) -> EntryFacts:
        size_bytes = self._nodes.attributes(ino, inode).size if self._is_here(ino, inode) else 0
        return EntryFacts(
            now_ns=self._clock.now_ns(),
            scope="",
            kind="file",
            size_bytes=size_bytes,
            share_bytes=self._bytes_of(ino, inode),
            cost_ns=0,
            created_ns=use.created_ns,
            used_ns=use.used_ns,
            uses=use.uses,
            uses_since=use.uses - use.spared_uses,
            expires_ns=0,
            rank=use.rank,
        )

    def _is_here(self, ino: int, inode: Inode) -> bool:
        return inode.state != STAGED or ino in self._staging.files


changed_use = msgspec.structs.replace
"""Return what is known of a file with some of it changed."""


def _nobody(parent: int, name: bytes, ino: int) -> None:
    """Nothing is mounted: no kernel to tell."""
