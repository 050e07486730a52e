"""One fsync for everyone who waits for one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import trio

from tvfs.errors import TaskVaultError


class FlushFailed(TaskVaultError):
    """The disk refused to make written data durable; nothing can be acknowledged any more."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"The vault could not be flushed to disk ({reason}), so nothing more is accepted;"
            " check the disk, then restart the daemon."
        )


@dataclass(slots=True)
class _Round:
    done: bool = False


class GroupCommit:
    """Runs a blocking `sync` in a thread, one at a time; each run serves everyone who asked before it began.

    The first failure is final: after a failed fsync the kernel may have dropped the dirty pages, and a second one that
    succeeds would prove nothing.  Errors of the class `retryable` are no failed fsync: they are only passed on.
    """

    def __init__(self, sync: Callable[[], None], *, retryable: type[Exception] | tuple[()] = ()) -> None:
        self._sync = sync
        self._retryable = retryable
        self._lock = trio.Lock()
        self._limiter = trio.CapacityLimiter(1)
        self._next = _Round()
        self._failure: str | None = None

    @property
    def failure(self) -> str | None:
        """Why no sync is believed any more; None while they are."""
        return self._failure

    def fail(self, reason: str) -> None:
        """Believe none from now on: something else that had to last has failed to."""
        self._failure = self._failure or reason

    @property
    def busy(self) -> bool:
        """Whether a sync is running."""
        return self._lock.locked()

    async def wait(self) -> None:
        """Return when a sync that began after this call has ended; raise `FlushFailed` or what is retryable."""
        mine = self._next
        async with self._lock:
            if self._failure is not None:
                raise FlushFailed(self._failure)
            if mine.done:
                return
            # From here on others belong to the next round.  If this task is cancelled before the thread starts, the
            # others of this round find it not done and run it themselves.
            if self._next is mine:
                self._next = _Round()
            try:
                await trio.to_thread.run_sync(self._sync, limiter=self._limiter)
            except self._retryable:
                raise
            except Exception as exc:  # whatever it was: what the log holds is unknown from here on
                self._failure = str(exc)
                raise FlushFailed(str(exc)) from exc
            mine.done = True
