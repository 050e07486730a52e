"""Work in the background that leaves the owner to whoever waits for it: slices, and pauses between them."""

from __future__ import annotations

import time

import trio

SLICE_S = 0.002
"""How long background work may hold the owner at a time."""


class Pace:
    """Call `breathe` often: once a slice is over it waits as long as the slice took, so half of the time is others'."""

    def __init__(self) -> None:
        self._began_s = time.perf_counter()

    async def breathe(self) -> None:
        """Let others run, if a slice is over; at once otherwise.  A checkpoint only when it waits."""
        worked_s = time.perf_counter() - self._began_s
        if worked_s >= SLICE_S:
            await trio.sleep(worked_s)
            self._began_s = time.perf_counter()

    def begin(self) -> None:
        """Count from now: what was before was not work in the owner, a thread was waited for, say."""
        self._began_s = time.perf_counter()
