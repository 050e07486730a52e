"""Waiting for room: in turn, only while some is being made, and without a trace when given up."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tvfs.vault.reservations import Reservations, VaultFull
from tvfs.vault.room import Room

CAPACITY = 1000
MOST = 980


class Disk:
    """A vault of 1000 bytes, and somebody who may empty it."""

    def __init__(self, used: int = 0) -> None:
        self.used = used
        self.evictable = 0
        self.step = 100
        self.asked: list[int] = []
        self.beside: list[int] = []
        self.reservations = Reservations(CAPACITY, lambda: self.used)
        self.room = Room(self.reservations)
        self.room.make_room = self.make_room

    async def make_room(self, wanted_bytes: int, beside_bytes: int) -> bool:
        self.beside.append(beside_bytes)
        self.asked.append(wanted_bytes)
        await trio.sleep(1)
        freed = min(self.step, self.evictable)
        self.evictable -= freed
        self.used -= freed
        return freed > 0


async def test_what_fits_is_reserved_at_once(autojump_clock: trio.testing.MockClock) -> None:
    disk = Disk()
    await disk.room.reserve("a", MOST)
    assert disk.reservations.reserved_bytes == MOST
    assert disk.asked == []


async def test_who_finds_no_room_waits_until_there_is_some(autojump_clock: trio.testing.MockClock) -> None:
    disk = Disk(used=900)
    disk.evictable = 500
    await disk.room.reserve("a", 300)
    assert disk.used == 600
    assert disk.asked == [300, 300, 300]
    assert disk.reservations.reserved_bytes == 300


async def test_when_nothing_is_left_who_waits_is_told_what_fills_the_vault(
    autojump_clock: trio.testing.MockClock,
) -> None:
    disk = Disk(used=900)
    disk.evictable = 100
    with pytest.raises(VaultFull, match=r"pinned.*work/.*tv gc"):
        await disk.room.reserve("a", 300)
    assert disk.reservations.reserved_bytes == 0
    assert disk.reservations.free_bytes == 180


async def test_what_never_fits_is_refused_without_evicting_anything(autojump_clock: trio.testing.MockClock) -> None:
    disk = Disk(used=900)
    disk.evictable = 900
    with pytest.raises(VaultFull):
        await disk.room.reserve("a", MOST + 1)
    assert disk.asked == []


async def test_nobody_is_overtaken(autojump_clock: trio.testing.MockClock) -> None:
    disk = Disk(used=900)
    disk.evictable = 900
    order: list[str] = []

    async def take(name: str, size_bytes: int) -> None:
        await disk.room.reserve(name, size_bytes)
        order.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, "large", 500)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(5):
            nursery.start_soon(take, f"small {number}", 10)
            await trio.testing.wait_all_tasks_blocked()
            assert disk.room.free_bytes() == 0, "what comes free belongs to who waits"
    assert order == ["large", *(f"small {number}" for number in range(5))]
    assert (disk.beside[0], disk.beside[-1]) == (0, 50), "who makes room knows who else waits"
    assert disk.reservations.reserved_bytes == 550


async def test_one_that_cannot_be_served_does_not_keep_the_others_waiting(
    autojump_clock: trio.testing.MockClock,
) -> None:
    disk = Disk(used=MOST)
    disk.evictable = 200
    outcome: dict[str, bool] = {}

    async def take(name: str, size_bytes: int) -> None:
        try:
            await disk.room.reserve(name, size_bytes)
            outcome[name] = True
        except VaultFull:
            outcome[name] = False

    async with trio.open_nursery() as nursery:
        for name, size_bytes in (("a", 600), ("b", 150), ("c", 50), ("d", 1)):
            nursery.start_soon(take, name, size_bytes)
            await trio.testing.wait_all_tasks_blocked()
    assert outcome == {"a": False, "b": True, "c": True, "d": False}


async def test_cancelled_it_leaves_nothing_reserved_and_the_next_has_its_turn(
    autojump_clock: trio.testing.MockClock,
) -> None:
    disk = Disk(used=MOST)
    disk.evictable = 500
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def give_up() -> None:
            with scope:
                await disk.room.reserve("gives up", 400)

        nursery.start_soon(give_up)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(disk.room.reserve, "next", 50)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
    assert disk.reservations.reserved_bytes == 50


async def test_who_is_patient_waits_for_what_others_give_back(autojump_clock: trio.testing.MockClock) -> None:
    disk = Disk()
    disk.reservations.reserve("other", MOST)

    async def give_back() -> None:
        await trio.sleep(3.5)
        disk.reservations.release("other")

    with pytest.raises(VaultFull):
        await disk.room.reserve("a", 10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(give_back)
        await disk.room.reserve("a", 10, patience_s=5)
    disk.reservations.reserve("other", 900)
    with pytest.raises(VaultFull):
        await disk.room.reserve("a", 100, patience_s=5)


async def test_room_that_was_kept_for_a_block_is_given_back_however_it_ends(
    autojump_clock: trio.testing.MockClock,
) -> None:
    disk = Disk()

    async def fail_with_room() -> None:
        async with disk.room.reserved(500):
            assert disk.reservations.reserved_bytes == 500
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_with_room()
    assert disk.reservations.reserved_bytes == 0


async def test_nothing_always_fits(autojump_clock: trio.testing.MockClock) -> None:
    disk = Disk(used=CAPACITY)
    await disk.room.reserve("a", 0)


def test_what_is_kept_is_for_those_who_make_room_and_a_part_of_it_for_names() -> None:
    used = 0
    reservations = Reservations(10_000, lambda: used, pack_bytes=1000)
    assert reservations.most_bytes == reservations.free_bytes == 8800
    reservations.reserve("a", 8800)
    assert reservations.admits_names(99)
    assert not reservations.admits_names(100)
    with pytest.raises(VaultFull):
        reservations.reserve("b", 1)
    reservations.reserve("sealer", 1000, from_kept=True)
    assert reservations.free_bytes == 0
    assert reservations.admits_names(), "what is lent takes nothing from the others"
    reservations.reserve("compactor", 100, from_kept=True)
    with pytest.raises(VaultFull):
        reservations.reserve("compactor", 1, from_kept=True)
    used = 600
    reservations.release("sealer", 600)
    assert reservations.free_bytes == 0, "used instead of reserved"
    reservations.release("sealer")
    assert reservations.free_bytes == -600, "now it is only used, until what it was copied from goes"
    assert not reservations.admits_names()
    reservations.reserve("sealer", 400, from_kept=True)
    used = 0
    reservations.release("a")
    reservations.release("compactor")
    reservations.release("sealer")
    assert reservations.free_bytes == reservations.most_bytes


def test_who_makes_room_takes_what_is_free_first() -> None:
    reservations = Reservations(10_000, lambda: 0, pack_bytes=1000)
    reservations.reserve("sealer", 1000, from_kept=True)
    assert reservations.free_bytes == 7800
    assert reservations.free_with_kept_bytes == 8900


def test_a_name_that_is_refused_asks_for_room() -> None:
    disk = Disk(used=MOST)
    assert disk.room.admits_names()
    assert not disk.room.wanted.is_set()
    disk.used = MOST + 10
    assert not disk.room.admits_names()
    assert disk.room.wanted.is_set()
