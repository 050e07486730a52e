"""Wait for requests with as few steps of the event loop as fairness allows.

Waking up from the event loop's wait costs more than answering a request.  So the next request is looked for at once,
and for a moment longer, before the task goes to sleep; and other tasks have their turn however many requests there are.
"""

from __future__ import annotations

import os
import select
import time

import trio

LOOK_S = 30e-6
"""How long to look for another request before sleeping: about what a client needs to be woken and ask again."""
GIVEN_AWAY_S = 0.3e-3
"""A yield that took so long gave the processor to somebody who works, for a turn of the scheduler, not to a client."""
NO_LOOK_S = 0.1
"""How long not to look then: whoever sleeps gets the processor when there is work, whoever yields does not."""
TURN_S = 0.5e-3
"""How long requests may be taken one after the other until every other task has had its turn."""


class Turns:
    """Of one task that reads requests from one descriptor."""

    def __init__(self) -> None:
        self._poll: select.poll | None = None
        self._turn_began = 0.0
        self._look_from = 0.0

    async def wait_readable(self, descriptor: int) -> bool:
        """Return when there is a request to read: True if there was one at once.

        Looks again after each wait, because a request can be withdrawn while the task is on its way to it.
        """
        poll = self._poll
        if poll is None:
            poll = self._poll = select.poll()
            poll.register(descriptor, select.POLLIN)
        now = time.monotonic()
        if now - self._turn_began < TURN_S:
            if poll.poll(0):
                return True
            until = now + LOOK_S if now >= self._look_from else now
            while now < until:
                # The client may be waiting for this very processor.
                os.sched_yield()
                before, now = now, time.monotonic()
                if now - before > GIVEN_AWAY_S:
                    self._look_from = now + NO_LOOK_S
                if poll.poll(0):
                    return False
        while True:
            await trio.lowlevel.wait_readable(descriptor)
            self._turn_began = time.monotonic()
            if poll.poll(0):
                return False
