from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from tvd.config import SupervisionConfig
from tvd.supervisor import Health, supervise

SETTINGS = SupervisionConfig(first_backoff_s=1, longest_backoff_s=8, unhealthy_after=3, stable_s=60)


class TrioClock:
    def now_ns(self) -> int:
        return 0

    def monotonic_s(self) -> float:
        return trio.current_time()


class Task:
    """Fails a number of times, then runs for ever."""

    def __init__(self, failures: int, *, runs_s: float = 0) -> None:
        self.failures = failures
        self.runs_s = runs_s
        self.started_at: list[float] = []

    async def __call__(self) -> None:
        self.started_at.append(trio.current_time())
        await trio.sleep(self.runs_s)
        if len(self.started_at) <= self.failures:
            raise RuntimeError("broken")
        await trio.sleep_forever()


async def supervised(task: Task, health: Health, for_s: float) -> None:
    with trio.move_on_after(for_s):
        await supervise("sealer", task, settings=SETTINGS, health=health, clock=TrioClock())


async def test_a_task_that_fails_is_restarted_with_growing_pauses(
    autojump_clock: MockClock, expect_log: Callable[[str], None]
) -> None:
    expect_log("background task failed")
    task = Task(6)
    start = trio.current_time()
    await supervised(task, Health(), 1000)
    assert [round(at - start) for at in task.started_at] == [0, 1, 3, 7, 15, 23, 31]


async def test_health_says_so_after_several_failures_and_recovers_with_the_task(
    autojump_clock: MockClock, expect_log: Callable[[str], None]
) -> None:
    expect_log("background task failed")
    health = Health()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervised, Task(4), health, 1000)
        await trio.sleep(2.5)
        assert health.healthy
        await trio.sleep(1)
        assert not health.healthy
        assert "sealer has failed 3 times in a row" in health.trouble
        await trio.sleep(70)  # the fifth start came at 15 s, and is stable after 60
        assert not health.healthy
        await trio.sleep(10)
        assert health.healthy
        nursery.cancel_scope.cancel()


async def test_failures_far_apart_never_make_it_unhealthy(
    autojump_clock: MockClock, expect_log: Callable[[str], None]
) -> None:
    expect_log("background task failed")
    health = Health()
    task = Task(10, runs_s=100)
    await supervised(task, health, 900)
    assert len(task.started_at) == 9
    assert health.healthy


async def test_cancelling_ends_the_task_and_is_no_failure(autojump_clock: MockClock) -> None:
    health = Health()
    await supervised(Task(0), health, 10)
    assert health.healthy


async def test_a_bug_that_is_no_exception_of_ours_is_not_swallowed(autojump_clock: MockClock) -> None:
    async def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(BaseExceptionGroup) as group:
        await supervise("x", interrupted, settings=SETTINGS, health=Health(), clock=TrioClock())
    assert group.group_contains(KeyboardInterrupt)
