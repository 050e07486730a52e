"""Keep the intake of requests from stopping the process.

pyfuse3 waits until /dev/fuse is readable, then reads it with a blocking `read` that holds the interpreter.  If the
client was killed in between, its request has been withdrawn and the read sleeps until the next request, whenever that
comes: event loop, threads, control socket, everything stops.  A signal ends the read with EINTR, after which pyfuse3
waits again; an interval timer sends one ten times a second.  A non-blocking descriptor would end `pyfuse3.main`
with EAGAIN instead.
"""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

STALL_MAX_S = 0.1


class StallGuard:
    """While entered, no withdrawn request stops the process for longer than `interval_s`.

    Takes SIGALRM and the process's real-time interval timer; main thread only.  Children do not inherit the timer.
    """

    def __init__(self, interval_s: float = STALL_MAX_S) -> None:
        self._interval_s = interval_s
        self._previous: Any = None

    def __enter__(self) -> None:
        self._previous = signal.signal(signal.SIGALRM, _do_nothing)
        signal.setitimer(signal.ITIMER_REAL, self._interval_s, self._interval_s)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, self._previous)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    # Not SIG_IGN: an ignored signal interrupts nothing.
    pass
