"""Chunks in packs, found through the catalog: the store of a vault's owner."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import trio

from tvfs import failpoints
from tvfs.catalog.catalog import Batch, Catalog
from tvfs.chunks.chunk_index import ChunkIndex
from tvfs.chunks.chunk_row import ChunkRow, ChunkState
from tvfs.chunks.encoding import ChunkFormat, encode_chunk
from tvfs.chunks.pack_appender import PackAppender
from tvfs.chunks.store import ChunkDamaged, ChunkMissing
from tvfs.digest import ChunkId
from tvfs.packs.location import Location
from tvfs.packs.pack_directory import PackDirectory, PackMissing
from tvfs.packs.pack_reader import neighbouring, payload_is_whole, payload_of, read_payload_nowait, read_run
from tvfs.packs.record import MAX_CHUNK_BYTES, PackDamaged
from tvfs.plugin_api.buffer import Buffer

ROWS_A_BATCH = 256
"""Rows written at a time: about 2 ms, so that a large flush does not hold the owner up."""


@dataclass(frozen=True, slots=True)
class PackedStoreSettings:
    """What may be tuned."""

    pack_max_bytes: int = 64 << 20
    """A pack is full at this length; at most 1/16 of the vault."""
    inline_max_bytes: int = 128 << 10
    """Longest chunk that is read, decompressed and verified on the event loop: about 0.2 ms."""
    inline_hash_max_bytes: int = 64 << 10
    """Longest chunk that is hashed on the event loop; a thread costs as much as hashing 512 KiB."""
    disk_threads: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(8))
    """Shared with everything else in the owner that reads and writes in threads."""
    sync_threads: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(1))
    """Shared with everything else in the owner that syncs."""


@dataclass(frozen=True, slots=True)
class _Unreadable:
    reason: str


class PackedChunkStore:
    """Keeps every promise of `ChunkStore`, and verifies what it reads.

    A chunk that was put is `_staged` until the flush that writes its row.  A record that cannot be read as its chunk is
    looked up again, since compaction may have moved it; if it has not moved, the chunk is quarantined.
    """

    def __init__(
        self,
        catalog: Catalog,
        packs: PackDirectory,
        chunk_format: ChunkFormat,
        *,
        next_pack: Callable[[], int],
        on_damage: Callable[[ChunkId, str], None],
        settings: PackedStoreSettings | None = None,
    ) -> None:
        """`next_pack` issues pack numbers and `on_damage` hears of each quarantined chunk; both in the trio thread."""
        self._catalog = catalog
        self._index = ChunkIndex(catalog)
        self._packs = packs
        self._format = chunk_format
        self._on_damage = on_damage
        self._settings = settings or PackedStoreSettings()
        self._appender = PackAppender(
            packs,
            next_pack=partial(trio.from_thread.run_sync, next_pack),
            pack_max_bytes=self._settings.pack_max_bytes,
        )
        self._staged: dict[ChunkId, Location] = {}

    async def get(self, chunk_id: ChunkId, /) -> bytes:
        """Return the chunk; raise `ChunkMissing`, `ChunkDamaged`, `CodecUnknown` or `PluginMisbehaved`."""
        return (await self.get_many([chunk_id]))[0]

    async def get_many(self, chunk_ids: Sequence[ChunkId], /) -> list[bytes]:
        """Return the chunks in the order asked for, read in one thread; raise as `get` for any of them."""
        wanted = self._locate_many(chunk_ids)
        found = await trio.to_thread.run_sync(
            self._read, wanted, limiter=self._settings.disk_threads, abandon_on_cancel=True
        )
        chunks: dict[ChunkId, bytes] = {}
        for chunk_id, outcome in found.items():
            if isinstance(outcome, _Unreadable):
                outcome = await self._look_again(chunk_id, wanted[chunk_id], outcome.reason)
            chunks[chunk_id] = outcome
        return [chunks[chunk_id] for chunk_id in chunk_ids]

    def get_nowait(self, chunk_id: ChunkId, /) -> bytes | None:
        """Return the chunk if it is small and in the page cache; None also for whatever `get` must judge."""
        if chunk_id in self._staged:
            return None
        location = self._locate(chunk_id)
        if location.raw_bytes > self._settings.inline_max_bytes or not self._format.may_run_inline(location.codec):
            return None
        try:
            with self._packs.open_reader(location.pack, wait=False) as fd:
                payload = read_payload_nowait(fd, location, chunk_id)
            return self._format.open(chunk_id, location, payload)
        except (BlockingIOError, PackDamaged, ChunkDamaged):
            return None

    def get_kept(self, chunk_id: ChunkId, /) -> bytes | None:
        """Return None: nothing is kept decoded here."""
        return None

    async def put(self, raw: Buffer, /) -> ChunkId:
        """Keep a chunk of at most 16 MiB; raise `PackWriteFailed` (`DiskFull`) if the disk does not take it."""
        assert len(raw) <= MAX_CHUNK_BYTES
        chunk_id = await self._hash(raw)
        while not (self.has(chunk_id) or self._resurrect(chunk_id)):
            location = await trio.to_thread.run_sync(self._append, chunk_id, raw, limiter=self._settings.disk_threads)
            # Another task may have put or lost the same meanwhile; from here to the end of the turn nothing awaits.
            if self._appender.loss(location) is None:
                self._staged.setdefault(chunk_id, location)
        return chunk_id

    def packs_being_written(self) -> set[int]:
        """Return the packs that this store appends to, or whose rows it has not written yet."""
        return self._appender.numbers() | {location.pack for location in self._staged.values()}

    def has(self, chunk_id: ChunkId, /) -> bool:
        """Say whether the chunk is there: neither dead nor quarantined."""
        if chunk_id in self._staged:
            return True
        row = self._index.find(chunk_id)
        return row is not None and row.state is ChunkState.LIVE

    async def delete(self, chunk_id: ChunkId, /) -> None:
        """Mark a chunk dead: unseen from now on; its record stays until its pack is compacted."""
        await trio.lowlevel.checkpoint()
        self._staged.pop(chunk_id, None)
        row = self._index.find(chunk_id)
        if row is not None and row.state is ChunkState.LIVE:
            self._set_state(chunk_id, ChunkState.DEAD)

    def scan(self) -> Iterator[ChunkId]:
        """Yield the ids of the chunks that are there, each once."""
        yield from list(self._staged)
        for chunk_id in self._index.live():
            if chunk_id not in self._staged:
                yield chunk_id

    async def flush(self) -> None:
        """Return when everything put before the call survives a power loss.

        Raises `PackWriteFailed` (`DiskFull`): nothing is lost, flush again.  Raises `PackSyncFailed`: some of what was
        put since the last flush may be gone, and is no longer there.
        """
        covered = dict(self._staged)
        if covered:
            try:
                await trio.to_thread.run_sync(self._appender.sync, limiter=self._settings.sync_threads)
            finally:
                self._give_up_lost(covered)
            await self._write_rows(covered)
            failpoints.reach("commit.after_batch")
        await self._catalog.flush()
        failpoints.reach("commit.after_wal_sync")

    async def aclose(self) -> None:
        """Flush, and close the packs also if that fails.  Nothing may be called afterwards."""
        try:
            await self.flush()
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._appender.close)

    def _give_up_lost(self, covered: Mapping[ChunkId, Location]) -> None:
        # Looks at everything covered, not at what is still staged: a flush at the same time may have met the failure
        # and cleared up, and this one must not tell its caller that all is well.
        failures = {key: failure for key, at in covered.items() if (failure := self._appender.loss(at)) is not None}
        for chunk_id in failures:
            if self._staged.get(chunk_id) is covered[chunk_id]:
                del self._staged[chunk_id]
        if failures:
            raise next(iter(failures.values()))

    async def _write_rows(self, covered: Mapping[ChunkId, Location]) -> None:
        ids = list(covered)
        for start in range(0, len(ids), ROWS_A_BATCH):
            # What was deleted, or written by another flush, while this one synced, is staged no more.
            placed = {
                key: covered[key] for key in ids[start : start + ROWS_A_BATCH] if self._staged.get(key) is covered[key]
            }
            batch = Batch()
            self._index.add(batch, placed)
            self._catalog.write(batch)
            for chunk_id in placed:
                del self._staged[chunk_id]
            await trio.lowlevel.checkpoint()

    def _locate_many(self, chunk_ids: Sequence[ChunkId]) -> dict[ChunkId, Location]:
        rows = self._index.find_many(chunk_ids)
        return {key: self._location(key, row) for key, row in zip(chunk_ids, rows, strict=True)}

    def _locate(self, chunk_id: ChunkId) -> Location:
        return self._location(chunk_id, self._index.find(chunk_id))

    def _location(self, chunk_id: ChunkId, row: ChunkRow | None) -> Location:
        if chunk_id in self._staged:
            return self._staged[chunk_id]
        if row is None or row.state is ChunkState.DEAD:
            raise ChunkMissing(chunk_id)
        if row.state is ChunkState.QUARANTINED:
            raise ChunkDamaged(chunk_id, "found bad before and put in quarantine")
        return row.location

    async def _look_again(self, chunk_id: ChunkId, location: Location, reason: str) -> bytes:
        if self._locate(chunk_id) != location:
            return await self.get(chunk_id)
        if self._staged.pop(chunk_id, None) is None:
            self._set_state(chunk_id, ChunkState.QUARANTINED)
        self._on_damage(chunk_id, reason)
        raise ChunkDamaged(chunk_id, reason)

    def _resurrect(self, chunk_id: ChunkId) -> bool:
        row = self._index.find(chunk_id)
        if row is None or row.state is not ChunkState.DEAD:
            return False
        self._set_state(chunk_id, ChunkState.LIVE)
        return True

    def _set_state(self, chunk_id: ChunkId, state: ChunkState) -> None:
        batch = Batch()
        self._index.set_state(batch, {chunk_id: state})
        self._catalog.write(batch)

    async def _hash(self, raw: Buffer) -> ChunkId:
        if len(raw) <= self._settings.inline_hash_max_bytes and self._format.may_run_inline():
            await trio.lowlevel.checkpoint()
            return self._format.chunk_id(raw)
        return await trio.to_thread.run_sync(self._format.chunk_id, raw, limiter=self._settings.disk_threads)

    # In threads: values in, values out, no state of the owner's.

    def _append(self, chunk_id: ChunkId, raw: Buffer) -> Location:
        codec_id, payload = encode_chunk(raw, self._format.codec)
        return self._appender.append(chunk_id, len(raw), codec_id, payload)

    def _read(self, wanted: Mapping[ChunkId, Location]) -> dict[ChunkId, bytes | _Unreadable]:
        found: dict[ChunkId, bytes | _Unreadable] = {}
        in_packs: list[tuple[ChunkId, Location]] = []
        for chunk_id, location in wanted.items():
            payload = self._appender.buffered(location)
            if payload is None:
                in_packs.append((chunk_id, location))
            else:
                found[chunk_id] = self._format.open(chunk_id, location, payload)
        for run in neighbouring(in_packs):
            found.update(self._read_run(run))
        return found

    def _read_run(self, run: list[tuple[ChunkId, Location]]) -> dict[ChunkId, bytes | _Unreadable]:
        try:
            with self._packs.open_reader(run[0][1].pack) as fd:
                records = read_run(fd, [location for _, location in run])
        except (PackDamaged, PackMissing) as exc:
            if len(run) > 1:  # one bad sector must not condemn its neighbours
                return {chunk_id: one for item in run for chunk_id, one in self._read_run([item]).items()}
            return {run[0][0]: _Unreadable(str(exc))}
        found: dict[ChunkId, bytes | _Unreadable] = {}
        for record, (chunk_id, location) in zip(records, run, strict=True):
            try:
                found[chunk_id] = self._format.open(chunk_id, location, payload_of(record, location, chunk_id))
            except PackDamaged as exc:
                found[chunk_id] = _Unreadable(str(exc))
            except ChunkDamaged as exc:
                if payload_is_whole(record):
                    # The disk kept what was written, so a plugin may be to blame: then nothing is put in quarantine.
                    self._format.check_plugins()
                found[chunk_id] = _Unreadable(exc.reason)
        return found
