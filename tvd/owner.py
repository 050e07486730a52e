"""The owner's life: start everything, serve, and stop in the order that loses nothing.

```
signals, watchdog
└ background      sealer, sweeper          cancelled last
  └ mount         cancelled second: the kernel flushes its dirty pages to us and unmounts
    └ control     drained first
```

See docs/design/concurrency.md.  A second signal cancels all of it at once, except SIGHUP.  SIGUSR2 stops too, and
leaves the mount to the next daemon if anybody keeps it.
"""

from __future__ import annotations

import gc
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import structlog
import trio

from tvd import succession
from tvd.config import Config
from tvd.control.server import ControlServer
from tvd.readiness import ReadyPipe, ServiceManager
from tvd.stack_dump import RequestNames
from tvd.succession import HandOverImpossible
from tvd.supervisor import Health, supervise
from tvfs.clock import Clock
from tvfs.errors import TaskVaultError
from tvfs.fuse.hand_over import HandOver


class Mount(Protocol):
    """The filesystem as the kernel shows it."""

    async def serve(self, *, task_status: trio.TaskStatus[Any]) -> None:
        """Mount, report started when it answers, and serve until it is unmounted.

        Cancelling it makes the kernel flush and let go while it still serves.  Raises a `TaskVaultError` if it cannot
        be mounted.
        """
        ...

    async def unmount(self, *, force: bool) -> None:
        """Make the kernel flush and let go, while `serve` goes on; raise a `TaskVaultError` if it is in use."""
        ...

    async def detach(self) -> None:
        """Let go at once, flushed or not."""
        ...


@dataclass(frozen=True, slots=True)
class BackgroundTask:
    """Something that runs all the time and is restarted when it fails."""

    name: str
    run: Callable[[], Awaitable[None]]


class StopRequest:
    """Asks the owner to stop; anybody may, as often as they like."""

    def __init__(self) -> None:
        self._event = trio.Event()
        self.reason = ""

    def ask(self, reason: str) -> None:
        """Begin an ordered stop."""
        self.reason = self.reason or reason
        self._event.set()

    async def wait(self) -> None:
        """Return when somebody has asked."""
        await self._event.wait()


@dataclass(frozen=True, slots=True)
class OwnerParts:
    """What an owner is made of; `tvd.assemble` makes them."""

    config: Config
    clock: Clock
    server: ControlServer[Any]
    mount: Mount | None
    background: Sequence[BackgroundTask]
    health: Health
    stop: StopRequest
    service: ServiceManager
    requests: RequestNames
    hand_over: HandOver | None = None
    """How the mount outlives the owner; None if it cannot."""


class Owner:
    """Runs the parts once."""

    def __init__(self, parts: OwnerParts, *, log_max_bytes: int = 1 << 62) -> None:
        self._parts = parts
        self.log_max_bytes = log_max_bytes
        """What the logs may take of the vault."""
        self._log = structlog.get_logger().bind(part="owner")
        self.mount_failed = False
        """Whether the mount broke while it was served."""

    @property
    def handed_over(self) -> bool:
        """Whether the mount was left to the next daemon."""
        hand_over = self._parts.hand_over
        return hand_over is not None and hand_over.done

    def requests(self) -> Sequence[str]:
        """Return a line for each request that is under way, the oldest first."""
        return self._parts.requests()

    async def run(self, ready: ReadyPipe) -> None:
        """Serve until asked to stop, then stop in order; raise a `TaskVaultError` if the mount cannot be made."""
        async with trio.open_nursery() as everything:
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2) as signals:
                everything.start_soon(self._watch_signals, signals, everything.cancel_scope)
                everything.start_soon(self._parts.service.feed_watchdog)
                everything.start_soon(self._parts.requests.name_slow_ones)
                await self._serve_with_background(ready)
                everything.cancel_scope.cancel()

    async def _serve_with_background(self, ready: ReadyPipe) -> None:
        parts = self._parts
        async with trio.open_nursery() as background:
            for task in parts.background:
                background.start_soon(self._supervise, task)
            async with trio.open_nursery() as mounted:
                mountpoint = None
                if parts.mount is not None:
                    await mounted.start(self._serve_mount, parts.mount)
                    mountpoint = parts.config.mountpoint
                await self._serve_control(ready, mountpoint)
                mounted.cancel_scope.cancel()
            background.cancel_scope.cancel()

    async def _serve_control(self, ready: ReadyPipe, mountpoint: Path | None) -> None:
        parts = self._parts
        async with trio.open_nursery() as control:
            control.start_soon(parts.server.serve)
            self._log.info("ready", mount=mountpoint and str(mountpoint))
            # What exists now lives as long as the process: collections need not look at it again.
            gc.collect()
            gc.freeze()
            ready.succeed(mountpoint)
            parts.service.ready(f"mounted at {mountpoint}" if mountpoint else "serving without a mount")
            await parts.stop.wait()
            self._log.info("stopping", reason=parts.stop.reason)
            parts.service.stopping()
            parts.server.drain()
            control.cancel_scope.deadline = trio.current_time() + parts.config.control.drain_timeout_s

    async def _serve_mount(self, mount: Mount, *, task_status: trio.TaskStatus[Any]) -> None:
        started = _Started(task_status)
        try:
            await mount.serve(task_status=started)
        # Before it was mounted this is for whoever started us; afterwards the vault must still be closed in order.
        except Exception as exc:
            if not started.reported:
                raise
            self._log.error("the mount failed", exc_info=exc)
            self.mount_failed = True
        self._parts.stop.ask("the filesystem was unmounted")

    async def _supervise(self, task: BackgroundTask) -> None:
        parts = self._parts
        await supervise(task.name, task.run, settings=parts.config.supervision, health=parts.health, clock=parts.clock)

    async def _watch_signals(self, signals: AsyncIterator[int], everything: trio.CancelScope) -> None:
        hung_up = False
        async for number in signals:
            name = signal.Signals(number).name
            if number == signal.SIGHUP:
                # Comes with another signal when a session ends, and from our caretaker: nobody insists by it.
                hung_up = hung_up or not self._parts.stop.reason
            elif hung_up:
                hung_up = False
            elif self._parts.stop.reason:
                self._log.warning("forced to stop at once", signal=name)
                if self._parts.mount is not None:
                    # Or the end of the mount would wait for a kernel that waits for us.
                    with suppress(TaskVaultError):
                        await self._parts.mount.detach()
                everything.cancel()
            if number == signal.SIGUSR2 and not self._parts.stop.reason:
                with suppress(HandOverImpossible):
                    succession.ask(self._parts.hand_over, self._parts.service)
            self._parts.stop.ask(f"signal {name}")


class _Started:
    """Passes `started` on, and remembers that it came."""

    def __init__(self, task_status: trio.TaskStatus[Any]) -> None:
        self._task_status = task_status
        self.reported = False

    def started(self, value: object = None) -> None:
        self.reported = True
        self._task_status.started(value)
