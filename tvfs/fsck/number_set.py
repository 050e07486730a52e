"""Sets of inode numbers in little memory: a bit each where they are dense, about 150 bytes where they are far apart."""

from __future__ import annotations

_BITS = 10
_MASK = (1 << _BITS) - 1


class NumberSet:
    """Numbers can be added and looked for."""

    def __init__(self) -> None:
        self._parts: dict[int, int] = {}

    def add(self, number: int) -> bool:
        """Add a number; return False if it was there."""
        part = self._parts.get(number >> _BITS, 0)
        bit = 1 << (number & _MASK)
        self._parts[number >> _BITS] = part | bit
        return not part & bit

    def __contains__(self, number: int) -> bool:
        return bool(self._parts.get(number >> _BITS, 0) >> (number & _MASK) & 1)
