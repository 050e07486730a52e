"""Faults, each as somebody might make it, planted from outside: the model must notice every one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import trio

from tvfs.catalog.catalog import Batch, Family
from tvfs.chunks.chunk_index import ChunkIndex
from tvfs.chunks.chunk_row import ChunkRow, ChunkState, decode_chunk_row
from tvfs.packs.pack_reader import record_bytes
from tvfs.packs.pack_writer import PackWriter
from tvfs.vault import collector, commit_references
from tvfs.vault.collector import Collector
from tvfs.vault.commit import Committer
from tvfs.vault.compaction import Compactor
from tvfs.vault.counting import CountingCatalog
from tvfs.vault.entries import EntryTable
from tvfs.vault.entry_ranks import EntryRanks
from tvfs.vault.entry_rows import EntryRows
from tvfs.vault.leases import Leases
from tvfs.vault.reservations import Reservations
from tvfs.vault.stored_entry import StoredEntry
from tvfs.vault.unwanted import EPOCH_S


@dataclass(frozen=True)
class Planted:
    """One fault."""

    what: str
    plant: Callable[[], AbstractContextManager[None]]
    """Has it for the length of the block."""


@contextmanager
def replaced(owner: Any, name: str, replacement: Any) -> Iterator[None]:
    """Have something else under a name for the length of the block."""
    missing = object()
    old = owner.__dict__.get(name, missing)
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        if old is missing:
            delattr(owner, name)
        else:
            setattr(owner, name, old)


class _Unflushed:
    """A catalog that says it has flushed."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def flush(self) -> None:
        await trio.lowlevel.checkpoint()


def _unflushed(owner: Any) -> AbstractContextManager[None]:
    """Let objects of a class believe that they have flushed the catalog."""
    init = owner.__init__

    def changed(self: Any, *arguments: Any, **named: Any) -> None:
        init(self, *arguments, **named)
        self._catalog = _Unflushed(self._catalog)

    return replaced(owner, "__init__", changed)


def _skipped_fdatasync() -> AbstractContextManager[None]:
    def sync(self: PackWriter) -> int:
        self.flush()
        self._synced_bytes = self._written_bytes
        return self._synced_bytes

    return replaced(PackWriter, "sync", sync)


def _lost_resurrection() -> AbstractContextManager[None]:
    return replaced(Committer, "_resurrect", lambda self, dead: [])


def _ignored_leases() -> AbstractContextManager[None]:
    init = Collector.__init__

    def changed(self: Collector, catalog: CountingCatalog, leases: Leases, clock: Any) -> None:
        init(self, catalog, Leases(), clock)

    return replaced(Collector, "__init__", changed)


def _no_epoch() -> AbstractContextManager[None]:
    return replaced(collector, "EPOCH_S", 0.0)


def _not_asked_again() -> AbstractContextManager[None]:
    def may_go(self: Collector, key: bytes, now: Any) -> bool:
        young = self._clock.monotonic_s() - self._catalog.unwanted.since_s(key) < EPOCH_S
        return not (young or self._leases.is_leased(key[-32:]))

    return replaced(Collector, "_may_go", may_go)


def _moved_unseen() -> AbstractContextManager[None]:
    def move(self: ChunkIndex, batch: Batch, moves: Any) -> None:
        for chunk_id, (old, new) in moves.items():
            source, target = decode_chunk_row(old).location, decode_chunk_row(new).location
            length = record_bytes(source)
            changes = Batch()
            changes.put(Family.CHUNK, chunk_id, new)
            end = {target.pack: target.offset + length}
            self._change_packs(changes, {source.pack: -length, target.pack: length}, end)
            self._catalog.write(changes)

    return replaced(ChunkIndex, "move", move)


def _usage_row_stays() -> AbstractContextManager[None]:
    add_to = EntryRows.add_to

    def changed(self: EntryRows, batch: Batch, row_key: bytes, old: Any, new: Any, **named: Any) -> None:
        add_to(self, batch, row_key, None if new is None else old, new, **named)

    return replaced(EntryRows, "add_to", changed)


def _pinned_is_ranked() -> AbstractContextManager[None]:
    ranked = EntryRanks.ranked

    def changed(self: EntryRanks, entry: StoredEntry) -> StoredEntry:
        if not entry.pinned:
            return ranked(self, entry)
        found = ranked(self, msgspec.structs.replace(entry, pinned=False))
        return msgspec.structs.replace(found, pinned=True)

    @contextmanager
    def both() -> Iterator[None]:
        def evictable(self: EntryTable, row: Any) -> Any:
            found = self._rows.whatever_is_at(row.row_key)
            return found if isinstance(found, StoredEntry) else None

        with replaced(EntryRanks, "ranked", changed), replaced(EntryTable, "evictable", evictable):
            yield

    return both()


def _expired_is_found() -> AbstractContextManager[None]:
    return replaced(StoredEntry, "has_expired", lambda self, now_ns: 0 < self.expires_ns <= now_ns - 3 * 10**9)


def _replaced_is_still_counted() -> AbstractContextManager[None]:
    old_values = CountingCatalog._old_values

    def changed(self: CountingCatalog, rows: Any) -> Any:
        olds = old_values(self, rows)
        forgotten = [row for row in olds if row[0] is Family.ENTRY and rows[row] is not None]
        return {**olds, **dict.fromkeys(forgotten)}

    return replaced(CountingCatalog, "_old_values", changed)


class _Trusting(ChunkIndex):
    def find_many(self, chunk_ids: Any) -> list[ChunkRow | None]:
        rows = super().find_many(chunk_ids)
        return [
            ChunkRow(row.location) if row is not None and row.state is ChunkState.QUARANTINED else row for row in rows
        ]


def _one_byte_too_many() -> AbstractContextManager[None]:
    reserve = Reservations.reserve

    def changed(self: Reservations, holder: Any, size_bytes: int, *, from_kept: bool = False) -> None:
        if size_bytes == self.free_bytes + 1 and not from_kept:
            self._reserved[holder] = self._reserved.get(holder, 0) + size_bytes
            self._total += size_bytes
            return
        reserve(self, holder, size_bytes, from_kept=from_kept)

    return replaced(Reservations, "reserve", changed)


PLANTED: dict[str, Planted] = {
    "skipped fdatasync": Planted("a pack is said to be synced and is not", _skipped_fdatasync),
    "unflushed commit": Planted("a commit is acknowledged before the log is flushed", partial(_unflushed, Committer)),
    "unflushed entry": Planted("an entry is acknowledged before the log is flushed", partial(_unflushed, EntryTable)),
    "lost resurrection": Planted("a dead chunk that is sent again is not made live", _lost_resurrection),
    "ignored leases": Planted("the collector lets go of what somebody holds", _ignored_leases),
    "no epoch": Planted("the collector lets go of what was wanted a moment ago", _no_epoch),
    "not asked again": Planted("the collector does not look again when it lets go", _not_asked_again),
    "moved unseen": Planted("compaction moves a row that does not point to the old place any more", _moved_unseen),
    "unflushed compaction": Planted("old packs are deleted before the log is flushed", partial(_unflushed, Compactor)),
    "usage row stays": Planted("an entry is removed without its rows of usage", _usage_row_stays),
    "pinned is evicted": Planted("a pinned entry has a rank and is evicted", _pinned_is_ranked),
    "expired is found": Planted("an entry is found for 3 s after its end", _expired_is_found),
    "replaced is counted": Planted(
        "the tree of an entry that is replaced is not let go of", _replaced_is_still_counted
    ),
    "bad chunk trusted": Planted(
        "a quarantined chunk is taken for present", partial(replaced, commit_references, "ChunkIndex", _Trusting)
    ),
    "one byte too many": Planted("a reservation of one byte more than is free is granted", _one_byte_too_many),
}
