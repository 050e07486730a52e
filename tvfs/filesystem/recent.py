"""A bounded memory of what was used last, as cheap as a dictionary."""

from __future__ import annotations

from typing import Generic, TypeVar

V = TypeVar("V")


class Recent(Generic[V]):
    """Keeps between half and all of the last `capacity` values by inode number.

    Two dictionaries instead of a linked list: a hit in the young one, nearly every hit, costs one look-up.
    """

    __slots__ = ("_half", "_old", "_young")

    def __init__(self, capacity: int) -> None:
        self._half = max(1, capacity // 2)
        self._young: dict[int, V] = {}
        self._old: dict[int, V] = {}

    def get(self, key: int) -> V | None:
        """Return the value, or None if it is not remembered."""
        value = self._young.get(key)
        if value is None and self._old:
            value = self._old.pop(key, None)
            if value is not None:
                self.put(key, value)
        return value

    def put(self, key: int, value: V) -> None:
        """Remember a value."""
        if len(self._young) >= self._half and key not in self._young:
            self._old = self._young
            self._young = {}
        elif self._old:
            self._old.pop(key, None)
        self._young[key] = value

    def drop(self, key: int) -> None:
        """Forget a value."""
        self._young.pop(key, None)
        self._old.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._young.clear()
        self._old.clear()
