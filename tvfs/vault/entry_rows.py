"""The rows of entries: each with its rows of usage and the sums over all, changed together."""

from __future__ import annotations

from collections.abc import Iterator

from tvfs.catalog.catalog import Batch, Catalog, Family, prefix_end
from tvfs.vault.entry_totals import ROW as TOTALS_ROW
from tvfs.vault.entry_totals import EntryTotals, count_entries, decode_totals, encode_totals
from tvfs.vault.entry_usage import BY_EXPIRY, BY_RANK, usage_rows
from tvfs.vault.stored_entry import EntryInvalid, StoredEntry, decode_entry, encode_entry


class EntryRows:
    """Knows nothing of clocks, names and policies; synchronous."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        row = catalog.get(Family.SYS, TOTALS_ROW)
        self._totals = None if row is None else decode_totals(row)
        # Nothing is below: rows that were deleted at the head of a queue cost a scan as much as those that are there.
        self._floors = {BY_RANK: BY_RANK, BY_EXPIRY: BY_EXPIRY}

    def read(self, row_key: bytes) -> StoredEntry | None:
        """Return the entry, expired or not; raise `EntryInvalid`."""
        row = self._catalog.get(Family.ENTRY, row_key)
        return None if row is None else decode_entry(row_key, row)

    def whatever_is_at(self, row_key: bytes) -> StoredEntry | EntryInvalid | None:
        """Return what the row holds, also if it cannot be read."""
        try:
            return self.read(row_key)
        except EntryInvalid as exc:
            return exc

    def scan(self, start: bytes, end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yield rows of entries in the order of their keys."""
        return self._catalog.scan(Family.ENTRY, start, end)

    def totals(self) -> EntryTotals:
        """Sums over all entries; counted, 2 us an entry, only where a vault has no row of them yet."""
        if self._totals is None:
            self._totals = count_entries(self._catalog)
        return self._totals

    def bind(
        self, batch: Batch, row_key: bytes, old: StoredEntry | EntryInvalid | None, new: StoredEntry | None
    ) -> None:
        """Write the batch, and in it the entry instead of what was there (or nothing); no `await` since it was read."""
        self.add_to(batch, row_key, old if isinstance(old, StoredEntry) else None, new)
        before = self.totals()
        after = before.changed(old, new)
        if after != before:
            batch.put(Family.SYS, TOTALS_ROW, encode_totals(after))
        self._catalog.write(batch)
        self._totals = after

    def add_to(
        self, batch: Batch, row_key: bytes, old: StoredEntry | None, new: StoredEntry | None, *, anew: bool = False
    ) -> None:
        """Add to a batch what changes between two versions of an entry, sums excepted; all of it if `anew`."""
        before = set() if old is None else usage_rows(old)
        after = set() if new is None else usage_rows(new)
        for usage_key in before - after:
            batch.delete(Family.USAGE, usage_key)
        for usage_key in after if anew else after - before:
            batch.put(Family.USAGE, usage_key, b"")
            queue = usage_key[:1]
            if queue in self._floors and usage_key < self._floors[queue]:
                self._floors[queue] = usage_key
        if new is None:
            batch.delete(Family.ENTRY, row_key)
        elif new != old:
            batch.put(Family.ENTRY, row_key, encode_entry(new))

    def head(self, queue: bytes, limit: int) -> list[bytes]:
        """Return the first `limit` keys of a queue."""
        found: list[bytes] = []
        for usage_key, _ in self._catalog.scan(Family.USAGE, self._floors[queue], prefix_end(queue)):
            found.append(usage_key)
            if len(found) == limit:
                break
        self._floors[queue] = found[0] if found else queue + b"\xff" * 16
        return found

    def forget(self, usage_key: bytes) -> None:
        """Remove a row of usage that stands for nothing."""
        batch = Batch()
        batch.delete(Family.USAGE, usage_key)
        self._catalog.write(batch)
