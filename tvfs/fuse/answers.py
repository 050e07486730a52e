"""Every handler answers the kernel, whatever happens in it.

An exception other than `FUSEError` that leaves a handler would end `pyfuse3.main`: every other request in flight would
go unanswered and the mount would be dead.  So each handler is wrapped by `answers` (or `answers_nothing`).
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from pyfuse3 import FUSEError

from tvfs.fuse.refusals import errno_of

P = ParamSpec("P")
R = TypeVar("R")


class Counting(Protocol):
    """Who answers, and counts the requests of each kind."""

    counts: dict[str, int]


S = TypeVar("S", bound=Counting)

_REFUSALS = {number: FUSEError(number) for number in errno.errorcode}
"""One instance per errno: pyfuse3 catches it before any other task runs, so that two can never be in flight at once."""


def refusal(number: int) -> FUSEError:
    """Return the exception to raise for an errno; an unknown number becomes EIO."""
    # Without this an instance that is raised again would keep the frames of every earlier time alive.
    return _REFUSALS.get(number, _REFUSALS[errno.EIO]).with_traceback(None)


def answers(handler: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """Wrap a handler that never waits: count it, and turn whatever it raises into an errno."""
    name = handler.__name__

    @wraps(handler)
    async def answered(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        self.counts[name] += 1
        try:
            return handler(self, *args, **kwargs)
        # Anything else than FUSEError would end the mount; `errno_of` logs what nobody raises on purpose.
        except Exception as exc:  # noqa: BLE001
            refused = _translate(name, exc)
        # Outside the `except`, so that the shared instance does not hold on to `exc` as its context.
        raise refused

    return answered


def answers_later(
    handler: Callable[Concatenate[S, P], Awaitable[R]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """Do the same for a handler that may wait; `Cancelled` passes, since nobody is left to answer."""
    name = handler.__name__

    @wraps(handler)
    async def answered(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        self.counts[name] += 1
        try:
            return await handler(self, *args, **kwargs)
        # Anything else than FUSEError would end the mount; `errno_of` logs what nobody raises on purpose.
        except Exception as exc:  # noqa: BLE001
            refused = _translate(name, exc)
        raise refused

    return answered


def answers_nothing(
    handler: Callable[Concatenate[S, P], None],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, None]]:
    """Wrap a handler that the kernel expects no answer from: it must not even raise `FUSEError`."""
    name = handler.__name__

    @wraps(handler)
    async def answered(self: S, /, *args: P.args, **kwargs: P.kwargs) -> None:
        self.counts[name] += 1
        try:
            handler(self, *args, **kwargs)
        # Anything raised here would end the mount; `errno_of` logs what nobody raises on purpose.
        except Exception as exc:  # noqa: BLE001
            _translate(name, exc)

    return answered


def _translate(operation: str, exc: Exception) -> FUSEError:
    return refusal(exc.errno if isinstance(exc, FUSEError) else errno_of(operation, exc))
