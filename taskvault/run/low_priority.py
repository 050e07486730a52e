"""Work when nobody else does."""

from __future__ import annotations

import ctypes
import os
import platform
from contextlib import suppress

_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
"""Number of the system call, which has no function in the C library."""
_PROCESS, _IDLE = 1, 3 << 13


def lower_priority() -> None:
    """Give this process, and what it starts, the lowest priority for processor and disk, as far as that is possible."""
    with suppress(OSError):
        os.nice(19)
    number = _IOPRIO_SET.get(platform.machine())
    if number is not None:
        ctypes.CDLL(None).syscall(number, _PROCESS, 0, _IDLE)
