"""Walks over a native record, past the calls that only repeat what is known: `native/repeats.c`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ctypes import CDLL

LIBRARY = Path(__file__).with_name("native") / "taskvault-repeats.so"

_NO_MEMORY = (1 << 64) - 1
_POSITION = (1 << 32) - 1


class Repeats:
    """One walk, from the first entry to the last.  Uses, working directories and processes are numbers here."""

    def __init__(self, library: CDLL, record: int, first: int, end: int) -> None:
        """`record` is a descriptor; raise `MemoryError`."""
        self._library = library
        self._walk = library.taskvault_repeats_new(record, first, end)
        if not self._walk:
            raise MemoryError
        self.number = 0
        """Of what the call was given and answered at which the walk stopped, if that is met again; else 0."""

    def close(self) -> None:
        """Free what it knows."""
        walk, self._walk = self._walk, None
        self._library.taskvault_repeats_free(walk)

    def stops(self) -> Iterator[int]:
        """Yield where there are entries that are no repeats."""
        go, walk = self._library.taskvault_repeats_next, self._walk
        while stop := go(walk):
            if stop == _NO_MEMORY:
                raise MemoryError
            self.number = stop >> 32
            yield stop & _POSITION

    def know_task(self, tid: int, process: int, directory: int) -> None:
        """Pass over repeats of this task from now on; process 0: no more."""
        self._library.taskvault_repeats_task(self._walk, tid, process, directory)

    def know_links(self, version: int) -> None:
        """Take it that what was learnt with another version of the links holds no more."""
        self._library.taskvault_repeats_links(self._walk, version)

    def learn(self, number: int, directory: int, uses: Sequence[int]) -> None:
        """Take in what a call means in a directory, with the links as they are."""
        from ctypes import c_uint32

        if not self._library.taskvault_repeats_learn(
            self._walk, number, directory, (c_uint32 * len(uses))(*uses), len(uses)
        ):
            raise MemoryError

    def note(self, use: int, process: int) -> bool:
        """Note a use; whether it is the first such of that process."""
        found: int = self._library.taskvault_repeats_note(self._walk, use, process)
        if found < 0:
            raise MemoryError
        return bool(found)

    def noted(self) -> list[int]:
        """Return uses, and processes times 2**32, in the order in which they were noted first."""
        from ctypes import byref, c_uint64

        count = c_uint64()
        noted = self._library.taskvault_repeats_noted(self._walk, byref(count))
        return noted[: count.value] if count.value else []


@cache
def library() -> CDLL | None:
    """Return what was compiled, or None if it was not."""
    import ctypes as c

    try:
        found = c.CDLL(str(LIBRARY))
        found.taskvault_repeats_new.argtypes = [c.c_int, c.c_uint64, c.c_uint64]
        found.taskvault_repeats_new.restype = c.c_void_p
        found.taskvault_repeats_free.argtypes = [c.c_void_p]
        found.taskvault_repeats_free.restype = None
        found.taskvault_repeats_next.argtypes = [c.c_void_p]
        found.taskvault_repeats_next.restype = c.c_uint64
        found.taskvault_repeats_task.argtypes = [c.c_void_p, c.c_int32, c.c_uint32, c.c_uint32]
        found.taskvault_repeats_task.restype = None
        found.taskvault_repeats_links.argtypes = [c.c_void_p, c.c_uint32]
        found.taskvault_repeats_links.restype = None
        found.taskvault_repeats_learn.argtypes = [
            c.c_void_p, c.c_uint32, c.c_uint32, c.POINTER(c.c_uint32), c.c_uint32,
        ]  # fmt: skip
        found.taskvault_repeats_learn.restype = c.c_bool
        found.taskvault_repeats_note.argtypes = [c.c_void_p, c.c_uint32, c.c_uint32]
        found.taskvault_repeats_note.restype = c.c_int
        found.taskvault_repeats_noted.argtypes = [c.c_void_p, c.POINTER(c.c_uint64)]
        found.taskvault_repeats_noted.restype = c.POINTER(c.c_uint64)
    except (OSError, AttributeError):
        return None
    return found
