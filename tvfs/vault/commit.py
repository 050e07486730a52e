"""The one door through which content comes into a vault.

A commit is taken whole or refused whole, is taken only if everything it refers to is there, and is acknowledged only
when it survives a power loss: append → fdatasync(pack) → batches → flush_wal(sync) → acknowledge; the first two are the
writer's.  A long one is written in slices, what is referred to before what refers: a crash in between leaves chunks and
rows that are each whole and true, and that nothing leads to.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Hashable, Sequence

import trio

from tvfs import failpoints
from tvfs.catalog.catalog import Batch, Catalog, Family
from tvfs.chunks.chunk_index import ChunkIndex
from tvfs.chunks.chunk_row import ChunkState
from tvfs.digest import ChunkId
from tvfs.ingest.commit import ChunkRecord, IngestCommit
from tvfs.packs.location import Location
from tvfs.packs.pack_directory import PackDirectory, PackMissing
from tvfs.plugin_api import HashFunction
from tvfs.vault.commit_check import (
    UNCOUNTED_ROW_BYTES,
    CommitRejected,
    DecodedCommit,
    check_record,
    count_objects,
    location_of,
)
from tvfs.vault.commit_references import SLICE, CommitReferences
from tvfs.vault.index_rows import IndexRows
from tvfs.vault.leases import Leases
from tvfs.vault.pack_grants import PackGrants
from tvfs.vault.references import first_items, manifest_count, most_references, object_of_row

ROW_OVERHEAD_BYTES = 160
"""Of a row beside what it says: its key, its count, and what RocksDB adds."""
SLICE_REFERENCES = 256
"""What rows that are written at a time refer to, unless one alone refers to more: 5 µs each."""
SLICE_BYTES = 128 << 10
"""Rows that are written at a time have no more bytes, unless one alone does."""


class Committer:
    """Takes commits of any number of holders at the same time.

    References are looked up in slices, each under a lease of the holder, so that what was found stays; records and
    what must be changed are looked up again in the synchronous block that writes them.
    """

    def __init__(  # noqa: PLR0913  # the parts of a vault, named
        self,
        *,
        catalog: Catalog,
        packs: PackDirectory,
        grants: PackGrants,
        leases: Leases,
        hash_function: HashFunction,
        codec_ids: Collection[int],
        before_promise: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
    ) -> None:
        """`before_promise` is awaited before anybody is told what is there."""
        self._catalog = catalog
        self._index = ChunkIndex(catalog)
        self._packs = packs
        self._grants = grants
        self._leases = leases
        self._hash_function = hash_function
        self._codec_ids = codec_ids
        self._before_promise = before_promise

    async def find_missing(self, chunk_ids: Sequence[bytes], holder: Hashable) -> list[bytes]:
        """Return which of these chunks must be sent; the others stay until `Leases.release(holder)`."""
        await self._before_promise()
        references = CommitReferences(self._catalog, self._leases, holder, {})
        await references.look_up_chunks([(chunk_id, None) for chunk_id in chunk_ids])
        return list(references.missing)

    async def commit(self, commit: IngestCommit, holder: Hashable, *, makes_room: bool = False) -> list[bytes]:
        """Make a commit durable and return []; or return the chunks that must be sent first, and change nothing.

        Waits while room is being made for its rows; with `makes_room` it takes of what is kept, and waits only then.
        Packs that it names must have been synced by their writer.  Raises `CommitRejected`, `CommitOutdated`,
        `VaultFull` or what the catalog raises.
        """
        async with self._grants.rows_reserved(_row_bytes(commit), makes_room=makes_room):
            return await self._commit(commit, holder)

    async def _commit(self, commit: IngestCommit, holder: Hashable) -> list[bytes]:
        decoded = DecodedCommit(commit, self._hash_function.name)
        for row in commit.rows:
            if row.family != Family.PAGE and len(row.value) > UNCOUNTED_ROW_BYTES:
                await trio.to_thread.run_sync(count_objects, row)
            decoded.check_row(row, self._hash_function)
            await trio.lowlevel.checkpoint()
        await self._check_records(decoded, holder)
        references = CommitReferences(self._catalog, self._leases, holder, decoded.records)
        await references.look_up(decoded, self._hash_function.name)
        missing = list(references.missing) or await self._write(decoded, list(references.dead), holder)
        if missing:
            return missing
        failpoints.reach("commit.after_batch")
        await self._catalog.flush()
        failpoints.reach("commit.after_wal_sync")
        return []

    async def _write(self, decoded: DecodedCommit, dead: list[bytes], holder: Hashable) -> list[bytes]:
        """Write chunks, then what refers to them; each step checks what may have changed and writes in one turn."""
        for start in range(0, len(dead), SLICE):
            missing = self._resurrect([ChunkId(chunk_id) for chunk_id in dead[start : start + SLICE]])
            if missing:
                return missing
            await trio.lowlevel.checkpoint()
        records = list(decoded.records.values())
        for start in range(0, len(records), SLICE):
            self._write_records(records[start : start + SLICE], holder)
            await trio.lowlevel.checkpoint()
        await self._write_rows(decoded)
        return []

    async def _write_rows(self, decoded: DecodedCommit) -> None:
        """Write rows that refer, so many at a time that counting what they refer to takes at most 2 ms."""
        batch, batch_bytes, references = Batch(), 0, 0
        indexes = IndexRows(self._catalog)
        for family, key, value in decoded.rows_children_first():
            refers = most_references(family, value)
            full = len(batch) == SLICE or batch_bytes + len(value) > SLICE_BYTES
            if batch and (full or references + refers > SLICE_REFERENCES):
                self._catalog.write(batch)
                await trio.lowlevel.checkpoint()
                batch, batch_bytes, references = Batch(), 0, 0
            if refers > SLICE_REFERENCES:
                await self._build_up(family, key, value)
                continue
            if indexes.are_kept(family, key):
                continue
            batch.put(family, key, value)
            batch_bytes += len(value)
            references += refers
        if batch:
            self._catalog.write(batch)
            await trio.lowlevel.checkpoint()

    async def _build_up(self, family: Family, key: bytes, value: bytes) -> None:
        """Write a long manifest, which is counted little by little: as the rest of one that is let go.

        Its lease keeps it from being let go; if we end before it is whole, that is what happens to it.
        """
        if self._catalog.get(family, key) == value:
            return
        whose = object_of_row(family, key)
        assert whose is not None, "manifests are objects"
        for end in range(SLICE_REFERENCES, manifest_count(value) + SLICE_REFERENCES, SLICE_REFERENCES):
            batch = Batch()
            batch.put(Family.DOOMED, whose, first_items(value, min(end, manifest_count(value))))
            self._catalog.write(batch)
            await trio.lowlevel.checkpoint()
        batch = Batch()
        batch.put(family, key, value)
        batch.delete(Family.DOOMED, whose)
        self._catalog.write(batch)

    def _resurrect(self, dead: list[ChunkId]) -> list[bytes]:
        """Make dead chunks live where they lie; return those that are no longer usable, and then change nothing."""
        rows = dict(zip(dead, self._index.find_many(dead), strict=True))
        usable = {key: row for key, row in rows.items() if row is not None and row.state is not ChunkState.QUARANTINED}
        if len(usable) == len(rows):
            self._add({chunk_id: row.location for chunk_id, row in usable.items()})
        return [chunk_id for chunk_id in dead if chunk_id not in usable]

    def _write_records(self, records: Sequence[ChunkRecord], holder: Hashable) -> None:
        placed = {ChunkId(record.chunk_id): location_of(record) for record in records}
        self._check_lengths(placed)
        numbers = {record.pack for record in records}
        for number in numbers:
            self._pack_bytes(number, holder)
        self._add(placed)
        for number in numbers:
            self._grants.note_growth(number)

    def _add(self, placed: dict[ChunkId, Location]) -> None:
        batch = Batch()
        self._index.add(batch, placed)
        self._catalog.write(batch)

    async def _check_records(self, decoded: DecodedCommit, holder: Hashable) -> None:
        """Raise `CommitRejected`."""
        lengths: dict[int, int] = {}
        for start in range(0, len(decoded.all_records), SLICE):
            part = decoded.all_records[start : start + SLICE]
            for record in part:
                if record.pack not in lengths:
                    lengths[record.pack] = self._pack_bytes(record.pack, holder)
                check_record(record, lengths[record.pack], self._codec_ids)
            self._check_lengths({ChunkId(record.chunk_id): location_of(record) for record in part})
            await trio.lowlevel.checkpoint()

    def _check_lengths(self, placed: dict[ChunkId, Location]) -> None:
        for (chunk_id, at), row in zip(placed.items(), self._index.find_many(list(placed)), strict=True):
            if row is not None and row.location.raw_bytes != at.raw_bytes:
                raise CommitRejected(f"chunk {chunk_id.hex()} has another length in the vault")

    def _pack_bytes(self, number: int, holder: Hashable) -> int:
        if not self._grants.belongs_to(number, holder):
            raise CommitRejected(f"pack {number} is not the sender's")
        try:
            return self._packs.size(number)
        except PackMissing as exc:
            raise CommitRejected(f"pack {number} has no file") from exc


def _row_bytes(commit: IngestCommit) -> int:
    """Return how much the catalog grows by at most, for a moment: each row is in a table and in a newer one."""
    rows = sum(len(row.key) + len(row.value) for row in commit.rows)
    blobs = sum(len(blob.manifest) + ROW_OVERHEAD_BYTES for blob in commit.blobs)
    return 2 * (rows + blobs + ROW_OVERHEAD_BYTES * (len(commit.rows) + len(commit.chunks)))
