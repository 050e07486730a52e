"""Gets rid of dead records: what lives in packs is copied together, and the old packs are removed.

Live records are copied as they are, verified → fdatasync → rows moved, each only if it still points to the old place →
flush → dead rows and the rows of the old packs removed → flush → the files.  A crash at any point leaves packs without
rows, which the next start removes, or packs without live records, which the next compaction does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

import trio

from tvfs import failpoints
from tvfs.catalog.catalog import Batch, Catalog, Family
from tvfs.chunks.chunk_index import ChunkIndex
from tvfs.chunks.chunk_row import ChunkState, decode_chunk_row, with_state
from tvfs.chunks.encoding import CodecUnknown
from tvfs.clock import Clock
from tvfs.digest import ChunkId
from tvfs.errors import FormatTooNew
from tvfs.packs.pack_directory import PackDirectory, PackMissing
from tvfs.packs.pack_row import decode_pack_row, pack_key, pack_number
from tvfs.packs.pack_writer import PackWriter
from tvfs.packs.record import PACK_HEADER_BYTES
from tvfs.plugin_api.guard import PluginMisbehaved
from tvfs.vault.leases import Leases
from tvfs.vault.pace import Pace
from tvfs.vault.pack_copy import (
    Copied,
    PackUnsettled,
    Records,
    copy_records,
    length_of,
    list_records,
    pieces,
    still_there,
)
from tvfs.vault.pack_grants import PackGrants

SLICE = 128
"""Rows looked up and changed in one turn of the owner: 1.5 ms."""
SOURCES_MAX = 64
"""Packs that are compacted together at most; what is in memory meanwhile is about 0.3 KiB a record."""
SMALL_FRACTION = 16
"""A pack of at most one sixteenth of the longest is small: it costs a file, a descriptor and half a block of disk."""
SMALL_PACKS_MAX = 64
"""More small packs than this are copied together, dead or not."""
ATTEMPTS = 3
REST_S = 30.0
"""A pack that was compacted in vain so often is left alone for so long, or until its live bytes change."""
_HOLDER = "compactor"
_ROUNDING_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class PackFigures:
    """One pack, in bytes, without its header."""

    number: int
    committed_bytes: int
    live_bytes: int

    @property
    def dead_bytes(self) -> int:
        """What removing it would give back, once the live records are elsewhere."""
        return max(0, self.committed_bytes - self.live_bytes)

    @property
    def dead_fraction(self) -> float:
        """Of what is committed."""
        return self.dead_bytes / self.committed_bytes if self.committed_bytes else 1.0


@dataclass(frozen=True, slots=True)
class Survey:
    """All packs that nobody writes."""

    packs: list[PackFigures]

    @property
    def dead_bytes(self) -> int:
        """In all of them."""
        return sum(pack.dead_bytes for pack in self.packs)

    @property
    def dead_fraction(self) -> float:
        """Of what is committed in all of them; 0 if there is nothing."""
        committed_bytes = sum(pack.committed_bytes for pack in self.packs)
        return self.dead_bytes / committed_bytes if committed_bytes else 0.0


@dataclass(slots=True)
class Compacted:
    """What compaction did."""

    removed_packs: int = 0
    freed_bytes: int = 0
    """By how much packs take less of the disk; negative while old ones are still there."""
    moved_bytes: int = 0
    busy: bool = False
    """Nothing was done because even the room that is kept for compaction is taken at the moment."""

    def add(self, other: Compacted) -> None:
        """Sum up."""
        self.removed_packs += other.removed_packs
        self.freed_bytes += other.freed_bytes
        self.moved_bytes += other.moved_bytes


@dataclass(frozen=True, slots=True)
class _InVain:
    """A pack that could not be removed, or that has dead records which somebody holds."""

    live_bytes: int
    attempts: int
    until_s: float


@dataclass(slots=True)
class _Work:
    """One group of packs on its way."""

    records: dict[PackFigures, Records] = field(default_factory=dict)
    copied: Copied = field(default_factory=Copied)
    has_held: bool = False
    """Whether dead records are copied because somebody holds them."""
    target_bytes: int = 0
    """What the new pack takes of the disk."""


class Compactor:
    """Does one group of packs at a time; the owner's trio thread only, what is heavy in threads."""

    def __init__(  # noqa: PLR0913  # the parts of a vault, named
        self,
        *,
        catalog: Catalog,
        packs: PackDirectory,
        grants: PackGrants,
        leases: Leases,
        pack_max_bytes: int,
        being_written: Callable[[], Collection[int]],
        check_chunk: Callable[[ChunkId], Awaitable[bool]],
        clock: Clock,
    ) -> None:
        """`being_written` names packs to leave alone beside those granted; `check_chunk` quarantines what is bad."""
        self._catalog = catalog
        self._index = ChunkIndex(catalog)
        self._packs = packs
        self._grants = grants
        self._leases = leases
        self._pack_max_bytes = pack_max_bytes
        self._being_written = being_written
        self._check_chunk = check_chunk
        self._clock = clock
        self._in_vain: dict[int, _InVain] = {}
        self._turn = trio.Lock()
        self._threads = trio.CapacityLimiter(1)
        self.total = Compacted()
        """Since the vault was opened."""

    async def survey(self) -> Survey:
        """Read the row of every pack, 2 µs each."""
        found: list[PackFigures] = []
        start = b""
        pace = Pace()
        while True:
            # A scan is not kept open while others run, so it is begun anew after each slice.
            part = list(islice(self._catalog.scan(Family.PACK, start), SLICE))
            busy = {*self._grants.being_written(), *self._being_written()}
            for key, value in part:
                number, row = pack_number(key), decode_pack_row(value)
                if number not in busy and not self._rests(number, row.live_bytes):
                    found.append(PackFigures(number, max(0, row.committed_bytes - PACK_HEADER_BYTES), row.live_bytes))
            if len(part) < SLICE:
                return Survey(found)
            start = part[-1][0] + b"\0"
            await pace.breathe()

    async def compact(self, *, least_dead_fraction: float, merge_small: bool = False) -> Compacted:
        """Compact the packs with the smallest live share of those with at least `least_dead_fraction` dead.

        At most as many as make one new pack.  With `merge_small`, also many small packs into one.  Returns what was
        done, nothing if there is nothing to gain.  Raises `PackWriteFailed` and what the catalog raises.
        """
        async with self._turn:
            packs = (await self.survey()).packs
            chosen = [pack for pack in packs if pack.dead_bytes and pack.dead_fraction >= least_dead_fraction]
            if not chosen and merge_small:
                small = [pack for pack in packs if pack.committed_bytes <= self._pack_max_bytes // SMALL_FRACTION]
                chosen = small if len(small) > SMALL_PACKS_MAX else []
            chosen.sort(key=lambda pack: (-pack.dead_fraction, pack.committed_bytes))
            group = self._group(chosen)
            done = await self._compact(group) if group else Compacted()
            if done.busy and len(group) > 1:
                done = await self._compact(group[:1])
        self.total.add(done)
        return done

    def _group(self, chosen: Sequence[PackFigures]) -> list[PackFigures]:
        group: list[PackFigures] = []
        live_bytes = PACK_HEADER_BYTES
        for pack in chosen[:SOURCES_MAX]:
            live_bytes += pack.live_bytes
            if group and live_bytes > self._pack_max_bytes:
                break
            group.append(pack)
        return group

    async def _compact(self, sources: list[PackFigures]) -> Compacted:
        work = _Work()
        wanted = Records()
        for source in sources:
            records = await self._list(source)
            if records is not None:
                work.records[source] = records
                await self._find_wanted(records, wanted, work)
        if len(wanted) and not await self._move(work, wanted):
            return Compacted(busy=True)
        removed = [source for source, records in work.records.items() if await self._let_go(source, records)]
        freed_bytes = -work.target_bytes
        if removed:
            await self._catalog.flush()
            failpoints.reach("compact.before_unlink")
        for source in removed:
            freed_bytes += self._packs.allocated_bytes(source.number)
            await trio.to_thread.run_sync(self._packs.remove, source.number, limiter=self._threads)
        return Compacted(len(removed), freed_bytes, work.copied.moved_bytes)

    async def _list(self, source: PackFigures) -> Records | None:
        """Return the records of a pack; None if it must be left alone."""
        committed_bytes = source.committed_bytes + PACK_HEADER_BYTES
        records = None
        try:
            records = await trio.to_thread.run_sync(
                list_records, self._packs, source.number, committed_bytes, limiter=self._threads
            )
        except (PackUnsettled, FormatTooNew):
            self._note_in_vain(source.number)
            return None
        except PackMissing:
            pass
        return await self._records_in_index(source.number) if records is None else records

    async def _records_in_index(self, number: int) -> Records:
        """Find the records of a pack that cannot be walked through: looks through all chunk rows, 2 µs each."""
        found: list[tuple[bytes, ChunkId]] = []
        start = b""
        pace = Pace()
        while True:
            part = list(islice(self._catalog.scan(Family.CHUNK, start), 2 * SLICE))
            for chunk_id, value in part:
                if decode_chunk_row(value).location.pack == number:
                    found.append((with_state(value, ChunkState.LIVE), ChunkId(chunk_id)))
            if len(part) < 2 * SLICE:
                return Records([chunk_id for _, chunk_id in found], [row for row, _ in found])
            start = part[-1][0] + b"\0"
            await pace.breathe()

    async def _find_wanted(self, records: Records, wanted: Records, work: _Work) -> None:
        live, dead = await trio.to_thread.run_sync(still_there, self._catalog, records, limiter=self._threads)
        wanted.add_all(live)
        pace = Pace()
        for part in dead.slices(SLICE):
            held = self._held(part)
            wanted.add_all(held)
            work.has_held = work.has_held or len(held) > 0
            await pace.breathe()

    def _held(self, dead: Records) -> Records:
        """Return those that somebody was told are there: they may still be made live."""
        held = Records()
        for chunk_id, row in zip(dead.ids, dead.rows, strict=True):
            if self._leases.is_leased(chunk_id):
                held.add(chunk_id, row)
        return held

    async def _move(self, work: _Work, wanted: Records) -> bool:
        """Let the chunks lie in a new pack; False if there is no room for one."""
        wanted_bytes = await trio.to_thread.run_sync(length_of, wanted, limiter=self._threads)
        grant = await self._grants.grant_kept(_HOLDER, wanted_bytes + _ROUNDING_BYTES)
        if grant is None:
            return False
        target = PackWriter(grant.descriptor, grant.number, self._packs.vault_uuid)
        try:
            await self._copy(work, wanted, target)
            if work.copied.moves:
                failpoints.reach("compact.after_copy")
                await trio.to_thread.run_sync(target.sync, limiter=self._threads)
                failpoints.reach("compact.after_sync")
                await self._move_rows(work.copied, grant.number)
                failpoints.reach("compact.after_rows")
                await self._catalog.flush()
                failpoints.reach("compact.after_wal")
        finally:
            target.close()
            self._grants.end_pack(grant.number)
            work.target_bytes = self._packs.allocated_bytes(grant.number)
        if work.has_held:
            # Dead records that somebody holds: they would only be moved from pack to pack.
            self._note_in_vain(grant.number, ATTEMPTS)
        for chunk_id in work.copied.bad:
            with suppress(CodecUnknown, PluginMisbehaved):  # nobody can tell, here and now: it stays where it is
                await self._check_chunk(chunk_id)
        return True

    async def _copy(self, work: _Work, wanted: Records, target: PackWriter) -> None:
        for piece in await trio.to_thread.run_sync(pieces, wanted, limiter=self._threads):
            try:
                copied = await trio.to_thread.run_sync(copy_records, self._packs, piece, target, limiter=self._threads)
            except PackMissing:  # somebody removed a file: its rows stay, the next reader finds out
                continue
            work.copied.add(copied)

    async def _move_rows(self, copied: Copied, target: int) -> None:
        pace = Pace()
        ids = list(copied.moves)
        for start in range(0, len(ids), SLICE):
            batch = Batch()
            self._index.move(batch, {chunk_id: copied.moves[chunk_id] for chunk_id in ids[start : start + SLICE]})
            self._catalog.write(batch)
            await pace.breathe()
        self._grants.note_growth(target)

    async def _let_go(self, source: PackFigures, records: Records) -> bool:
        """Remove the dead rows of a pack, and its own if nothing is wanted in it any more; tell whether that was so."""
        number = source.number
        wanted = False
        pace = Pace()
        for part in records.slices(SLICE):
            live, dead = still_there(self._catalog, part)
            held = set(self._held(dead).ids)
            wanted = wanted or bool(held) or len(live) > 0
            batch = Batch()
            for chunk_id in dead.ids:
                if chunk_id not in held:
                    batch.delete(Family.CHUNK, chunk_id)
            self._catalog.write(batch)
            await pace.breathe()
        # Nothing awaits from here on.  What was not wanted above cannot have become so: its row is gone.
        if wanted or self._index.pack(number).live_bytes:
            # Resurrected, or bad once and good the next time: another compaction takes it.  Or miscounted: none can.
            self._note_in_vain(number)
            return False
        batch = Batch()
        batch.delete(Family.PACK, pack_key(number))
        self._catalog.write(batch)
        self._in_vain.pop(number, None)
        return True

    def _rests(self, number: int, live_bytes: int) -> bool:
        noted = self._in_vain.get(number)
        if noted is None or noted.attempts < ATTEMPTS or noted.live_bytes != live_bytes:
            return False
        return self._clock.monotonic_s() < noted.until_s

    def _note_in_vain(self, number: int, attempts: int = 1) -> None:
        live_bytes = self._index.pack(number).live_bytes
        noted = self._in_vain.get(number)
        if noted is not None and noted.live_bytes == live_bytes:
            attempts += noted.attempts
        self._in_vain[number] = _InVain(live_bytes, attempts, self._clock.monotonic_s() + REST_S)
