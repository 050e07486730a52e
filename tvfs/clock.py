"""Where times come from: passed in, so that tests decide what time it is."""

from __future__ import annotations

import time
from typing import Protocol

_CLOCK_REALTIME_COARSE = 5
"""Linux: clock_gettime(2). The standard library has no name for it."""


class Clock(Protocol):
    """Wall-clock time for what is stored, monotonic time for what is measured."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970, from the coarse clock that the kernel stamps files with.

        The fine clock runs up to a tick ahead of it; mixing the two makes `make` see time run backwards.
        """
        ...

    def monotonic_s(self) -> float:
        """Seconds since an arbitrary start; never runs backwards."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970."""
        return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)

    def monotonic_s(self) -> float:
        """Seconds since boot."""
        return time.monotonic()


class ManualClock:
    """A clock that moves only when told to: for tests."""

    def __init__(self, now_ns: int = 1_700_000_000_000_000_000) -> None:
        self._now_ns = now_ns

    def now_ns(self) -> int:
        """Nanoseconds since 1970."""
        return self._now_ns

    def monotonic_s(self) -> float:
        """The same instant in seconds."""
        return self._now_ns / 1e9

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self._now_ns += int(seconds * 1e9)
