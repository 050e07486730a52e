from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tvd.config import Config, ControlConfig
from tvd.owner import BackgroundTask, Owner, OwnerParts, StopRequest
from tvd.readiness import ReadyPipe, ServiceManager
from tvd.supervisor import Health
from tvfs.clock import SystemClock
from tvfs.errors import TaskVaultError


class CannotMount(TaskVaultError):
    pass


class Twins:
    """A server, a mount and a background task that note what happens to them."""

    def __init__(self) -> None:
        self.happened: list[str] = []
        self.drained = trio.Event()
        self.request_done = trio.Event()
        self.request_done.set()
        self.unmounted = trio.Event()
        self.cannot_mount = False
        self.breaks = trio.Event()
        self.lets_go = True
        self.stop = StopRequest()

    async def serve(self) -> None:
        self.happened.append("control serves")
        await self.drained.wait()
        try:
            await self.request_done.wait()
            self.happened.append("requests answered")
        except trio.Cancelled:
            self.happened.append("request cut off")
            raise

    def drain(self) -> None:
        self.drained.set()

    async def background(self) -> None:
        self.happened.append("background runs")
        try:
            await trio.sleep_forever()
        finally:
            self.happened.append("background ends")

    def owner(self, **control: Any) -> Owner:
        config = replace(Config(Path("/vault")), control=ControlConfig(**control))
        return Owner(
            OwnerParts(
                config,
                SystemClock(),
                self,  # type: ignore[arg-type]
                TwinMount(self),
                [BackgroundTask("sealer", self.background)],
                Health(),
                self.stop,
                ServiceManager(config.service),
                TwinRequests(),  # type: ignore[arg-type]
            )
        )


class TwinRequests:
    """Nobody asks for anything."""

    async def name_slow_ones(self) -> None:
        await trio.sleep_forever()


class TwinMount:
    def __init__(self, twins: Twins) -> None:
        self.twins = twins

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        if self.twins.cannot_mount:
            raise CannotMount("The mount point is taken.")
        self.twins.happened.append("mounted")
        task_status.started()
        try:
            await self.twins.breaks.wait()
            raise RuntimeError("the session broke")
        except trio.Cancelled:
            if not self.twins.lets_go:
                with trio.CancelScope(shield=True):
                    await self.twins.unmounted.wait()
            self.twins.happened.append("unmounted")
            raise

    async def unmount(self, *, force: bool) -> None:
        raise AssertionError("this is the server's to ask for")

    async def detach(self) -> None:
        self.twins.happened.append("detached")
        self.twins.unmounted.set()


async def running(twins: Twins, nursery: trio.Nursery, **control: Any) -> None:
    nursery.start_soon(twins.owner(**control).run, ReadyPipe(None))
    await wait_all_tasks_blocked()


STARTED = ["background runs", "mounted", "control serves"]


async def test_it_stops_requests_first_then_the_mount_and_what_works_in_the_background_last() -> None:
    twins = Twins()
    async with trio.open_nursery() as nursery:
        await running(twins, nursery)
        assert sorted(twins.happened) == sorted(STARTED)
        twins.lets_go = False
        twins.stop.ask("the test is over")
        await wait_all_tasks_blocked()
        # The kernel flushes to us: until it has let go, everything that stores must work.
        assert twins.happened[3:] == ["requests answered"]
        twins.unmounted.set()
    assert twins.happened[3:] == ["requests answered", "unmounted", "background ends"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_stops_it_in_the_same_order(number: int) -> None:
    twins = Twins()
    async with trio.open_nursery() as nursery:
        await running(twins, nursery)
        os.kill(os.getpid(), number)
    assert twins.happened[3:] == ["requests answered", "unmounted", "background ends"]
    assert twins.stop.reason == f"signal {signal.Signals(number).name}"


async def test_it_waits_for_a_request_but_not_for_ever(autojump_clock: MockClock) -> None:
    twins = Twins()
    twins.request_done = trio.Event()
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(twins.owner(drain_timeout_s=5).run, ReadyPipe(None))
        twins.stop.ask("now")
    assert trio.current_time() - start == pytest.approx(5)
    assert twins.happened[3:] == ["request cut off", "unmounted", "background ends"]


async def test_a_mount_that_cannot_be_made_is_the_callers_error() -> None:
    twins = Twins()
    twins.cannot_mount = True
    reading, writing = os.pipe()
    with pytest.raises(BaseExceptionGroup) as group:
        await twins.owner().run(ReadyPipe(writing))
    os.close(writing)
    assert group.group_contains(CannotMount)
    assert "control serves" not in twins.happened
    with open(reading, "rb") as ready:
        assert ready.read() == b""


async def test_a_mount_that_breaks_ends_everything_in_order_and_is_told(expect_log: Callable[[str], None]) -> None:
    expect_log("the mount failed")
    twins = Twins()
    owner = twins.owner()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(owner.run, ReadyPipe(None))
        await wait_all_tasks_blocked()
        twins.breaks.set()
    assert owner.mount_failed
    assert twins.happened[3:] == ["requests answered", "background ends"]


async def test_a_second_signal_does_not_wait_for_the_kernel(expect_log: Callable[[str], None]) -> None:
    expect_log("forced to stop at once")
    twins = Twins()
    twins.lets_go = False
    async with trio.open_nursery() as nursery:
        await running(twins, nursery)
        os.kill(os.getpid(), signal.SIGTERM)
        await wait_all_tasks_blocked()
        assert "background ends" not in twins.happened
        os.kill(os.getpid(), signal.SIGTERM)
    assert twins.happened[3:5] == ["requests answered", "detached"]
    # By then there is no order left to keep.
    assert sorted(twins.happened[5:]) == ["background ends", "unmounted"]


@pytest.mark.parametrize("numbers", [(signal.SIGHUP, signal.SIGTERM), (signal.SIGTERM, signal.SIGHUP)])
async def test_a_hang_up_beside_another_signal_does_not_insist(numbers: tuple[int, int]) -> None:
    twins = Twins()
    twins.lets_go = False
    async with trio.open_nursery() as nursery:
        await running(twins, nursery)
        for number in numbers:
            os.kill(os.getpid(), number)
            await wait_all_tasks_blocked()
        assert twins.happened[3:] == ["requests answered"]
        twins.unmounted.set()
    assert twins.happened[3:] == ["requests answered", "unmounted", "background ends"]
