"""fallocate(2), of which Python has only the simplest form."""

from __future__ import annotations

import ctypes
import os

KEEP_SIZE = 1
PUNCH_HOLE = 2
ZERO_RANGE = 16
_libc = ctypes.CDLL(None, use_errno=True)


def punch(descriptor: int, offset: int, length: int) -> None:
    """Give the disk's blocks of a range back, and let it read as zeros; raise `OSError`."""
    number = ctypes.c_int64
    if _libc.fallocate64(descriptor, KEEP_SIZE | PUNCH_HOLE, number(offset), number(length)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
