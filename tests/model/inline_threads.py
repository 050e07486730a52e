"""Runs what the product gives to threads in the trio thread, so that a seed always leads to the same interleaving.

Others run before the work and after it, as they may while a real thread is at it.  Whoever calls back into trio and
waits there (sealing) needs a real thread: put `real_threads` around it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import trio

_to_thread = trio.to_thread.run_sync
_from_thread = trio.from_thread.run_sync
_real = 0


@contextmanager
def inline_threads() -> Iterator[None]:
    """Replace trio's threads for the length of the block."""
    trio.to_thread.run_sync = _run_inline
    trio.from_thread.run_sync = _call_back
    try:
        yield
    finally:
        trio.to_thread.run_sync = _to_thread
        trio.from_thread.run_sync = _from_thread


@contextmanager
def real_threads() -> Iterator[None]:
    """Use real threads; nothing else should run meanwhile, or the interleaving is the machine's."""
    global _real
    _real += 1
    try:
        yield
    finally:
        _real -= 1
        # How often trio drew lots meanwhile was up to the threads.
        trio._core._run._r.seed(0)  # type: ignore[attr-defined]


async def _run_inline(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    if _real:
        return await _to_thread(function, *arguments, **options)
    await trio.lowlevel.checkpoint()
    outcome = function(*arguments)
    await trio.lowlevel.cancel_shielded_checkpoint()
    return outcome


def _call_back(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    if threading.current_thread() is threading.main_thread():
        return function(*arguments)
    return _from_thread(function, *arguments, **options)
