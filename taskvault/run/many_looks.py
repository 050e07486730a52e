"""What identifies everything at many paths, looked at in one native call (`native/looks.c`).

Whoever has seen the same before knows what comes of it.  Where the library was not compiled there is no such call, and
each path is looked at by itself.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ctypes import _NamedFuncPointer

LIBRARY = Path(__file__).parent / "native" / "taskvault-looks.so"

_NUMBERS = struct.Struct("=8Q")
_NUMBER = (1 << 64) - 1
"""Times may lie before 1970, or after 2554: what the native call makes of them, too."""
TOLD_BYTES = _NUMBERS.size
"""By one look."""

NOTHING = bytes(TOLD_BYTES)
"""Nothing is there."""


def itself(place: bytes) -> bytes:
    """Return how a look at what is at a path is asked for."""
    return b"l" + place + b"\0"


def followed(place: bytes) -> bytes:
    """Return how a look at where a path leads is asked for."""
    return b"s" + place + b"\0"


def told_itself(status: os.stat_result | None) -> bytes:
    """Return what a look at what is there itself tells."""
    if status is None:
        return NOTHING
    numbers = (
        status.st_dev, status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns,
        status.st_uid, status.st_rdev,
    )  # fmt: skip
    return _NUMBERS.pack(*[number & _NUMBER for number in numbers])


def told_followed(identity: Sequence[int] | None) -> bytes:
    """Return what a look at where a path leads tells, given `identity_of` what is there."""
    return NOTHING if identity is None else _NUMBERS.pack(*[number & _NUMBER for number in identity], 0, 0)


def looks(root: bytes, paths: bytes, count: int) -> bytes | None:
    """Return what all looks tell, `TOLD_BYTES` each; None if that cannot be told like this.

    `paths` are `itself` and `followed` ones, one behind the other; those without a slash in front begin at `root`.
    """
    function = _function()
    if function is None:
        return None
    import ctypes

    found = ctypes.create_string_buffer(TOLD_BYTES * count)
    return None if function(root, paths, count, found) else found.raw


def differing(one: bytes | bytearray, other: bytes) -> list[int]:
    """Return the numbers of the looks that tell something else; few, or it takes long."""
    found: list[int] = []
    parts = [(0, len(other) // TOLD_BYTES)]
    first, second = memoryview(one), memoryview(other)
    while parts:
        start, end = parts.pop()
        if first[start * TOLD_BYTES : end * TOLD_BYTES] == second[start * TOLD_BYTES : end * TOLD_BYTES]:
            continue
        if end - start == 1:
            found.append(start)
            continue
        middle = (start + end) // 2
        parts += [(start, middle), (middle, end)]
    return found


@cache
def _function() -> _NamedFuncPointer | None:
    import ctypes

    try:
        function = ctypes.CDLL(str(LIBRARY)).taskvault_looks
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p]
    function.restype = ctypes.c_int
    return function
