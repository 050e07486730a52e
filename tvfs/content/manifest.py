"""Manifests: which chunks make up a content, in an encoding that is searched without being unpacked.

The layout is in docs/design/on-disk-format.md §5.  A manifest of many items is a root over pages whose boundaries
depend on the chunk ids, so that two versions of a file share the pages of what did not change.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from tvfs.digest import HOLE, ChunkId
from tvfs.errors import FormatTooNew, TaskVaultError

VERSION = 1
MAX_ITEMS_UNPAGED = 1024
"""A manifest of more items than this is a root over pages."""
PAGE_MIN_ITEMS = 64
PAGE_MAX_ITEMS = 1024
MAX_HOLE_BYTES = (1 << 32) - 1
"""Longest hole that one item can tell; a longer one takes several."""

_HEADER = struct.Struct(">BBxxIQ")
_EXTENT = struct.Struct(">I32s")
_PAGE = struct.Struct(">Q32s")


class ManifestInvalid(TaskVaultError):
    """A stored manifest does not say what a manifest says."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"A manifest cannot be used: {reason}; save what it belongs to again.")


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of bytes of a content: one chunk, or a hole."""

    offset: int
    """Of its first byte in the content."""
    raw_bytes: int
    chunk_id: ChunkId
    """`HOLE` for zeros that are not stored."""

    @property
    def end(self) -> int:
        """Offset of the first byte after it."""
        return self.offset + self.raw_bytes


@dataclass(frozen=True, slots=True)
class BuiltManifest:
    """What is to be stored for one content."""

    root: bytes
    """For family `blob`."""
    pages: list[tuple[bytes, bytes]]
    """`(page hash, encoded page)` for family `page`; empty when the manifest is not paged."""
    size: int


class ManifestBuilder:
    """Takes the extents of one content in order; full pages are encoded as they fill, so that memory stays small."""

    def __init__(self, hash_of: Callable[[bytes], bytes]) -> None:
        """`hash_of` is the vault's hash function: it names the pages."""
        self._hash_of = hash_of
        self._items: list[tuple[int, bytes]] = []
        self._pages: list[tuple[bytes, bytes]] = []
        self._covered: list[tuple[int, bytes]] = []

    def add(self, raw_bytes: int, chunk_id: bytes) -> None:
        """Append one chunk, or a hole if the id is `HOLE`; a hole that follows a hole extends it."""
        if chunk_id == HOLE and self._items and self._items[-1][1] == HOLE:
            raw_bytes += self._items.pop()[0]
        while raw_bytes > MAX_HOLE_BYTES:
            self._items.append((MAX_HOLE_BYTES, HOLE))
            raw_bytes -= MAX_HOLE_BYTES
        self._items.append((raw_bytes, chunk_id))
        if len(self._items) > MAX_ITEMS_UNPAGED + PAGE_MAX_ITEMS:
            self._end_pages(keep=PAGE_MAX_ITEMS)

    def only_chunk(self) -> bytes | None:
        """The id, if the content is one chunk and so needs no manifest; or None."""
        one = len(self._items) == 1 and not self._pages and self._items[0][1] != HOLE
        return self._items[0][1] if one else None

    def finish(self) -> BuiltManifest:
        """Return what is to be stored; nothing may be added afterwards."""
        if not self._pages and len(self._items) <= MAX_ITEMS_UNPAGED:
            size = sum(raw_bytes for raw_bytes, _ in self._items)
            return BuiltManifest(_encode(0, self._items, size, _EXTENT), [], size)
        self._end_pages(keep=0)
        size = sum(covered for covered, _ in self._covered)
        return BuiltManifest(_encode(1, self._covered, size, _PAGE), self._pages, size)

    def _end_pages(self, keep: int) -> None:
        start = 0
        while len(self._items) - start > keep:
            end = _page_end(self._items, start)
            self._end_page(self._items[start:end])
            start = end
        del self._items[:start]

    def _end_page(self, items: Sequence[tuple[int, bytes]]) -> None:
        size = sum(raw_bytes for raw_bytes, _ in items)
        page = _encode(0, items, size, _EXTENT)
        page_hash = self._hash_of(page)
        self._pages.append((page_hash, page))
        self._covered.append((size, page_hash))


def build_manifest(items: Sequence[tuple[int, bytes]], hash_of: Callable[[bytes], bytes]) -> BuiltManifest:
    """Encode `(raw_bytes, chunk id or HOLE)` items; `hash_of` is the vault's hash function."""
    builder = ManifestBuilder(hash_of)
    for raw_bytes, chunk_id in items:
        builder.add(raw_bytes, chunk_id)
    return builder.finish()


def _page_end(items: Sequence[tuple[int, bytes]], start: int) -> int:
    last = min(start + PAGE_MAX_ITEMS, len(items))
    for position in range(start + PAGE_MIN_ITEMS, last + 1):
        # A hole ends in a zero byte too; as a boundary it is as good as any: it depends on the content alone.
        if items[position - 1][1][-1] == 0:
            return position
    return last


def _encode(level: int, items: Sequence[tuple[int, bytes]], size: int, item: struct.Struct) -> bytes:
    encoded = bytearray(_HEADER.pack(VERSION, level, len(items), size))
    pack = item.pack
    for length, hash_ in items:
        encoded += pack(length, hash_)
    return bytes(encoded)


class Manifest:
    """One decoded root or page.  Items stay encoded; only the table of their offsets is made, when first asked for."""

    __slots__ = ("_encoded", "_item", "_starts", "count", "level", "size")

    def __init__(self, encoded: bytes) -> None:
        """Check the frame; raise `ManifestInvalid`."""
        if len(encoded) < _HEADER.size:
            raise ManifestInvalid("it is shorter than its header")
        version, self.level, self.count, self.size = _HEADER.unpack_from(encoded)
        if version > VERSION:
            raise FormatTooNew("A manifest", version, VERSION)
        if self.level not in (0, 1):
            raise ManifestInvalid(f"its level is {self.level}")
        self._item = _PAGE if self.level else _EXTENT
        if len(encoded) != _HEADER.size + self.count * self._item.size:
            raise ManifestInvalid("its length does not match its count of items")
        self._encoded = encoded
        self._starts: list[int] | None = None

    def items(self) -> Iterator[tuple[int, bytes]]:
        """Yield `(bytes covered, chunk id, HOLE or page hash)` in order."""
        return self._item.iter_unpack(memoryview(self._encoded)[_HEADER.size :])

    def hashes(self) -> list[bytes]:
        """Every chunk id (holes left out) at level 0, every page hash at level 1."""
        return [hash_ for _, hash_ in self.items() if hash_ != HOLE]

    def covering(self, offset: int, length: int) -> list[Extent]:
        """Return the items that overlap `[offset, offset + length)`, in order; at level 1 the ids are page hashes."""
        end = min(offset + length, self.size)
        if offset >= end:
            return []
        starts = self._offsets()
        position = bisect_right(starts, offset, 0, self.count) - 1
        found = []
        while position < self.count and starts[position] < end:
            raw_bytes, hash_ = self._item.unpack_from(self._encoded, _HEADER.size + position * self._item.size)
            found.append(Extent(starts[position], raw_bytes, ChunkId(hash_)))
            position += 1
        return found

    def _offsets(self) -> list[int]:
        if self._starts is None:
            starts = list(accumulate((length for length, _ in self.items()), initial=0))
            if starts[-1] != self.size:
                raise ManifestInvalid("its items do not add up to its size")
            # Assigned last: another thread sees either nothing or the whole table.
            self._starts = starts
        return self._starts


def extents_covering(root: Manifest, offset: int, length: int, page_of: Callable[[bytes], Manifest]) -> list[Extent]:
    """Return the extents that overlap `[offset, offset + length)`, opening only the pages that do."""
    if root.level == 0:
        return root.covering(offset, length)
    found: list[Extent] = []
    for part in root.covering(offset, length):
        page = page_of(part.chunk_id)
        if page.level != 0 or page.size != part.raw_bytes:
            raise ManifestInvalid("a page covers other bytes than its root says")
        start = max(offset - part.offset, 0)
        end = min(offset + length - part.offset, page.size)
        found += [
            Extent(part.offset + extent.offset, extent.raw_bytes, extent.chunk_id)
            for extent in page.covering(start, end - start)
        ]
    return found
