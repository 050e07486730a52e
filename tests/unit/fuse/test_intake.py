"""Requests are taken quickly, one reader at a time, and without starving other tasks."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pyfuse3
import pytest
import trio

from tvfs.fuse.intake import Intake, IntakeLock, quick_intake


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


async def test_one_at_a_time_holds_the_lock() -> None:
    lock, inside, longest = IntakeLock(), 0, 0

    async def enter(times: int) -> None:
        nonlocal inside, longest
        for _ in range(times):
            async with lock:
                inside += 1
                longest = max(longest, inside)
                await trio.lowlevel.checkpoint()
                inside -= 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(enter, 20)
    assert longest == 1


async def test_whoever_waits_gets_in_when_the_holder_leaves_or_is_cancelled() -> None:
    lock, entered = IntakeLock(), trio.Event()

    async def hold(*, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope() as scope:
            async with lock:
                task_status.started(scope)
                await trio.sleep_forever()

    async def wait() -> None:
        async with lock:
            entered.set()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            holder: trio.CancelScope = await nursery.start(hold)
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            assert not entered.is_set()
            holder.cancel()
            await entered.wait()


async def test_a_request_that_waits_already_is_taken_at_once(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"x")
    await Intake().wait_readable(pipe[0])


async def test_a_request_that_comes_later_is_waited_for(pipe: tuple[int, int]) -> None:
    intake, taken = Intake(), trio.Event()

    async def take() -> None:
        await intake.wait_readable(pipe[0])
        taken.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await trio.testing.wait_all_tasks_blocked()
        assert not taken.is_set()
        os.write(pipe[1], b"x")


async def test_other_tasks_have_their_turn_however_many_requests_there_are(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"x")
    intake, turns = Intake(), 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            while turns < 20:
                await intake.wait_readable(pipe[0])
            nursery.cancel_scope.cancel()


def test_pyfuse3_finds_its_own_names_again_afterwards() -> None:
    before = pyfuse3.trio  # type: ignore[attr-defined]
    with quick_intake():
        assert isinstance(pyfuse3.trio, Intake)  # type: ignore[attr-defined]
    assert pyfuse3.trio is before  # type: ignore[attr-defined]
