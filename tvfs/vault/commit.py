"""The one door through which content comes into a vault.

A commit is taken whole or refused whole, is taken only if everything it refers to is there, and is acknowledged only
when it survives a power loss: append → fdatasync(pack) → batches → flush_wal(sync) → acknowledge; the first two are the
writer's.  A long one is written in slices, what is referred to before what refers: a crash in between leaves chunks and
rows that are each whole and true, and that nothing leads to.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable, Iterator, Sequence

import trio

from tvfs import failpoints
from tvfs.catalog.catalog import Batch, Catalog, Family
from tvfs.chunks.chunk_index import ChunkIndex
from tvfs.chunks.chunk_row import ChunkState
from tvfs.content.manifest import Manifest
from tvfs.digest import ChunkId
from tvfs.ingest.commit import ChunkRecord, IngestCommit
from tvfs.packs.location import Location
from tvfs.packs.pack_directory import PackDirectory, PackMissing
from tvfs.plugin_api import HashFunction
from tvfs.vault.commit_check import (
    CommitRejected,
    DecodedCommit,
    check_record,
    chunks_of,
    decode_manifest,
    location_of,
    pages_of,
)
from tvfs.vault.leases import Leases
from tvfs.vault.pack_grants import PackGrants

SLICE = 64
"""Rows looked up, checked or written at a time: 2 ms, after which others run."""
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
        references = _References(self._index, {})
        await self._look_up_chunks([(chunk_id, None) for chunk_id in chunk_ids], references, holder)
        return list(references.missing)

    async def commit(self, commit: IngestCommit, holder: Hashable) -> list[bytes]:
        """Make a commit durable and return []; or return the chunks that must be sent first, and change nothing.

        Packs that it names must have been synced by their writer.  Raises `CommitRejected` or what the catalog raises.
        """
        decoded = DecodedCommit(commit)
        for row in commit.rows:
            decoded.check_row(row, self._hash_function)
            await trio.lowlevel.checkpoint()
        await self._check_records(decoded, holder)
        references = _References(self._index, decoded.records)
        await self._look_up(decoded, references, holder)
        missing = list(references.missing) or await self._write(decoded, list(references.dead), holder)
        if missing:
            return missing
        failpoints.reach("commit.after_batch")
        await self._catalog.flush()
        failpoints.reach("commit.after_wal_sync")
        return []

    async def _look_up(self, decoded: DecodedCommit, references: _References, holder: Hashable) -> None:
        await self._look_up_chunks([(chunk_id, None) for chunk_id in decoded.uses], references, holder)
        for page in decoded.pages.values():
            await self._look_up_chunks(chunks_of(page), references, holder)
        for root in decoded.roots:
            if root.level == 0:
                await self._look_up_chunks(chunks_of(root), references, holder)
                continue
            for page_hash, covered_bytes in pages_of(root):
                page = self._page(page_hash, decoded)
                if page.size != covered_bytes:
                    raise CommitRejected(f"page {page_hash.hex()} covers other bytes than its root says")
                if page_hash not in decoded.pages:
                    await self._look_up_chunks(chunks_of(page), references, holder)

    async def _look_up_chunks(
        self,
        wanted: Sequence[tuple[bytes, int | None]],
        references: _References,
        holder: Hashable,
    ) -> None:
        for start in range(0, len(wanted), SLICE):
            part = wanted[start : start + SLICE]
            self._leases.hold(holder, (chunk_id for chunk_id, _ in part))
            references.look_up(part)
            await trio.lowlevel.checkpoint()

    def _page(self, page_hash: bytes, decoded: DecodedCommit) -> Manifest:
        sent = decoded.pages.get(page_hash)
        if sent is not None:
            return sent
        row = self._catalog.get(Family.PAGE, page_hash)
        if row is None:
            raise CommitRejected(f"page {page_hash.hex()} is neither sent nor there")
        return decode_manifest(row, f"page {page_hash.hex()}", level=0)

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
        for batch in _batches(decoded.rows_children_first()):
            self._catalog.write(batch)
            await trio.lowlevel.checkpoint()
        return []

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


def _batches(rows: Iterable[tuple[Family, bytes, bytes]]) -> Iterator[Batch]:
    batch, batch_bytes = Batch(), 0
    for family, key, value in rows:
        if len(batch) == SLICE or (batch_bytes and batch_bytes + len(value) > SLICE_BYTES):
            yield batch
            batch, batch_bytes = Batch(), 0
        batch.put(family, key, value)
        batch_bytes += len(value)
    if batch:
        yield batch


class _References:
    """What is known of the chunks that a commit refers to."""

    def __init__(self, index: ChunkIndex, sent: dict[bytes, ChunkRecord]) -> None:
        self._index = index
        self._sizes: dict[bytes, int] = {chunk_id: record.raw_bytes for chunk_id, record in sent.items()}
        self.missing: dict[bytes, None] = {}
        """Neither sent nor usable; a dictionary for its order."""
        self.dead: dict[bytes, None] = {}
        """To be resurrected by this commit."""

    def look_up(self, wanted: Iterable[tuple[bytes, int | None]]) -> None:
        """Find these chunks; raise `CommitRejected` where a size is not the chunk's."""
        pairs = list(wanted)
        asked = (ChunkId(chunk_id) for chunk_id in dict(pairs))
        unknown = [chunk_id for chunk_id in asked if chunk_id not in self._sizes and chunk_id not in self.missing]
        for chunk_id, row in zip(unknown, self._index.find_many(unknown), strict=True):
            if row is None or row.state is ChunkState.QUARANTINED:
                self.missing[chunk_id] = None
                continue
            self._sizes[chunk_id] = row.location.raw_bytes
            if row.state is ChunkState.DEAD:
                self.dead[chunk_id] = None
        for wanted_id, raw_bytes in pairs:
            if raw_bytes is not None and self._sizes.get(wanted_id, raw_bytes) != raw_bytes:
                raise CommitRejected(f"chunk {wanted_id.hex()} does not have {raw_bytes} bytes")
