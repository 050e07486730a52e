"""Works in the background go on in rounds, so that whoever asks the owner something seldom waits for them.

All that have work do a slice of it in the same round, and then pause for much longer, as long as anybody asks.  Of
requests that follow each other without a pause, one in some hundred meets a round then; with as much work in shorter
slices and shorter pauses it would be every tenth.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

SLICE_S = 0.0005
"""How long a work may hold the owner in one round, so that all of them together take about two milliseconds."""
PAUSE_S = 0.02
"""Between rounds while somebody asks."""
IDLE_PAUSE_S = 0.001
"""Between rounds while nobody does; the system waits in milliseconds."""
IDLE_AFTER_S = 0.1
"""How long nobody must have asked."""


class Slices:
    """One for a vault."""

    def __init__(self, *, pause_s: float = PAUSE_S, idle_pause_s: float = IDLE_PAUSE_S) -> None:
        self._pause_s = pause_s
        self._idle_pause_s = idle_pause_s
        self.requests: Callable[[], int] = lambda: 0
        """How many have been served since the start; whoever serves them sets this."""
        self.is_urgent: Callable[[], bool] = lambda: False
        """Whether somebody will soon have to wait for what is done in the background."""
        self._requests = 0
        self._asked_s = float("-inf")
        self._round_s = float("-inf")
        self._waiting = 0

    async def next(self) -> None:
        """Return when the caller may do the next slice, until its next `await`."""
        await trio.sleep(max(0.0, self._round_s - trio.current_time()))
        now_s = trio.current_time()
        if now_s >= self._round_s:  # the first of this round says when the next one is
            pause_s = self._pause(now_s)
            self._round_s = now_s + pause_s if pause_s else float("-inf")

    async def go_on(self, began_s: float) -> float:
        """Return when a slice began: the one of `began_s`, `time.perf_counter`, or a new one if that is over."""
        if time.perf_counter() - began_s < SLICE_S:
            return began_s
        await self.next()
        return time.perf_counter()

    @contextmanager
    def waited_for(self) -> Iterator[None]:
        """Without pauses in this block, because somebody waits for what is done in the background."""
        self._waiting += 1
        self._round_s = float("-inf")
        try:
            yield
        finally:
            self._waiting -= 1

    def _pause(self, now_s: float) -> float:
        requests = self.requests()
        if requests != self._requests:
            self._requests, self._asked_s = requests, now_s
        if self._waiting or self.is_urgent():
            return 0.0
        return self._pause_s if now_s - self._asked_s < IDLE_AFTER_S else self._idle_pause_s
