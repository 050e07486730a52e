"""The referee of the counts: what the rows say, found out anew (docs/design/reclaim.md §6).

`compare` looks at a live vault, in slices and in bounded memory: at the state of one moment, which open scans keep.
It asks whether each count is the number of references from rows, whether what is counted is there, and whether what is
not counted is known as unwanted.  As nothing leads to itself, the three together mean that what leads to a root stays
and that everything else goes.  References are summed up in buckets; only where a sum is wrong objects are told apart.

`compare_exactly` marks from the roots, in memory, for a vault that nobody uses.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from heapq import merge
from itertools import groupby

import trio

from tvfs.catalog.catalog import Catalog, Family
from tvfs.vault.counting import CountingCatalog, decode_count
from tvfs.vault.recount import OBJECTS, is_dead_chunk, search_expected
from tvfs.vault.references import (
    CHUNK_KEY,
    REFERRING,
    ROOTS,
    Kind,
    blob_key_prefix,
    describe,
    id_of,
    object_of_row,
    references_of,
    row_of_object,
)

_BUCKETS = 1 << 18
"""Sums of 8 bytes: 2 MB."""
_MOST_BAD = 4096
"""Buckets that are told apart."""
_SLICE = 256
"""References or rows between two turns of others: 1 ms."""


class Fault(StrEnum):
    """What is wrong with an object."""

    COUNT = "count"
    """Its count is not the number of references."""
    GONE = "gone"
    """It is wanted and not there."""
    UNKNOWN = "unknown"
    """Nothing refers to it, and it is not known as unwanted: its space would never come back."""
    UNREACHABLE = "unreachable"
    """What refers to it leads to no root, and is not known as unwanted."""


@dataclass(frozen=True, slots=True, order=True)
class Difference:
    """One object about which counts and rows disagree: a defect."""

    fault: Fault
    key: bytes
    """As in family `ref`."""
    counted: int = 0
    referring: int = 0

    def __str__(self) -> str:
        what = describe(self.key)
        match self.fault:
            case Fault.COUNT:
                return f"The {what} is referred to {self.referring} times and counted {self.counted} times."
            case Fault.GONE:
                return f"The {what} is wanted and not there."
            case Fault.UNKNOWN:
                return f"Nothing refers to the {what}, and it is not known as unwanted."
        return f"Nothing that is wanted leads to the {what}, and it is not known as unwanted."


async def compare(catalog: CountingCatalog) -> list[Difference]:
    """Return what is wrong with the counts of a live vault; in slices of 1 ms, 5 µs a reference.

    Keeps scans open until it returns: what RocksDB writes anew meanwhile takes its space twice.
    """
    with ExitStack() as scans:
        # Two looks at the same moment: all scans begin in this one step.
        first, again = (_Moment(catalog, scans) for _ in range(2))
        presence = _presence(catalog, scans)
        sums = array("q", bytes(8 * _BUCKETS))
        async for key, count in first.references():
            bucket, weight = _place(key)
            sums[bucket] += weight * count
        bad = frozenset([number for number, total in enumerate(sums) if total][:_MOST_BAD])
        found = await _told_apart(again, bad) if bad else []
        for seen, difference in enumerate(presence, 1):
            if difference is not None:
                found.append(difference)
            if seen % _SLICE == 0:
                await trio.lowlevel.checkpoint()
    return sorted(found)


def _place(key: bytes) -> tuple[int, int]:
    """Return bucket and weight of an object; weights differ, so that two mistakes in one bucket do not cancel out."""
    mixed = zlib.crc32(key)
    return mixed % _BUCKETS, 1 + mixed // _BUCKETS


class _Moment:
    """All references and all counts as they were at one moment."""

    def __init__(self, catalog: CountingCatalog, scans: ExitStack) -> None:
        self._function = catalog.function
        self._rows = [(family, _kept(catalog, scans, family)) for family in sorted(REFERRING)]
        self._counts = _kept(catalog, scans, Family.REF)

    async def references(self) -> AsyncIterator[tuple[bytes, int]]:
        """Yield `(key, 1)` for each reference of a row, and `(key, -count)` for each count."""
        since = 0
        for family, rows in self._rows:
            for row_key, value in rows:
                found = references_of(family, row_key, value, self._function)
                for key in found:
                    yield key, 1
                since += 1 + len(found)
                if since >= _SLICE:
                    since = 0
                    await trio.lowlevel.checkpoint()
        for key, value in self._counts:
            yield key, -decode_count(value)
            since += 1
            if since >= _SLICE:
                since = 0
                await trio.lowlevel.checkpoint()


async def _told_apart(moment: _Moment, buckets: frozenset[int]) -> list[Difference]:
    referring: dict[bytes, int] = {}
    counted: dict[bytes, int] = {}
    async for key, count in moment.references():
        if _place(key)[0] in buckets:
            table = referring if count > 0 else counted
            table[key] = table.get(key, 0) + abs(count)
    return _count_differences(referring, counted)


def _count_differences(referring: dict[bytes, int], counted: dict[bytes, int]) -> list[Difference]:
    return [
        Difference(Fault.COUNT, key, counted.get(key, 0), referring.get(key, 0))
        for key in sorted({*referring, *counted})
        if counted.get(key, 0) != referring.get(key, 0)
    ]


def _presence(catalog: CountingCatalog, scans: ExitStack) -> Iterator[Difference | None]:
    """Yield a difference or None for each id, in order of the ids within each kind."""
    newborn = frozenset(catalog.unwanted.newborn)
    searching = search_expected(catalog)

    def known(key: bytes) -> bool:
        return searching or key in newborn

    own = blob_key_prefix(catalog.function)
    foreign = sorted(
        {key[:1] for key in _first_bytes(catalog, Family.BLOB)} - {own[1:]}
    )  # a vault has blobs under two or three functions
    groups: list[tuple[bytes, ...]] = [(CHUNK_KEY, own), (bytes([Kind.PAGE]),), (bytes([Kind.TREE]),)]
    groups += [(bytes([Kind.BLOB]) + code,) for code in foreign]
    streams = [_by_id(catalog, scans, prefixes) for prefixes in groups]
    return (difference for stream in streams for difference in _differences(stream, known))


def _first_bytes(catalog: Catalog, family: Family) -> Iterator[bytes]:
    start = b""
    while (row := next(catalog.scan(family, start), None)) is not None:
        yield row[0]
        if row[0][0] == 255:
            return
        start = bytes([row[0][0] + 1])


def _by_id(catalog: Catalog, scans: ExitStack, prefixes: Iterable[bytes]) -> Iterator[tuple[bytes, str, bytes]]:
    """Yield `(id, what, object key)` in order of the ids, from the rows that say something of objects of some kinds."""
    sources: list[Iterator[tuple[bytes, str, bytes]]] = []
    for prefix in prefixes:
        end = prefix[:-1] + bytes([prefix[-1] + 1])
        family, start = row_of_object(prefix)
        stop = row_of_object(end)[1] if len(prefix) > 1 else None
        sources += [
            _tagged(_kept(catalog, scans, Family.REF, prefix, end), b"", lambda _: "counted"),
            _tagged(_kept(catalog, scans, Family.DOOMED, prefix, end), b"", lambda _: "doomed"),
            _tagged(_kept(catalog, scans, family, start, stop), prefix[:1], _state_of(family)),
        ]
    return merge(*sources)


def _state_of(family: Family) -> Callable[[bytes], str]:
    return lambda value: "dead" if is_dead_chunk(family, value) else "there"


def _tagged(
    rows: Iterator[tuple[bytes, bytes]], prefix: bytes, what_of: Callable[[bytes], str]
) -> Iterator[tuple[bytes, str, bytes]]:
    for key, value in rows:
        object_key = prefix + key
        yield id_of(object_key), what_of(value), object_key


def _differences(
    stream: Iterator[tuple[bytes, str, bytes]], known: Callable[[bytes], bool]
) -> Iterator[Difference | None]:
    for _, rows in groupby(stream, key=lambda row: row[0]):
        seen: dict[str, list[bytes]] = {"counted": [], "doomed": [], "there": [], "dead": []}
        for _, what, key in rows:
            seen[what].append(key)
        if seen["counted"] and not seen["there"]:
            # What knows a content by its digest refers to it as a chunk and as a blob: one of them is enough.
            yield Difference(Fault.GONE, seen["counted"][0])
        for key in seen["there"]:
            if key not in seen["counted"] and key not in seen["doomed"] and not known(key):
                yield Difference(Fault.UNKNOWN, key)
        yield None


def _kept(
    catalog: Catalog, scans: ExitStack, family: Family, start: bytes = b"", end: bytes | None = None
) -> Iterator[tuple[bytes, bytes]]:
    """Begin a scan that ends with `scans` at the latest."""
    scan = catalog.scan(family, start, end)
    if isinstance(scan, Generator):
        scans.callback(scan.close)
    return scan


def compare_exactly(catalog: Catalog, function: str, newborn: Iterable[bytes] = ()) -> list[Difference]:
    """Return what is wrong with the counts of a vault that nobody changes; blocks, 150 bytes an object.

    `newborn` is what is known as unwanted in memory only; after a stop without order, nothing is.
    """
    referring: dict[bytes, int] = {}
    for family in REFERRING:
        for row_key, value in catalog.scan(family):
            for key in references_of(family, row_key, value, function):
                referring[key] = referring.get(key, 0) + 1
    counted = {key: decode_count(value) for key, value in catalog.scan(Family.REF)}
    found = _count_differences(referring, counted)
    wanted = _marked(catalog, function, _referred_by(catalog, function, ROOTS))
    unwanted = {*newborn, *(key for key, _ in catalog.scan(Family.DOOMED))}
    leaving = _marked(catalog, function, {*unwanted, *_referred_by(catalog, function, (Family.DOOMED,))})
    found += [Difference(Fault.GONE, key) for key in wanted if not _is_there(catalog, key, function)]
    if search_expected(catalog):
        return sorted(found)
    there = {
        object_of_row(family, row_key): None
        for family in OBJECTS
        for row_key, value in catalog.scan(family)
        if not is_dead_chunk(family, value)
    }
    for each in there:
        if each is None or each in wanted or each in leaving:
            continue
        found.append(Difference(Fault.UNREACHABLE if each in referring else Fault.UNKNOWN, each))
    return sorted(found)


def _referred_by(catalog: Catalog, function: str, families: Iterable[Family]) -> set[bytes]:
    return {
        key
        for family in families
        for row_key, value in catalog.scan(family)
        for key in references_of(family, row_key, value, function)
    }


def _marked(catalog: Catalog, function: str, keys: Iterable[bytes]) -> set[bytes]:
    """Return these objects and everything that they lead to."""
    marked: set[bytes] = set()
    waiting = list(keys)
    while waiting:
        key = waiting.pop()
        if key in marked:
            continue
        marked.add(key)
        for family, row_key, value in _rows_of(catalog, key):
            waiting += references_of(family, row_key, value, function)
    return marked


def _rows_of(catalog: Catalog, key: bytes) -> Iterator[tuple[Family, bytes, bytes]]:
    family, row_key = row_of_object(key)
    value = catalog.get(family, row_key)
    if value is not None:
        yield family, row_key, value
    if key[0] == Kind.TREE:
        for page_key, page in catalog.scan(Family.TREEPAGE, row_key + bytes(4), row_key + b"\xff" * 5):
            yield Family.TREEPAGE, page_key, page


def _is_there(catalog: Catalog, key: bytes, function: str) -> bool:
    """Whether an object, or the content that it stands for by its digest, is there."""
    own = blob_key_prefix(function)
    alike = {key}
    if key[0] == Kind.CHUNK or key.startswith(own):
        alike = {CHUNK_KEY + id_of(key), own + id_of(key)}
    rows = {each: catalog.get(*row_of_object(each)) for each in alike}
    return any(row is not None and not is_dead_chunk(row_of_object(each)[0], row) for each, row in rows.items())
