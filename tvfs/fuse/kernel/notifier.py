"""Tells the kernel what it has not asked, from a thread of its own.

Writing a notification takes locks of the kernel's that a client may hold while it waits for our answer: the task that
answers must never write one.  Notifications are written one after the other; who wants one does not wait.
"""

from __future__ import annotations

import errno
import os
import queue
import threading

import structlog

_log = structlog.get_logger()
_UNKNOWN = frozenset({errno.ENOENT, errno.ENOTEMPTY, errno.EBUSY})
"""The kernel has forgotten the name already, or somebody uses it and it will be looked up again."""
_OVER = frozenset({errno.ENODEV, errno.ENOTCONN, errno.ECONNABORTED, errno.EPIPE, errno.EBADF})


class Notifier:
    """Starts its thread with the first notification."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    def send(self, notification: bytes) -> None:
        """Have it written soon; nothing happens after `end`."""
        if self._closed:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_all, name="fuse notifications", daemon=True)
            self._thread.start()
        self._waiting.put(notification)

    def end(self) -> None:
        """Begin no more; one that is being written may take until the kernel has had its answers."""
        self._closed = True
        self._waiting.put(None)

    def finish(self) -> None:
        """Begin no more but those that were asked for; then as after `end`."""
        self._waiting.put(None)

    def join(self, timeout_s: float | None = None) -> None:
        """Wait, after `end`, until nothing is being written: the descriptor is not used from then on."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _write_all(self) -> None:
        while True:
            notification = self._waiting.get()
            if notification is None:
                return
            if self._closed:
                continue
            try:
                os.write(self._descriptor, notification)
            except OSError as exc:
                if exc.errno not in _UNKNOWN | _OVER:
                    _log.warning("the kernel did not take a notification", reason=str(exc))
