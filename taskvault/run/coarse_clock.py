"""The clock that the kernel stamps files with."""

from __future__ import annotations

import time

_REALTIME_COARSE = 5
"""Linux's CLOCK_REALTIME_COARSE.  The fine clock runs up to a tick ahead of it: mixed, time seems to run backwards."""


def coarse_now_ns() -> int:
    """Return nanoseconds since 1970."""
    return time.clock_gettime_ns(_REALTIME_COARSE)
