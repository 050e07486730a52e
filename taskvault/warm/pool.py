"""The first of the warm processes: listens, keeps the workers, and ends when nobody has asked for a while."""

from __future__ import annotations

import gc
import mmap
import os
import signal
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

IDLE_S = 600.0
"""Without a request."""

LOOK_S = 5.0
"""Between two looks whether there was one."""

MOST_DEATHS = 20
"""Of workers, in all; more, and something is wrong with them."""

_BACKLOG = 128
_STAMP = struct.Struct("d")

Serve = Callable[[socket.socket, int, Callable[[], None]], int]
"""What a worker does, given the socket, a descriptor that is readable when it shall end, and what to call at each
request.  Its exit status: 0 if it was to end, anything else if all shall end."""


class Pool:
    """Workers that share one socket."""

    def __init__(self, place: Path, serve: Serve, has_owner: Callable[[], bool], *, idle_s: float = IDLE_S) -> None:
        """Serve at the path `place`, as long as the vault `has_owner`: whoever would be asked for all that is told."""
        self._place = place
        self._has_owner = has_owner
        self._serve = serve
        self._idle_s = idle_s
        self._workers: set[int] = set()
        self._deaths = 0
        self._used = mmap.mmap(-1, mmap.PAGESIZE)

    def run(self, workers: int) -> None:
        """Listen and keep workers; return when nobody asks any more, or a worker wants all of it to end."""
        with suppress(FileNotFoundError):
            self._place.unlink()
        stays, ends = os.pipe()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(self._place))
            listener.listen(_BACKLOG)
            listener.setblocking(False)
            ours = self._place.stat().st_ino
            self._stamp()
            gc.collect()
            gc.freeze()
            try:
                while self._is_wanted(ours):
                    while len(self._workers) < workers:
                        self._start(listener, stays, ends)
                    signal.sigtimedwait({signal.SIGCHLD}, LOOK_S)
                    if not self._reap():
                        return
            finally:
                if self._is_at(ours):
                    self._place.unlink()
                os.close(ends)
                os.close(stays)
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for worker in self._workers:
            os.waitpid(worker, 0)

    def _is_wanted(self, ours: int) -> bool:
        """Whether anybody has asked of late, and can: the socket may have been removed, or be another one's."""
        is_idle = time.monotonic() - self._last_used_s() > self._idle_s
        return not is_idle and self._is_at(ours) and self._has_owner()

    def _is_at(self, ours: int) -> bool:
        with suppress(OSError):
            return self._place.stat().st_ino == ours
        return False

    def _start(self, listener: socket.socket, stays: int, ends: int) -> None:
        worker = os.fork()
        if worker:
            self._workers.add(worker)
            return
        status = 1
        try:
            os.close(ends)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            status = self._serve(listener, stays, self._stamp)
        finally:
            os._exit(status)

    def _reap(self) -> bool:
        """Let go of workers that have died; return whether others may take their place."""
        for worker in list(self._workers):
            pid, status = os.waitpid(worker, os.WNOHANG)
            if pid:
                self._workers.discard(worker)
                self._deaths += 1
                if os.WIFEXITED(status) and os.WEXITSTATUS(status):
                    return False
        return self._deaths < MOST_DEATHS

    def _stamp(self) -> None:
        _STAMP.pack_into(self._used, 0, time.monotonic())

    def _last_used_s(self) -> float:
        moment: float = _STAMP.unpack_from(self._used)[0]
        return moment
