"""Tells the kernel what it has not asked, from a thread of its own.

Writing a notification takes locks of the kernel's that a client may hold while it waits for our answer: the task that
answers must never write one.  Notifications are written one after the other; who wants one does not wait.  One that
waits already is not queued again: it has not been written, so what it tells is true of later changes too.  So no more
can wait than there are names and inodes that the kernel knows, however often they change.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import OrderedDict

import structlog

from tvfs import failpoints

_log = structlog.get_logger()
_UNKNOWN = frozenset({errno.ENOENT, errno.ENOTEMPTY, errno.EBUSY})
"""The kernel has forgotten the name already, or somebody uses it and it will be looked up again."""
_OVER = frozenset({errno.ENODEV, errno.ENOTCONN, errno.ECONNABORTED, errno.EPIPE, errno.EBADF})


class Notifier:
    """Starts its thread with the first notification."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._changed = threading.Condition()
        self._waiting: OrderedDict[bytes, None] = OrderedDict()
        """In the order in which they are written; of a plain dict, the first costs a walk past all that are gone."""
        self._finishing = False
        self._thread: threading.Thread | None = None
        self._closed = False

    def send(self, notification: bytes) -> None:
        """Have it written soon; nothing happens after `end` or `finish`."""
        if self._closed or self._finishing:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_all, name="fuse notifications", daemon=True)
            self._thread.start()
        with self._changed:
            self._waiting[notification] = None
            self._changed.notify()

    def end(self) -> None:
        """Begin no more; one that is being written may take until the kernel has had its answers."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify()

    def finish(self) -> None:
        """Begin no more but those that were asked for; then as after `end`."""
        with self._changed:
            self._finishing = True
            self._changed.notify()

    def join(self, timeout_s: float | None = None) -> None:
        """Wait, after `end`, until nothing is being written: the descriptor is not used from then on."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _write_all(self) -> None:
        while (notification := self._next()) is not None:
            failpoints.reach("notification.waits")
            try:
                os.write(self._descriptor, notification)
            except OSError as exc:
                if exc.errno not in _UNKNOWN | _OVER:
                    _log.warning("the kernel did not take a notification", reason=str(exc))

    def _next(self) -> bytes | None:
        """Take the one that has waited longest, waiting for one; None at the end."""
        with self._changed:
            while not (self._waiting or self._closed or self._finishing):
                self._changed.wait()
            return self._waiting.popitem(last=False)[0] if self._waiting else None
