from __future__ import annotations

import threading

import pytest
import trio
import trio.testing

from tvfs.catalog.group_commit import FlushFailed, GroupCommit


class FakeDisk:
    """A blocking sync that waits for permission and remembers how often it ran."""

    def __init__(self) -> None:
        self.may_finish = threading.Semaphore(0)
        self.started = threading.Semaphore(0)
        self.written = 0
        self.durable = 0
        self.syncs = 0

    def sync(self) -> None:
        self.syncs += 1
        covered = self.written
        self.started.release()
        self.may_finish.acquire()
        self.durable = covered

    async def wait_until_started(self) -> None:
        await trio.to_thread.run_sync(self.started.acquire)


async def test_one_caller_is_one_sync() -> None:
    disk = FakeDisk()
    disk.may_finish.release()
    await GroupCommit(disk.sync).wait()
    assert disk.syncs == 1


async def test_everyone_who_waits_before_a_sync_begins_shares_it() -> None:
    disk = FakeDisk()
    barrier = GroupCommit(disk.sync)
    disk.written = 1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(barrier.wait)
        await disk.wait_until_started()
        disk.written = 2
        for _ in range(10):
            nursery.start_soon(barrier.wait)
        await trio.testing.wait_all_tasks_blocked()
        disk.may_finish.release()
        disk.may_finish.release()
    assert (disk.syncs, disk.durable) == (2, 2)


async def test_a_caller_that_comes_during_a_sync_is_not_served_by_it() -> None:
    disk = FakeDisk()
    barrier = GroupCommit(disk.sync)
    late_is_done = trio.Event()

    async def late() -> None:
        await barrier.wait()
        assert disk.durable == 2
        late_is_done.set()

    async with trio.open_nursery() as nursery:
        disk.written = 1
        nursery.start_soon(barrier.wait)
        await disk.wait_until_started()
        disk.written = 2
        nursery.start_soon(late)
        await trio.testing.wait_all_tasks_blocked()
        disk.may_finish.release()
        await disk.wait_until_started()
        assert disk.durable == 1
        assert not late_is_done.is_set()
        disk.may_finish.release()


async def test_a_cancelled_waiter_leaves_the_others_served() -> None:
    disk = FakeDisk()
    barrier = GroupCommit(disk.sync)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(barrier.wait)
        await disk.wait_until_started()
        disk.written = 5
        with trio.CancelScope() as scope:
            scope.cancel()
            await barrier.wait()
        nursery.start_soon(barrier.wait)
        await trio.testing.wait_all_tasks_blocked()
        disk.may_finish.release()
        disk.may_finish.release()
    assert disk.durable == 5
    assert not barrier.busy


async def test_after_a_failed_sync_nothing_is_ever_acknowledged() -> None:
    failures = [OSError("no such luck")]

    def sync() -> None:
        if failures:
            raise failures.pop()

    barrier = GroupCommit(sync)
    with pytest.raises(FlushFailed, match="no such luck"):
        await barrier.wait()
    with pytest.raises(FlushFailed, match="restart the daemon"):
        await barrier.wait()


async def test_a_retryable_error_is_passed_on_and_the_next_sync_counts() -> None:
    class TryAgain(Exception):
        pass

    failures = [TryAgain()]

    def sync() -> None:
        if failures:
            raise failures.pop()

    barrier = GroupCommit(sync, retryable=TryAgain)
    with pytest.raises(TryAgain):
        await barrier.wait()
    await barrier.wait()
