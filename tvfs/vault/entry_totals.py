"""Sums over all entries, kept in row `entries` of family `sys`, so that nobody has to look at a million of them."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from tvfs.catalog.catalog import Catalog, Family
from tvfs.vault.stored_entry import EntryInvalid, StoredEntry, decode_entry

ROW = b"entries"
_VERSION = 1
_FORMAT = struct.Struct(">BxxxxxxxQQQ")
"""Version, entries, files, bytes."""


@dataclass(frozen=True, slots=True)
class EntryTotals:
    """What has expired and one that cannot be read count as entries until they are removed."""

    entries: int = 0
    files: int = 0
    size_bytes: int = 0
    """Of all files in all entries: what they would take unshared and uncompressed."""

    def changed(self, old: StoredEntry | EntryInvalid | None, new: StoredEntry | None) -> EntryTotals:
        """Return the sums after one entry has taken another's place."""
        taken, added = _summands(old), _summands(new)
        return EntryTotals(
            self.entries + (new is not None) - (old is not None),
            # Not below zero: what is damaged now was counted while it was whole.
            max(0, self.files + added[0] - taken[0]),
            max(0, self.size_bytes + added[1] - taken[1]),
        )


def count_entries(catalog: Catalog) -> EntryTotals:
    """Return the sums, by looking at every entry."""
    entries = files = size_bytes = 0
    for row_key, row in catalog.scan(Family.ENTRY):
        entries += 1
        try:
            more = _summands(decode_entry(row_key, row))
        except EntryInvalid:
            continue
        files += more[0]
        size_bytes += more[1]
    return EntryTotals(entries, files, size_bytes)


def encode_totals(totals: EntryTotals) -> bytes:
    """Return the row's value."""
    return _FORMAT.pack(_VERSION, totals.entries, totals.files, totals.size_bytes)


def decode_totals(row: bytes) -> EntryTotals | None:
    """Return the sums; None, so that they are counted anew, if the row is of another version."""
    if len(row) != _FORMAT.size or row[0] != _VERSION:
        return None
    return EntryTotals(*_FORMAT.unpack(row)[1:])


def _summands(entry: StoredEntry | EntryInvalid | None) -> tuple[int, int]:
    if not isinstance(entry, StoredEntry) or entry.snapshot is None:
        return 0, 0
    return entry.snapshot.files, entry.snapshot.size
