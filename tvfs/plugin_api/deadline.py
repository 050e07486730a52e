"""Calls foreign code with a deadline: in a thread of its own, which is left behind if it does not come back."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

DEADLINE_S = 10.0
"""How long one call may take, beside the time that its bytes need."""
LEAST_BYTES_PER_S = 256 << 10
"""Slower than any codec worth having; 16 MiB may so take a minute more."""

_IDLE_THREADS = 8
"""Threads of one caller that wait for the next call; others end."""


class CallOverdue(Exception):
    """A call did not come back in time, or an earlier one still has not."""


class DeadlineCaller:
    """Calls one plugin's functions.  Threads: called from several at once; costs about 30 us a call.

    While a call hangs, further ones are refused at once: threads are not piled up, and nobody waits twice.  When it
    does come back, the plugin is called again.  The threads are daemons, so that a hung one does not keep the process.
    """

    def __init__(self, deadline_s: float = DEADLINE_S) -> None:
        self.deadline_s = deadline_s
        self._overdue: set[_Call] = set()
        self._idle: list[_Worker] = []

    def __call__(self, function: Callable[..., Any], *arguments: Any, content_bytes: int = 0) -> Any:
        """Return what the function returns, raise what it raises, or raise `CallOverdue`."""
        if self._overdue:
            raise CallOverdue("it still has not come back from an earlier call")
        call = _Call(function, arguments)
        wait_s = self.deadline_s + content_bytes / LEAST_BYTES_PER_S
        self._worker().calls.put(call)
        if not call.ended.acquire(timeout=wait_s):
            self._overdue.add(call)
            # Between the two lines above it may have ended: then nobody else would take it out again.
            if not call.ended.acquire(blocking=False):
                raise CallOverdue(f"it did not come back within {wait_s:.1f} s")
            self._overdue.discard(call)
        if call.error is not None:
            raise call.error
        return call.result

    def _worker(self) -> _Worker:
        try:
            return self._idle.pop()
        except IndexError:
            worker = _Worker(self._idle, self._overdue)
            worker.start()
            return worker


class _Call:
    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._function = function
        self._arguments = arguments
        self.ended = threading.Lock()
        self.ended.acquire()
        self.result: Any = None
        self.error: BaseException | None = None

    def carry_out(self) -> None:
        process = os.getpid()
        try:
            self.result = self._function(*self._arguments)
        except BaseException as exc:  # noqa: BLE001 - handed over to whoever called, SystemExit and all
            self.error = exc
        if os.getpid() != process:
            # The plugin forked and let the child come back: nobody waits for it, and it has our lock on the vault.
            os._exit(1)


class _Worker(threading.Thread):
    def __init__(self, idle: list[_Worker], overdue: set[_Call]) -> None:
        super().__init__(name="plugin-call", daemon=True)
        self.calls: SimpleQueue[_Call] = SimpleQueue()
        self._idle = idle
        self._overdue = overdue

    def run(self) -> None:
        stays = True
        while stays:
            call = self.calls.get()
            call.carry_out()
            stays = len(self._idle) < _IDLE_THREADS
            if stays:
                self._idle.append(self)
            call.ended.release()
            # Afterwards: whoever gave up on the call adds it and then looks whether it has ended.
            self._overdue.discard(call)
            del call  # its arguments may be MiBs
