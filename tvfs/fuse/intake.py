"""Take the next request with as few steps of the event loop as fairness allows.

pyfuse3 passes through trio's scheduler twice for each request: for the lock under which one task at a time reads
/dev/fuse, and to wait until that is readable.  Measured on one core that is a third of a round trip; on two, waking up
from the wait costs more than all the rest (open, read and close of a small file: 140 µs with, 70 without).
So the next request is looked for at once, and for a moment longer, before the task goes to sleep: see `turns`.

pyfuse3 finds trio's names in an attribute of its own, so that its asyncio mode can replace them; here it finds these.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import pyfuse3
import trio

from tvfs.fuse.turns import Turns


class Intake(Turns):
    """What pyfuse3 uses of `trio`, for one session."""

    ClosedResourceError = trio.ClosedResourceError
    open_nursery = staticmethod(trio.open_nursery)
    current_task = staticmethod(trio.lowlevel.current_task)
    current_trio_token = staticmethod(trio.lowlevel.current_trio_token)
    notify_closing = staticmethod(trio.lowlevel.notify_closing)

    def __init__(self) -> None:
        super().__init__()
        self.lowlevel = self

    def Lock(self) -> IntakeLock:
        """Return what keeps all tasks but one from reading."""
        return IntakeLock()


class IntakeLock:
    """A lock that passes through the scheduler only if somebody holds it.

    Whoever gives it back may have it again before those who wait have woken up.  Deliberately: a task whose request was
    answered at once takes the next, and the others wake up in case it was not.
    """

    def __init__(self) -> None:
        self._held = False
        self._waiting = trio.lowlevel.ParkingLot()

    async def __aenter__(self) -> None:
        while self._held:
            await self._waiting.park()
        self._held = True

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._held = False
        self._waiting.unpark()


@contextmanager
def quick_intake() -> Iterator[None]:
    """Let pyfuse3 take its requests this way; enter before `pyfuse3.main`."""
    before = pyfuse3.trio  # type: ignore[attr-defined]
    pyfuse3.trio = Intake()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        pyfuse3.trio = before  # type: ignore[attr-defined]
