"""Numbers that are never given out twice, also across crashes."""

from __future__ import annotations

from tvfs.catalog.catalog import Batch, Catalog, Family
from tvfs.errors import TaskVaultError

NEXT_INO = "next_ino"
NEXT_SEQ = "next_seq"
NEXT_PACK = "next_pack"

_FIRST = {NEXT_INO: 64, NEXT_SEQ: 1, NEXT_PACK: 1}
_BLOCK = {NEXT_INO: 4096, NEXT_SEQ: 4096, NEXT_PACK: 1}
"""How far the stored mark runs ahead: a row each so many numbers.  A pack is rare, and its number is in a file name."""


MAX_NUMBER = 1 << 62
"""Numbers are stored as 64 bits, and shown by programs that take them to be signed."""


class NumbersUsedUp(TaskVaultError):
    """Everything was numbered that can be: trees of a trillion files were attached, again and again."""

    def __init__(self, name: str) -> None:
        super().__init__(f"The vault has used up its numbers ({name}); make a new vault and save into that one.")
        self.name = name


class Counters:
    """Hands out numbers below a high-water mark that is written before the first of them is used.

    After a crash counting goes on at the mark, so at most one block of numbers is skipped.  The mark and the rows that
    use the numbers are written to one log, in order: a power loss that loses the mark loses those rows too.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._next: dict[str, int] = {}
        self._mark: dict[str, int] = {}
        for name, first in _FIRST.items():
            row = catalog.get(Family.SYS, name.encode())
            self._next[name] = self._mark[name] = first if row is None else int.from_bytes(row, "big")

    def take(self, name: str, count: int = 1) -> int:
        """Return the first of `count` consecutive numbers that nobody else gets; raise `NumbersUsedUp`."""
        first = self._next[name]
        if first + count > MAX_NUMBER:
            raise NumbersUsedUp(name)
        self._next[name] = first + count
        if self._next[name] > self._mark[name]:
            self._write(name, max(self._next[name], self._mark[name] + _BLOCK[name]))
        return first

    def raise_to(self, name: str, minimum: int) -> bool:
        """Never hand out a number below `minimum`; tell whether that changed anything."""
        if self._next[name] >= minimum:
            return False
        self._next[name] = minimum
        self._write(name, max(minimum, self._mark[name]))
        return True

    def close(self) -> None:
        """Give back the rest of each block: a clean stop skips nothing."""
        for name, following in self._next.items():
            if following != self._mark[name]:
                self._write(name, following)

    def _write(self, name: str, mark: int) -> None:
        batch = Batch()
        batch.put(Family.SYS, name.encode(), mark.to_bytes(8, "big"))
        self._catalog.write(batch)
        self._mark[name] = mark
