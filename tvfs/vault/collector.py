"""Lets go of what nothing refers to: chunks become dead, manifests and trees go and let go of what they refer to.

In slices of at most 2 ms, each step one batch, so that it may stop or be killed after any of them
(docs/design/reclaim.md §3).  Whether an object may go is asked in the step that lets go of it: nothing refers to it,
nobody holds it, and it has been so for an epoch.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import islice

import trio

from tvfs import failpoints
from tvfs.catalog.catalog import Batch, Family, prefix_end
from tvfs.chunks.chunk_index import ChunkIndex
from tvfs.chunks.chunk_row import ChunkState
from tvfs.clock import Clock
from tvfs.content.tree_index import page_key
from tvfs.digest import ChunkId
from tvfs.errors import TaskVaultError
from tvfs.vault.counting import CountingCatalog
from tvfs.vault.leases import Leases
from tvfs.vault.recount import search, search_expected
from tvfs.vault.references import Kind, first_items, id_of, manifest_count, row_of_object
from tvfs.vault.slices import SLICE_S, Slices
from tvfs.vault.unwanted import EPOCH_S

_log = logging.getLogger(__name__)

ITEMS_A_BATCH = 256
"""References that one batch lets go of."""
CHUNKS_A_BATCH = 64
NEWBORN_A_STEP = 4096
"""Keys that are only looked at: a third of a millisecond."""
STEPS_A_SLICE = 64
INTERVAL_S = 1.0
"""How often the background task looks."""
BACKOFF_S = 30.0


@dataclass(slots=True)
class CollectorFigures:
    """What the collector has done since the vault was opened."""

    let_go: int = 0
    """Objects."""
    failures: int = 0


@dataclass(slots=True)
class _Pass:
    """One look at everything that is unwanted."""

    let_go: int = 0
    young: int = 0
    leased: int = 0
    steps: int = 0
    began_s: float = 0.0


class Collector:
    """The owner's only; one pass runs at a time."""

    def __init__(self, catalog: CountingCatalog, leases: Leases, clock: Clock, slices: Slices) -> None:
        self._catalog = catalog
        self._slices = slices
        self._index = ChunkIndex(catalog)
        self._leases = leases
        self._clock = clock
        self._passing = trio.Lock()
        self.figures = CollectorFigures()
        self.left_young = 0
        """Objects that the last pass left because they had been unwanted for less than an epoch."""
        self.left_leased = 0
        """Objects that the last pass left because somebody held them."""

    async def collect(self) -> int:
        """Let go of everything that can go now; return how many objects that were.  Raises what the catalog raises."""
        async with self._passing:
            if search_expected(self._catalog):
                await search(self._catalog)
            now = _Pass()
            await self._begin_slice(now)
            await self._let_go_newborn(now)
            await self._let_go_doomed(now)
            self.left_young, self.left_leased = now.young, now.leased
            return now.let_go

    async def run(self) -> None:
        """Collect in the background, until cancelled; what fails is logged and tried again."""
        wait_s = INTERVAL_S
        while True:
            await trio.sleep(wait_s)
            try:
                await self.collect()
            except (TaskVaultError, OSError) as exc:
                if not self.figures.failures:
                    _log.warning("unwanted content stays for now, and is looked at again: %s", exc)
                self.figures.failures += 1
                wait_s = min(2 * wait_s, BACKOFF_S)
            else:
                self.figures.failures = 0
                wait_s = INTERVAL_S

    async def _let_go_newborn(self, now: _Pass) -> None:
        newborn = list(self._catalog.unwanted.newborn)
        chunks: list[bytes] = []
        for start in range(0, len(newborn), NEWBORN_A_STEP):
            part = newborn[start : start + NEWBORN_A_STEP]
            chunks += [key for key in part if key[0] == Kind.CHUNK]
            for key in part:
                if key[0] != Kind.CHUNK:
                    await self._let_go_from(key, now)
            await self._end_step(now)
        for start in range(0, len(chunks), CHUNKS_A_BATCH):
            await self._let_go_chunks(chunks[start : start + CHUNKS_A_BATCH], now)

    async def _let_go_doomed(self, now: _Pass) -> None:
        start = b""
        while True:
            # A scan is not kept open while others run, so it is begun anew after each slice.
            part = [key for key, _ in islice(self._catalog.scan(Family.DOOMED, start), CHUNKS_A_BATCH)]
            chunks = [key for key in part if key[0] == Kind.CHUNK]
            if chunks:
                await self._let_go_chunks(chunks, now)
            for key in part[len(chunks) :]:
                await self._let_go_from(key, now)
            if len(part) < CHUNKS_A_BATCH:
                return
            start = part[-1] + b"\0"

    async def _let_go_from(self, key: bytes, now: _Pass) -> None:
        """Let go of an object, and of what nothing refers to any more because of it, as far down as that goes.

        The stack stays small: of a large tree one page goes at a time, with everything below it.
        """
        stack: list[tuple[bytes, int]] = [(key, 0)]
        while stack:
            key, page = stack.pop()
            if key[0] == Kind.CHUNK:
                chunks = [key]
                while stack and stack[-1][0][0] == Kind.CHUNK and len(chunks) < CHUNKS_A_BATCH:
                    chunks.append(stack.pop()[0])
                await self._let_go_chunks(chunks, now)
                continue
            if not self._may_go(key, now):
                await self._end_step(now)
                continue
            following, freed = self._let_go_tree(key, page, now) if key[0] == Kind.TREE else self._shorten(key, now)
            if following is not None:
                stack.append((key, following))
            stack += [(each, 0) for each in freed]
            failpoints.reach("collect.after_batch")
            await self._end_step(now)

    def _may_go(self, key: bytes, now: _Pass) -> bool:
        """Whether nothing wants the object now; where something refers to it, it is no longer noted as unwanted."""
        if self._leases.is_leased(id_of(key)):
            now.leased += 1
            return False
        if self._clock.monotonic_s() - self._catalog.unwanted.since_s(key) < EPOCH_S:
            now.young += 1
            return False
        if not self._catalog.count(key):
            return True
        doomed = self._catalog.get(Family.DOOMED, key)
        if doomed == b"":
            self._forget(key)
        # The rest of a manifest is let go also when its object came back.
        return bool(doomed)

    def _forget(self, key: bytes) -> None:
        batch = Batch()
        batch.delete(Family.DOOMED, key)
        self._catalog.write(batch)

    async def _let_go_chunks(self, keys: list[bytes], now: _Pass) -> None:
        going = [key for key in keys if self._may_go(key, now)]
        if going:
            batch = Batch()
            ids = [ChunkId(id_of(key)) for key in going]
            rows = dict(zip(ids, self._index.find_many(ids), strict=True))
            live = [chunk_id for chunk_id, row in rows.items() if row is not None and row.state is ChunkState.LIVE]
            self._index.set_state(batch, dict.fromkeys(live, ChunkState.DEAD))
            for chunk_id, row in rows.items():
                if row is not None and row.state is ChunkState.QUARANTINED:
                    # Dead it could be resurrected, and it is bad.
                    batch.delete(Family.CHUNK, chunk_id)
                    now.let_go += 1
            for key in going:
                batch.delete(Family.DOOMED, key)
            self._catalog.let_go(batch)
            for key in going:
                self._catalog.unwanted.forget(key)
            self._count(now, len(live))
            failpoints.reach("collect.after_batch")
        await self._end_step(now)

    def _let_go_tree(self, key: bytes, page: int, now: _Pass) -> tuple[int | None, list[bytes]]:
        """Remove the root, or else the next page; return which page is next, if any, and what is unwanted now.

        The root first: where it is, all of the tree is.
        """
        index = id_of(key)
        batch = Batch()
        following: int | None = None
        if self._catalog.get(Family.TREE, index) is not None:
            batch.delete(Family.TREE, index)
            batch.put(Family.DOOMED, key, b"")
            self._count(now, 1)
            following = 0
        else:
            pages = self._pages(index, page)
            if not pages and page:
                pages = self._pages(index, 0)  # some may have come back, and been given up, since they went
            if pages:
                batch.delete(Family.TREEPAGE, page_key(index, pages[0]))
                batch.put(Family.DOOMED, key, b"")
                following = pages[0] + 1
            else:
                batch.delete(Family.DOOMED, key)
        freed = self._catalog.let_go(batch)
        self._catalog.unwanted.forget(key)
        return following, freed

    def _pages(self, index: bytes, start: int) -> list[int]:
        """Return the number of the first page from `start` on, if there is one."""
        scan = self._catalog.scan(Family.TREEPAGE, page_key(index, start), prefix_end(index))
        return [int.from_bytes(key[len(index) :], "big") for key, _ in islice(scan, 1)]

    def _shorten(self, key: bytes, now: _Pass) -> tuple[int | None, list[bytes]]:
        """Let go of a blob or page, or of the next part of it; return 0 if more of it is left, and what is unwanted."""
        family, row_key = row_of_object(key)
        batch = Batch()
        rest = self._catalog.get(Family.DOOMED, key)
        row = self._catalog.get(family, row_key)
        following: int | None = None
        if rest:
            left = manifest_count(rest) - ITEMS_A_BATCH
            if left > 0:
                batch.put(Family.DOOMED, key, first_items(rest, left))
                following = 0
            elif row is not None and not self._catalog.count(key):
                batch.put(Family.DOOMED, key, b"")
            else:
                batch.delete(Family.DOOMED, key)
        else:
            if row is not None:
                batch.delete(family, row_key)
                self._count(now, 1)
            if row is not None and manifest_count(row) > ITEMS_A_BATCH:
                batch.put(Family.DOOMED, key, row)
                following = 0
            else:
                batch.delete(Family.DOOMED, key)
        freed = self._catalog.let_go(batch)
        self._catalog.unwanted.forget(key)
        return following, freed

    def _count(self, now: _Pass, objects: int) -> None:
        now.let_go += objects
        self.figures.let_go += objects

    async def _end_step(self, now: _Pass) -> None:
        now.steps += 1
        if now.steps < STEPS_A_SLICE and self._clock.monotonic_s() - now.began_s < SLICE_S:
            return
        await self._begin_slice(now)

    async def _begin_slice(self, now: _Pass) -> None:
        await self._slices.next()
        now.steps, now.began_s = 0, self._clock.monotonic_s()
