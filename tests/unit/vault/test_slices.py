"""Works in the background never follow each other without a pause."""

from __future__ import annotations

import trio
import trio.testing

from tvfs.vault.slices import Slices


async def test_slices_of_several_works_are_apart_and_each_work_has_its_turn(
    autojump_clock: trio.testing.MockClock,
) -> None:
    slices = Slices(pause_s=1.0)
    begun: list[tuple[float, str]] = []

    async def work(name: str) -> None:
        for _ in range(3):
            await slices.next()
            begun.append((trio.current_time(), name))

    began_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(work, name)
    times = [time_s - began_s for time_s, _ in begun]
    assert times == [float(number) for number in range(1, 10)]
    for first in range(0, 9, 3):
        assert {name for _, name in begun[first : first + 3]} == {"a", "b", "c"}


async def test_whoever_is_hurried_waits_for_the_others_and_for_no_pause(
    autojump_clock: trio.testing.MockClock,
) -> None:
    slices = Slices(pause_s=1.0)
    began_s = trio.current_time()
    await slices.next(hurried=True)
    assert trio.current_time() == began_s
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slices.next)
        await trio.testing.wait_all_tasks_blocked(0.5)
        await slices.next(hurried=True)
    assert trio.current_time() == began_s + 1.0
