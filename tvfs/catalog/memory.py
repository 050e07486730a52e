"""A catalog in memory: the model that tests compare the real one with, and a fast stand-in where nothing must last.

It keeps two states, what a kill leaves and what a power loss leaves, so that a test may crash it at any point.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import trio
from sortedcontainers import SortedDict

from tvfs.catalog.catalog import Batch, Delete, DeleteRange, DiskUse, Family, Put


class MemoryCatalog:
    """Keeps every promise of `Catalog` except that it ends with the process."""

    def __init__(self) -> None:
        self._rows = _empty()
        self._durable = _empty()
        self._unflushed: list[Batch] = []
        self._failure: str | None = None

    def get(self, family: Family, key: bytes) -> bytes | None:
        """Return the row's value, or None."""
        value: bytes | None = self._rows[family].get(key)
        return value

    def get_many(self, family: Family, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of several rows, in the order of the keys."""
        rows = self._rows[family]
        return [rows.get(key) for key in keys]

    def scan(self, family: Family, start: bytes = b"", end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yield the rows with `start <= key < end` in key order, as they were when the scan began."""
        rows = self._rows[family]
        return iter([(key, rows[key]) for key in rows.irange(start, end, inclusive=(True, False))])

    def last(self, family: Family, end: bytes) -> tuple[bytes, bytes] | None:
        """Return the row with the greatest key that is `<= end`, or None."""
        rows = self._rows[family]
        key = next(rows.irange(None, end, reverse=True), None)
        return None if key is None else (key, rows[key])

    def write(self, batch: Batch) -> None:
        """Apply a batch atomically."""
        frozen = Batch(list(batch.changes))
        _apply(self._rows, frozen)
        self._unflushed.append(frozen)

    async def flush(self) -> None:
        """Let everything written before the call survive a power loss."""
        covered = list(self._unflushed)
        await trio.lowlevel.checkpoint()
        # A flush that ran meanwhile may have covered some of them; batches become durable in order and once.
        while self._unflushed and any(self._unflushed[0] is batch for batch in covered):
            _apply(self._durable, self._unflushed.pop(0))

    def disk_bytes(self) -> int:
        """Nothing is on disk."""
        return 0

    @property
    def failure(self) -> str | None:
        """Memory fails only if it is told to."""
        return self._failure

    def fail(self, reason: str) -> None:
        """Accept nothing more."""
        self._failure = reason

    def drop_deleted(self) -> None:
        """They have gone."""

    def disk_use(self) -> DiskUse:
        """Nothing is on disk."""
        return DiskUse(0, 0)

    @property
    def written_bytes(self) -> int:
        """Nothing is on disk."""
        return 0

    def close(self) -> None:
        """Release everything but what the next start would find: `crash_copy` tells."""
        self._rows = _empty()
        self._unflushed.clear()

    @property
    def unflushed(self) -> int:
        """How many batches a power loss may take."""
        return len(self._unflushed)

    def crash_copy(self, *, durable_only: bool, unflushed_kept: int = 0) -> MemoryCatalog:
        """Return what the next start would find after a kill, or after a power loss if `durable_only`.

        A power loss may lose a suffix only of what was not flushed: the first `unflushed_kept` batches are kept.
        """
        survivor = MemoryCatalog()
        source = self._durable if durable_only else self._rows
        survivor._rows = {family: rows.copy() for family, rows in source.items()}
        for batch in self._unflushed[:unflushed_kept] if durable_only else ():
            _apply(survivor._rows, batch)
        survivor._durable = {family: rows.copy() for family, rows in survivor._rows.items()}
        return survivor


def _empty() -> dict[Family, SortedDict]:
    return {family: SortedDict() for family in Family}


def _apply(state: dict[Family, SortedDict], batch: Batch) -> None:
    for change in batch.changes:
        rows = state[change.family]
        match change:
            case Put(_, key, value):
                rows[key] = value
            case Delete(_, key):
                rows.pop(key, None)
            case DeleteRange(_, start, end):
                for key in list(rows.irange(start, end, inclusive=(True, False))) if start < end else ():
                    del rows[key]
