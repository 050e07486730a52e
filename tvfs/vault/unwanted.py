"""What nothing refers to and is known in memory only: what was just stored, and what has been unwanted for a moment."""

from __future__ import annotations

from itertools import islice

MOST_NEWBORN = 131_072
"""Objects that were stored and are not referred to yet: 25 MB."""
MOST_YOUNG = 131_072
EPOCH_S = 5.0
"""Whoever holds on to content across an `await` without a lease has finished after this long, or has looked again."""


class Unwanted:
    """The owner's only, synchronous; all times are of one monotonic clock, in seconds."""

    def __init__(self) -> None:
        self.newborn: dict[bytes, float] = {}
        """When each was stored, oldest first; they have no row in family `doomed`, so that most objects, which are
        referred to a moment later, never get one."""
        self._young: dict[bytes, float] = {}
        self._floor_s = float("-inf")
        """No object that is not remembered became unwanted after this."""

    def born(self, key: bytes, now_s: float) -> None:
        """An object was stored."""
        self.newborn.setdefault(key, now_s)

    def doomed(self, key: bytes, now_s: float) -> None:
        """The last reference to an object went."""
        self.newborn.pop(key, None)
        self._remember(key, now_s, now_s)

    def spilled(self, key: bytes, now_s: float) -> None:
        """A newborn has a row now."""
        born_s = self.newborn.pop(key, None)
        if born_s is not None and now_s - born_s < EPOCH_S:
            self._remember(key, born_s, now_s)

    def forget(self, key: bytes) -> None:
        """It is wanted, or is no more."""
        self.newborn.pop(key, None)
        self._young.pop(key, None)

    def since_s(self, key: bytes) -> float:
        """Return since when an unwanted object has been so, at the latest."""
        born_s = self.newborn.get(key)
        return self._young.get(key, self._floor_s) if born_s is None else born_s

    def oldest_newborn(self, count: int) -> list[bytes]:
        """Return the newborn that were stored first."""
        return list(islice(self.newborn, count))

    def _remember(self, key: bytes, since_s: float, now_s: float) -> None:
        young = self._young
        young[key] = since_s
        while young:
            oldest = next(iter(young))
            if now_s - young[oldest] < EPOCH_S and len(young) <= MOST_YOUNG:
                return
            # What is dropped before its time keeps the others that are not remembered from going for as long.
            if now_s - young[oldest] < EPOCH_S:
                self._floor_s = max(self._floor_s, young[oldest])
            del young[oldest]
