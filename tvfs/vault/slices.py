"""Works in the background take turns, so that whoever waits for the owner waits for one of them at most."""

from __future__ import annotations

import trio

PAUSE_S = 0.001
"""Before each slice, for everybody else; the system waits in milliseconds."""


class Slices:
    """One for a vault.  A slice ends at the next `await`, and takes half a millisecond where that can be helped."""

    def __init__(self, pause_s: float = PAUSE_S) -> None:
        self._pause_s = pause_s
        # Fair: who asked first is first, and who has had its slice waits for all others.
        self._taking = trio.Lock()

    async def next(self, *, hurried: bool = False) -> None:
        """Return when the next slice is the caller's; `hurried`: without a pause, because somebody waits for it."""
        async with self._taking:
            await trio.sleep(0 if hurried else self._pause_s)
