"""Counting anew, and finding what nothing refers to and nothing knows of: what a stop without order leaves behind."""

from __future__ import annotations

from itertools import islice

import trio

from tvfs.catalog.catalog import Batch, Catalog, Family
from tvfs.chunks.chunk_row import ChunkState
from tvfs.vault.counting import COUNTED, CountingCatalog, decode_count, encode_count
from tvfs.vault.references import REFERRING, object_of_row, references_of

SEARCHING = b"searching"
"""Row of family `sys`: there may be objects that nothing refers to and that no row says so of."""

OBJECTS = (Family.TREE, Family.TREEPAGE, Family.BLOB, Family.PAGE, Family.CHUNK)

_SLICE = 256
"""Rows looked at before others get their turn: 1 ms."""
_MERGED = 1 << 18
"""Counts in memory before they are written: 40 MB."""
_WRITTEN = 4096
_LAST = b"\xff" * 64


def begin_counting(catalog: Catalog, function: str, *, clean: bool) -> None:
    """Have true counts when a vault is opened; `catalog` is the one below the counting.

    After a stop without order (not `clean`) a search is needed: what was known as newborn is not any more.
    """
    if catalog.get(Family.SYS, COUNTED) is None:
        count_anew(catalog, function)
    elif not clean:
        batch = Batch()
        batch.put(Family.SYS, SEARCHING, b"")
        catalog.write(batch)


async def keep_unwanted(catalog: CountingCatalog) -> None:
    """Write down, in slices, what is known as newborn: for a stop in order."""
    while catalog.spill(_SLICE):
        await trio.lowlevel.checkpoint()


def count_anew(catalog: Catalog, function: str) -> None:
    """Make the counts what the rows say; blocks, 5 µs a reference.  An interrupted one is done again by the next start.

    `catalog` is the one below the counting.  What nothing refers to is found by a search afterwards.
    """
    batch = Batch()
    batch.delete(Family.SYS, COUNTED)
    batch.put(Family.SYS, SEARCHING, b"")
    batch.delete_range(Family.REF, b"", _LAST)
    catalog.write(batch)
    counts: dict[bytes, int] = {}
    for family in sorted(REFERRING):
        for key, value in catalog.scan(family):
            for each in references_of(family, key, value, function):
                counts[each] = counts.get(each, 0) + 1
            if len(counts) >= _MERGED:
                _merge(catalog, counts)
    _merge(catalog, counts)
    batch = Batch()
    batch.put(Family.SYS, COUNTED, b"")
    catalog.write(batch)


def _merge(catalog: Catalog, counts: dict[bytes, int]) -> None:
    keys = sorted(counts)
    for start in range(0, len(keys), _WRITTEN):
        part = keys[start : start + _WRITTEN]
        batch = Batch()
        for key, value in zip(part, catalog.get_many(Family.REF, part), strict=True):
            batch.put(Family.REF, key, encode_count(decode_count(value) + counts[key]))
        catalog.write(batch)
    counts.clear()


def search_expected(catalog: Catalog) -> bool:
    """Whether a search is needed."""
    return catalog.get(Family.SYS, SEARCHING) is not None


async def search(catalog: CountingCatalog) -> int:
    """Look through all objects, in slices, and note those that nothing refers to; return how many.

    What is stored while it runs is known as newborn, and stays so.
    """
    found = 0
    for family in OBJECTS:
        start = b""
        while True:
            # A scan is not kept open while others run, so it is begun anew after each slice.
            part = list(islice(catalog.scan(family, start), _SLICE))
            found += _doom_unknown(catalog, family, part)
            if len(part) < _SLICE:
                break
            start = part[-1][0] + b"\0"
            await trio.lowlevel.checkpoint()
    batch = Batch()
    batch.delete(Family.SYS, SEARCHING)
    catalog.write(batch)
    return found


def _doom_unknown(catalog: CountingCatalog, family: Family, rows: list[tuple[bytes, bytes]]) -> int:
    newborn = catalog.unwanted.newborn
    keys: dict[bytes, None] = {}
    for key, value in rows:
        whose = object_of_row(family, key)
        if whose is not None and whose not in newborn and not is_dead_chunk(family, value):
            keys[whose] = None
    uncounted = [key for key, count in zip(keys, catalog.counts(list(keys)), strict=True) if not count]
    known = catalog.get_many(Family.DOOMED, uncounted)
    unknown = [key for key, value in zip(uncounted, known, strict=True) if value is None]
    if unknown:
        catalog.doom(unknown)
    return len(unknown)


def is_dead_chunk(family: Family, value: bytes) -> bool:
    """Whether a row is that of a chunk that was let go."""
    return family is Family.CHUNK and value[2:3] == bytes([ChunkState.DEAD])
