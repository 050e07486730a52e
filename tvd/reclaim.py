"""Keeps the vault within its size: ahead of need between two marks, and at once when somebody waits for room.

expire → evict → collect → compact (docs/design/reclaim.md §5).  Evicting is bounded: what was evicted and is not free
yet counts as free until an epoch has passed, then it is measured.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import structlog
import trio

from tvd.config import ReclaimConfig
from tvfs.clock import Clock
from tvfs.errors import TaskVaultError
from tvfs.vault.compaction import Compacted, Survey
from tvfs.vault.room import Room
from tvfs.vault.unwanted import EPOCH_S

POLL_S = 0.25
"""Between looks at what waits for the end of an epoch."""
MARGIN_S = 1.0
"""What is unwanted goes this long after its epoch at the latest; then what was evicted should be free."""
THIN_FRACTION = 0.02
"""A pack with at least so much dead is compacted before anything is evicted for room: 50 bytes copied for one."""
GAIN_FRACTION = 0.01
"""A pack with less dead than this is not copied even when nothing else is left to gain."""
EXHAUSTED_S = 0.5
"""After nothing was left to let go, those who ask again this soon are told so at once."""


class Evicts(Protocol):
    """Lets entries go; see `tvd.eviction.Evictor`."""

    evicted: int
    """How many were evicted since the start."""
    expired: int
    """How many were removed since the start because their time to live had ended."""

    async def expire(self) -> int:
        """Remove what is past its time to live; return how many entries."""
        ...

    async def evict(self, wanted_bytes: int, /) -> int:
        """Evict by rank until about so many bytes were let go; return how many, as estimated; 0: nothing is left."""
        ...


class Collects(Protocol):
    """Lets go of what nothing refers to; see `tvfs.vault.collector.Collector`."""

    left_young: int
    """Objects that the last pass left because they had been unwanted for less than an epoch."""
    left_leased: int
    """Objects that the last pass left because somebody held them."""

    async def collect(self) -> int:
        """Let go of everything that can go now; return how many objects."""
        ...


class Compacts(Protocol):
    """Turns dead records into free space; see `tvfs.vault.compaction.Compactor`."""

    async def survey(self) -> Survey:
        """Look at every pack."""
        ...

    async def compact(self, *, least_dead_fraction: float, merge_small: bool = False) -> Compacted:
        """Compact one group of packs; nothing if there is nothing to gain."""
        ...


@dataclass(slots=True)
class Reclaimed:
    """What one request to collect garbage did."""

    expired: int = 0
    evicted: int = 0
    objects: int = 0
    freed_bytes: int = 0
    moved_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Expected:
    """What was evicted and is not free yet."""

    until_s: float
    size_bytes: int


class Reclaimer:
    """The owner's trio thread only.  Several may ask for room at the same time; they take turns, step by step."""

    def __init__(  # noqa: PLR0913 - what reclaims, named
        self,
        *,
        room: Room,
        evictor: Evicts,
        collector: Collects,
        compactor: Compacts,
        settings: ReclaimConfig,
        clock: Clock,
        sweep: Callable[[], Awaitable[object]] = trio.lowlevel.checkpoint,
        drop_deleted: Callable[[], None] = lambda: None,
        drop_copies: Callable[[int], int] = lambda wanted_bytes: 0,
        waited_for: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """`sweep` removes what the mount does not show any more; until then it keeps its content.

        `drop_deleted` has rows that were removed give back their room in the catalog; `drop_copies` removes copies of
        content, about so many bytes, and returns how many.  `waited_for` is entered while somebody waits for room.
        """
        self._room = room
        self._reservations = room.reservations
        self._evictor = evictor
        self._collector = collector
        self._compactor = compactor
        self._settings = settings
        self._clock = clock
        self._sweep = sweep
        self._drop_deleted = drop_deleted
        self._drop_copies = drop_copies
        self._waited_for = waited_for
        self._expected: list[_Expected] = []
        self._turn = trio.Lock()
        self._exhausted_until_s = float("-inf")
        self._is_out_of_reach = False
        """Whether the low watermark was not reached the last time."""
        self._log = structlog.get_logger().bind(part="reclaim")

    async def run(self) -> None:
        """Evict ahead of need and compact what is dead, until cancelled."""
        while True:
            await self.look_after()
            self._room.wanted = trio.Event()
            with trio.move_on_after(self._settings.interval_s):
                await self._room.wanted.wait()

    async def look_after(self) -> None:
        """Do what is due: below the high mark evict until the low one, above the limit of dead space compact."""
        capacity_bytes = self._reservations.capacity_bytes
        if self._reservations.free_bytes < (1 - self._settings.high_watermark) * capacity_bytes:
            low_watermark = min(self._settings.low_watermark, self._settings.high_watermark)
            wanted_bytes = int((1 - low_watermark) * capacity_bytes)
            before_bytes, evicted = self._reservations.free_bytes, self._evictor.evicted
            enough = await self._free_up(wanted_bytes)
            evicted = self._evictor.evicted - evicted
            if evicted or enough or not self._is_out_of_reach:  # said once, and not every second
                self._log.info(
                    "made room",
                    free_bytes=self._reservations.free_bytes,
                    before_bytes=before_bytes,
                    evicted=evicted,
                    enough=enough,
                )
            self._is_out_of_reach = not enough
        await self._tidy()

    async def make_room(self, wanted_bytes: int, beside_bytes: int = 0) -> bool:
        """Return True once so many bytes are free in all; False if nothing more can be let go.

        So much is evicted that soon `beside_bytes` more are free: those who wait for them need not wait an epoch each.
        """
        if self._clock.monotonic_s() < self._exhausted_until_s:
            await trio.lowlevel.checkpoint()
            return self._reservations.free_bytes >= wanted_bytes
        with self._waited_for():
            if await self._free_up(wanted_bytes, beside_bytes):
                return True
        self._exhausted_until_s = self._clock.monotonic_s() + EXHAUSTED_S
        return False

    async def collect_garbage(self, evict_bytes: int = 0) -> Reclaimed:
        """Remove what has expired and what nothing wants, evict so many bytes beside, and compact; return when done.

        Takes an epoch at least if something became unwanted just now.
        """
        done = Reclaimed()
        async with self._turn:
            done.expired = await self._evictor.expire()
            evicted = self._evictor.evicted
            if evict_bytes > 0:
                self._expect(await self._evictor.evict(evict_bytes))
            done.evicted = self._evictor.evicted - evicted
        await self._collect_all(done)
        # What others let go of meanwhile is not waited for: where much is saved and removed, that would never end.
        for _ in (await self._compactor.survey()).packs:
            async with self._turn:
                compacted = await self._compact(GAIN_FRACTION, merge_small=True)
            done.freed_bytes += compacted.freed_bytes
            done.moved_bytes += compacted.moved_bytes
            if not compacted.removed_packs:
                break
        return done

    def is_urgent(self) -> bool:
        """Whether half of what eviction ahead of need keeps free is gone: whoever writes will soon wait for room."""
        kept_bytes = (1 - self._settings.high_watermark) * self._reservations.capacity_bytes
        return self._reservations.free_bytes < kept_bytes / 2

    def figures(self) -> dict[str, int | float]:
        """For the statistics, since the start."""
        return {"evicted_entries": self._evictor.evicted, "expired_entries": self._evictor.expired}

    async def _collect_all(self, done: Reclaimed) -> None:
        ends_s = self._clock.monotonic_s() + EPOCH_S + MARGIN_S
        while True:
            async with self._turn:
                await self._sweep()
                done.objects += await self._collector.collect()
            # A client that has just gone may hold what it saved for a moment more.
            left = self._collector.left_young + self._collector.left_leased
            if not left or self._clock.monotonic_s() >= ends_s:
                return
            await trio.sleep(POLL_S)

    async def _free_up(self, wanted_bytes: int, beside_bytes: int = 0) -> bool:
        """Take steps until so many bytes are free; False when a whole epoch brought nothing and nothing is left."""
        progress_s = self._clock.monotonic_s()
        while self._reservations.free_bytes < wanted_bytes:
            async with self._turn:
                if self._reservations.free_bytes >= wanted_bytes:
                    return True
                progress = await self._step(wanted_bytes + beside_bytes)
            if progress or self._reservations.free_bytes >= wanted_bytes:  # staged bytes that went, say
                progress_s = self._clock.monotonic_s()
                continue
            if not self._collector.left_young and not self._expected_bytes():
                return False
            if self._clock.monotonic_s() - progress_s > EPOCH_S + MARGIN_S:
                return False
            await trio.sleep(POLL_S)
        return True

    async def _step(self, wanted_bytes: int) -> bool:
        """Do the next thing that may help; False if there was nothing to do but wait."""
        if self._drop_copies(max(1, wanted_bytes - self._reservations.free_bytes)):
            await trio.lowlevel.checkpoint()
            return True
        await self._sweep()
        self._drop_deleted()
        collected = await self._collector.collect()
        if (await self._compact(self._settings.dead_fraction)).removed_packs:
            return True
        if not self._collector.left_young and not self._collector.left_leased:
            self._expected.clear()  # all of it is dead by now: what is missing is measured
        missing_bytes = wanted_bytes - self._reservations.free_bytes - self._expected_bytes()
        if missing_bytes <= 0:
            return collected > 0
        if await self._compact_for(missing_bytes):
            return True
        if await self._evictor.expire():
            self._expect(missing_bytes)  # nobody knows yet: it may be enough
            return True
        evicted_bytes = await self._evictor.evict(missing_bytes)
        if evicted_bytes:
            self._expect(evicted_bytes)
            return True
        return (await self._compact(GAIN_FRACTION)).removed_packs > 0 or collected > 0

    async def _compact_for(self, missing_bytes: int) -> bool:
        """Rather copy more than let go of what somebody may want, if so much is dead; tell whether it helped."""
        if (await self._compactor.survey()).dead_bytes < missing_bytes:
            return False
        return (await self._compact(THIN_FRACTION)).removed_packs > 0

    async def _compact(self, least_dead_fraction: float, *, merge_small: bool = False) -> Compacted:
        """Compact one group of packs; what goes wrong with the disk is logged, and is no progress."""
        try:
            return await self._compactor.compact(least_dead_fraction=least_dead_fraction, merge_small=merge_small)
        except (TaskVaultError, OSError) as exc:
            self._log.warning("dead space stays for now, and is looked at again", reason=str(exc))
            return Compacted()

    def _expect(self, size_bytes: int) -> None:
        if size_bytes:
            self._expected.append(_Expected(self._clock.monotonic_s() + EPOCH_S + MARGIN_S, size_bytes))

    def _expected_bytes(self) -> int:
        now_s = self._clock.monotonic_s()
        self._expected = [each for each in self._expected if each.until_s > now_s]
        return sum(each.size_bytes for each in self._expected)

    async def _tidy(self) -> None:
        """Compact until dead space is below its limit, and small packs are few."""
        while (await self._compactor.survey()).dead_fraction > self._settings.dead_fraction:
            async with self._turn:
                compacted = await self._compact(self._settings.dead_fraction)
            if not compacted.removed_packs:
                break
        async with self._turn:
            await self._compact(1.0, merge_small=True)
