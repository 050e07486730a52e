"""Works in the background do their slices together, and pause together."""

from __future__ import annotations

import trio
import trio.testing

from tvfs.vault.slices import IDLE_AFTER_S, Slices


class Requests:
    """Somebody asks for as long as `goes_on`."""

    def __init__(self) -> None:
        self.goes_on = True
        self._served = 0

    def __call__(self) -> int:
        self._served += self.goes_on
        return self._served


async def begun_by(slices: Slices, names: str, each: int) -> list[tuple[float, str]]:
    """Return when which work began its slices, counted from now."""
    begun: list[tuple[float, str]] = []
    zero_s = trio.current_time()

    async def work(name: str) -> None:
        for _ in range(each):
            await slices.next()
            begun.append((round(trio.current_time() - zero_s, 6), name))

    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(work, name)
    return begun


async def test_every_work_has_one_slice_in_each_round(autojump_clock: trio.testing.MockClock) -> None:
    slices = Slices(pause_s=1.0)
    slices.requests = Requests()
    begun = await begun_by(slices, "abc", 3)
    assert [time_s for time_s, _ in begun] == [0.0] * 3 + [1.0] * 3 + [2.0] * 3
    for first in range(0, 9, 3):
        assert {name for _, name in begun[first : first + 3]} == {"a", "b", "c"}


async def test_pauses_are_short_once_nobody_asks_any_more(autojump_clock: trio.testing.MockClock) -> None:
    slices = Slices(pause_s=1.0, idle_pause_s=0.25)
    slices.requests = requests = Requests()
    await begun_by(slices, "a", 1)
    requests.goes_on = False
    assert IDLE_AFTER_S < 1.0
    begun = await begun_by(slices, "a", 3)
    assert [time_s for time_s, _ in begun] == [1.0, 1.25, 1.5]
    requests.goes_on = True
    begun = await begun_by(slices, "a", 3)
    assert [time_s for time_s, _ in begun] == [0.25, 1.25, 2.25]


async def test_there_is_no_pause_while_somebody_waits_for_the_work(autojump_clock: trio.testing.MockClock) -> None:
    slices = Slices(pause_s=1.0)
    slices.requests = Requests()
    await begun_by(slices, "a", 1)
    with slices.waited_for():
        begun = await begun_by(slices, "ab", 3)
        assert {time_s for time_s, _ in begun} == {0.0}
    await begun_by(slices, "a", 1)
    begun = await begun_by(slices, "a", 2)
    assert [time_s for time_s, _ in begun] == [1.0, 2.0]


async def test_there_is_no_pause_while_it_is_urgent(autojump_clock: trio.testing.MockClock) -> None:
    slices = Slices(pause_s=1.0)
    slices.requests = Requests()
    slices.is_urgent = lambda: trio.current_time() < ends_s
    ends_s = trio.current_time() + 0.5
    begun = await begun_by(slices, "a", 3)
    assert [time_s for time_s, _ in begun] == [0.0] * 3
    await trio.sleep(0.5)
    begun = await begun_by(slices, "a", 3)
    assert [time_s for time_s, _ in begun] == [0.0, 1.0, 2.0]


async def test_a_slice_goes_on_until_it_has_taken_its_time(autojump_clock: trio.testing.MockClock) -> None:
    slices = Slices(pause_s=1.0)
    slices.requests = Requests()
    await slices.next()
    zero_s = trio.current_time()
    assert await slices.go_on(float("inf")) == float("inf")
    assert trio.current_time() == zero_s
    assert await slices.go_on(float("-inf")) != float("-inf")
    assert trio.current_time() == zero_s + 1.0
