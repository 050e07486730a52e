"""Every request is answered, whatever happens while it is served: this says with which errno."""

from __future__ import annotations

import errno

import structlog

from tvfs.errors import TaskVaultError
from tvfs.filesystem.posix_error import PosixError, as_posix

_log = structlog.get_logger()


class NotServed(PosixError):
    """The kernel is to do without, and not to ask again."""

    errno = errno.ENOSYS

    def __init__(self) -> None:
        super().__init__("This kind of request is not served.")


class NotSupported(PosixError):
    """This one cannot be had, others of the kind can."""

    errno = errno.EOPNOTSUPP

    def __init__(self) -> None:
        super().__init__("The filesystem does not support this.")


def errno_of(operation: str, exc: Exception) -> int:
    """Return what to tell the kernel of an exception; logged, if nobody raises it on purpose."""
    if isinstance(exc, TaskVaultError):
        refused = as_posix(exc)
        if refused.errno == errno.EIO:
            _log.warning("request failed", operation=operation, error=type(exc).__name__, reason=str(exc))
        return refused.errno
    if isinstance(exc, OSError) and exc.errno is not None:
        _log.warning("request failed", operation=operation, error=type(exc).__name__, reason=str(exc))
        return exc.errno
    _log.error("request handler raised", operation=operation, exc_info=exc)
    return errno.EIO
