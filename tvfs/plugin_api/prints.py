"""Keeps what plugins print while they are loaded out of answers that programs read."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


class _Diversion:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.real: TextIO = sys.stdout


_diversion = _Diversion()


@contextmanager
def prints_go_to_stderr() -> Iterator[None]:
    """Let `print` write to stderr for the length of the block, in every thread; blocks of several threads may overlap.

    For the moment in which a plugin is loaded: a process that prints beside it loses nothing, it is only elsewhere.
    """
    with _diversion.lock:
        if not _diversion.users:
            _diversion.real, sys.stdout = sys.stdout, sys.stderr
        _diversion.users += 1
    try:
        yield
    finally:
        with _diversion.lock:
            _diversion.users -= 1
            if not _diversion.users:
                sys.stdout = _diversion.real
