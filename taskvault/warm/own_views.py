"""Remembers of which commands Python must do even what is a miss: they look at what the kernel says of their caller."""

from __future__ import annotations

import mmap

_BITS = mmap.PAGESIZE * 8


class OwnViews:
    """Weak keys, in memory shared with all processes that are forked from this one.

    A key that was added is found; one that was not is, rarely, found too, and then Python does what we could have done.
    """

    def __init__(self) -> None:
        self._bits = mmap.mmap(-1, mmap.PAGESIZE)

    def add(self, weak_hash: bytes) -> None:
        """Remember a weak key.  Of two at once one may be lost, which costs another run that is not stored."""
        place, bit = _place(weak_hash)
        self._bits[place] |= bit

    def __contains__(self, weak_hash: bytes) -> bool:
        """Whether it was added."""
        place, bit = _place(weak_hash)
        return bool(self._bits[place] & bit)


def _place(weak_hash: bytes) -> tuple[int, int]:
    number = int.from_bytes(weak_hash[:8], "little") % _BITS
    return number // 8, 1 << number % 8
