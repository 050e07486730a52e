"""The history of runs: rows in family `run`, numbered from 1."""

from __future__ import annotations

from collections.abc import Iterator

from tvfs.catalog.catalog import Batch, Catalog, Family


class RunHistory:
    """Appends records, whose meaning is their writer's, and reads them back latest first."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def append(self, record: bytes) -> int:
        """Store a record and return its number.  It is history: nobody waits for the disk."""
        last = self._catalog.last(Family.RUN, b"\xff" * 8)
        seq = 1 if last is None else int.from_bytes(last[0], "big") + 1
        batch = Batch()
        batch.put(Family.RUN, seq.to_bytes(8, "big"), record)
        self._catalog.write(batch)
        return seq

    def get(self, seq: int) -> bytes | None:
        """Return one record."""
        return self._catalog.get(Family.RUN, seq.to_bytes(8, "big")) if 0 < seq < 1 << 64 else None

    def latest_first(self, *, before: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Yield `(number, record)` from the latest, or from the one before `before`, down to the first.

        Each step looks the next row up anew, so a caller may stop, or await between two steps.
        """
        end = (1 << 64) - 1 if before is None else before - 1
        while end > 0:
            row = self._catalog.last(Family.RUN, end.to_bytes(8, "big"))
            if row is None:
                return
            seq = int.from_bytes(row[0], "big")
            yield seq, row[1]
            end = seq - 1
