"""Making room: ahead of need and on demand, with no more evicted than is needed."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from tvd.config import ReclaimConfig
from tvd.reclaim import Reclaimer
from tvfs.clock import Clock
from tvfs.vault.compaction import Compacted, PackFigures, Survey
from tvfs.vault.reservations import Reservations, VaultFull
from tvfs.vault.room import Room
from tvfs.vault.unwanted import EPOCH_S

CAPACITY = 100_000
ENTRY = 1000


class TrioClock(Clock):
    """The nursery's own time, so that waiting costs nothing."""

    def now_ns(self) -> int:
        return int(trio.current_time() * 1e9)

    def monotonic_s(self) -> float:
        return trio.current_time()


@dataclass
class SmallVault:
    """Entries of 1000 bytes each, of which a part is shared; evictor, collector and compactor in one."""

    entries: int
    pinned_bytes: int = 0
    shared: int = 0
    """Entries whose bytes are kept by others: evicting them frees nothing."""
    expiring: int = 0
    unwanted: list[tuple[float, int]] = field(default_factory=list)
    dead: int = 0
    dead_again: int = 0
    """What others have let go of by the end of each compaction."""
    evicted: int = 0
    expired: int = 0
    left_young: int = 0
    left_leased: int = 0
    compactions: int = 0

    def __post_init__(self) -> None:
        self.clock = TrioClock()
        self.room = Room(Reservations(CAPACITY, lambda: self.used, pack_bytes=1000))
        self.reclaimer = Reclaimer(
            room=self.room,
            evictor=self,
            collector=self,
            compactor=self,
            settings=ReclaimConfig(),
            clock=self.clock,
        )
        self.room.make_room = self.reclaimer.make_room

    @property
    def used(self) -> int:
        own = (self.entries - self.shared + self.expiring) * ENTRY
        return own + sum(size for _, size in self.unwanted) + self.dead + self.pinned_bytes

    @property
    def free(self) -> int:
        return self.room.reservations.free_bytes

    async def expire(self) -> int:
        await trio.lowlevel.checkpoint()
        expired, self.expiring = self.expiring, 0
        if expired:
            self.unwanted.append((self.clock.monotonic_s(), expired * ENTRY))
        self.expired += expired
        return expired

    async def evict(self, wanted_bytes: int) -> int:
        await trio.lowlevel.checkpoint()
        count = min(self.entries, -(-wanted_bytes // ENTRY))
        freeing = max(0, count - self.shared)
        self.shared -= count - freeing
        self.entries -= count
        self.evicted += count
        if freeing:
            self.unwanted.append((self.clock.monotonic_s(), freeing * ENTRY))
        return count * ENTRY

    async def collect(self) -> int:
        await trio.lowlevel.checkpoint()
        old = [one for one in self.unwanted if one[0] + EPOCH_S <= self.clock.monotonic_s()]
        self.unwanted = self.unwanted[len(old) :]
        self.left_young = len(self.unwanted)
        self.dead += sum(size for _, size in old)
        return len(old)

    async def survey(self) -> Survey:
        await trio.lowlevel.checkpoint()
        live = max(0, self.entries) * ENTRY
        return Survey([PackFigures(1, live + self.dead, live)])

    async def compact(self, *, least_dead_fraction: float, merge_small: bool = False) -> Compacted:
        await trio.sleep(0.1)
        if not self.dead or (await self.survey()).dead_fraction < least_dead_fraction:
            return Compacted()
        freed, self.dead = self.dead, self.dead_again
        self.compactions += 1
        return Compacted(1, freed, 10)


async def test_between_the_marks_nothing_is_evicted(autojump_clock: trio.testing.MockClock) -> None:
    vault = SmallVault(entries=86)
    assert vault.free == 97_000 - 86_000
    await vault.reclaimer.look_after()
    assert vault.evicted == 0


async def test_above_the_high_mark_it_evicts_down_to_the_low_one_and_no_further(
    autojump_clock: trio.testing.MockClock,
) -> None:
    vault = SmallVault(entries=90)
    assert vault.free == 7_000
    await vault.reclaimer.look_after()
    assert vault.evicted == 8
    assert vault.free == 15_000
    assert vault.compactions == 1


async def test_it_is_urgent_when_half_of_what_is_kept_free_is_gone(autojump_clock: trio.testing.MockClock) -> None:
    vault = SmallVault(entries=90)
    assert vault.free == 7_000
    assert not vault.reclaimer.is_urgent()
    vault.dead += 2_100  # the marks are at 90 % of 100,000 bytes
    assert vault.reclaimer.is_urgent()


async def test_room_on_demand_is_what_was_asked_for(autojump_clock: trio.testing.MockClock) -> None:
    vault = SmallVault(entries=90)
    await vault.room.reserve("a", 9_500)
    assert vault.evicted == 3
    assert vault.room.reservations.reserved_bytes == 9_500


async def test_several_who_ask_at_once_do_not_evict_for_each_other_twice(
    autojump_clock: trio.testing.MockClock,
) -> None:
    vault = SmallVault(entries=96)
    async with trio.open_nursery() as nursery:
        for name in "abcd":
            nursery.start_soon(vault.room.reserve, name, 5_000)
        nursery.start_soon(vault.reclaimer.make_room, 5_000)
    assert vault.room.reservations.reserved_bytes == 20_000
    # 1,000 were free, and who only looked leaves 5,000 beside.
    assert 19 <= vault.evicted <= 24


async def test_all_who_wait_wait_one_epoch_together(autojump_clock: trio.testing.MockClock) -> None:
    vault = SmallVault(entries=97)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for name in "abcdefgh":
            nursery.start_soon(vault.room.reserve, name, 5_000)
    assert trio.current_time() - began < 2 * EPOCH_S + 3
    assert vault.room.reservations.reserved_bytes == 40_000
    assert 40 <= vault.evicted <= 48


async def test_what_is_dead_already_is_compacted_before_anything_is_evicted(
    autojump_clock: trio.testing.MockClock,
) -> None:
    vault = SmallVault(entries=60)
    vault.dead = 30_000
    await vault.room.reserve("a", 20_000)
    assert vault.evicted == 0
    assert vault.compactions == 1


async def test_what_has_expired_goes_before_what_is_evicted(autojump_clock: trio.testing.MockClock) -> None:
    vault = SmallVault(entries=80)
    vault.expiring = 15
    await vault.room.reserve("a", 10_000)
    assert (vault.evicted, vault.expired) == (0, 15)


async def test_evicting_what_frees_nothing_goes_on_after_it_was_measured(
    autojump_clock: trio.testing.MockClock,
) -> None:
    vault = SmallVault(entries=140, shared=45)
    assert vault.free == 2_000
    await vault.room.reserve("a", 10_000)
    assert vault.evicted >= 45 + 8
    assert vault.evicted <= 45 + 16


async def test_when_nothing_is_left_it_says_so_and_soon(autojump_clock: trio.testing.MockClock) -> None:
    vault = SmallVault(entries=2, pinned_bytes=94_000)
    began = trio.current_time()
    with pytest.raises(VaultFull, match="pinned"):
        await vault.room.reserve("a", 10_000)
    assert vault.evicted == 2
    assert trio.current_time() - began < 2 * EPOCH_S + 5
    began = trio.current_time()
    with pytest.raises(VaultFull):
        await vault.room.reserve("a", 10_000)
    assert trio.current_time() - began < 1


async def test_dead_space_is_compacted_in_the_background(autojump_clock: trio.testing.MockClock) -> None:
    vault = SmallVault(entries=50)
    vault.dead = 5_000
    await vault.reclaimer.look_after()
    assert vault.compactions == 0
    vault.dead = 6_000
    await vault.reclaimer.look_after()
    assert (vault.compactions, vault.dead) == (1, 0)


async def test_the_background_task_wakes_when_a_name_was_refused(autojump_clock: trio.testing.MockClock) -> None:
    vault = SmallVault(entries=80)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(vault.reclaimer.run)
        await trio.sleep(0.5)
        vault.entries = 97
        assert vault.room.admits_names()
        vault.entries = 99
        assert not vault.room.admits_names()
        await trio.sleep(EPOCH_S + 1)
        assert vault.room.admits_names()
        nursery.cancel_scope.cancel()
    assert vault.evicted >= 14


async def test_collecting_garbage_waits_for_the_epoch_and_frees_everything_that_is_dead(
    autojump_clock: trio.testing.MockClock,
) -> None:
    vault = SmallVault(entries=50)
    vault.expiring = 3
    vault.dead = 700
    done = await vault.reclaimer.collect_garbage(evict_bytes=2_500)
    assert (done.expired, done.evicted, done.objects) == (3, 3, 2)
    assert done.freed_bytes == 700 + 6 * ENTRY
    assert vault.used == 47 * ENTRY
    assert EPOCH_S <= trio.current_time() <= EPOCH_S + 3


async def test_collecting_garbage_ends_though_others_let_go_of_more_all_the_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    vault = SmallVault(entries=50)
    vault.dead = vault.dead_again = 5_000
    with trio.fail_after(60):
        done = await vault.reclaimer.collect_garbage()
    assert done.freed_bytes == 5_000


async def test_a_low_watermark_out_of_reach_is_told_once(autojump_clock: trio.testing.MockClock) -> None:
    vault = SmallVault(entries=2, pinned_bytes=94_000)
    with capture_logs() as told:
        for _ in range(5):
            await vault.reclaimer.look_after()
        assert [(one["evicted"], one["enough"]) for one in told] == [(2, False)]
        vault.entries = 1
        await vault.reclaimer.look_after()
        assert [one["evicted"] for one in told] == [2, 1]
        vault.pinned_bytes = 50_000
        vault.entries = 42
        await vault.reclaimer.look_after()
        assert told[-1]["enough"]
        vault.pinned_bytes = 97_000
        await vault.reclaimer.look_after()
        vault.entries = 0
        await vault.reclaimer.look_after()
        assert not told[-1]["enough"]
    assert len(told) == 4


async def test_a_cancelled_request_leaves_the_others_served(autojump_clock: trio.testing.MockClock) -> None:
    vault = SmallVault(entries=96)
    with trio.move_on_after(1):
        await vault.room.reserve("gives up", 30_000)
    await vault.room.reserve("a", 5_000)
    assert vault.room.reservations.reserved_bytes == 5_000
    assert vault.evicted <= 30
