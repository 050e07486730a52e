"""Read contents out of a vault: ranges of bytes, whatever they are stored as.

`read_nowait` answers at once where that is possible; whoever serves a kernel asks it first and awaits `read` only if it
has no answer.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from tvfs.catalog.catalog import Catalog, Family
from tvfs.chunks.chunk_row import ChunkState, decode_chunk_row
from tvfs.chunks.store import ChunkStore
from tvfs.content.manifest import Extent, Manifest, ManifestInvalid, extents_covering
from tvfs.content.reference import EMPTY, Content, ContentKind
from tvfs.digest import FUNCTION_CODES, HOLE, ChunkId, Digest, function_code
from tvfs.errors import TaskVaultError
from tvfs.plugin_api import HashFunction

PIECE_BYTES = 1 << 20
"""What is fetched ahead by one thread at a time: the kernel asks for as much."""
PIECES_AHEAD = 4
"""How far ahead of a steady reader is fetched; a reader that just began has one piece fetched for each of its reads."""
INLINE_BYTES = 256 << 10
INLINE_EXTENTS = 2
"""More than this is decoded in a thread, so that other requests and the second processor are not kept waiting."""
KEPT_MANIFESTS = 64
"""Decoded roots and pages: at most about 72 KiB each, with the table of offsets."""


class ContentMissing(TaskVaultError):
    """The vault refers to a content whose manifest it does not have."""

    def __init__(self, content: Content) -> None:
        super().__init__(
            f"The manifest of the content {content.hash.hex()} is gone; what refers to it must be made again."
        )
        self.content = content


@dataclass(slots=True)
class ReadHint:
    """What one open file's reads so far tell about the next one; kept by whoever keeps the file open."""

    next_offset: int = 0
    sequential: int = 0
    """How many reads in a row began where the one before had ended."""
    fetched_to: int = 0
    """Offset up to which chunks were asked for ahead."""
    extents: list[Extent] = field(default_factory=list)
    """Those that the last read touched: a reader of small pieces stays in them for long."""
    of: Content | None = None


class ContentReader:
    """Called from one trio thread; contents never change, so nothing kept here can be out of date."""

    def __init__(
        self,
        catalog: Catalog,
        chunks: ChunkStore,
        hash_function: HashFunction,
    ) -> None:
        """Nothing is fetched ahead until `fetch_ahead` runs."""
        self._catalog = catalog
        self._chunks = chunks
        self._function = hash_function.name
        self._empty_hash = hash_function.digest(b"")
        self._nursery: trio.Nursery | None = None
        self._manifests: OrderedDict[bytes, Manifest] = OrderedDict()

    async def read(self, content: Content, offset: int, length: int, hint: ReadHint | None = None) -> bytes:
        """Return the bytes at `[offset, offset + length)`, fewer only where the content ends.

        Raises `ContentMissing`, `ManifestInvalid`, `ChunkMissing` or `ChunkDamaged`.
        """
        extents = self._extents(content, offset, length, hint)
        end = min(offset + length, content.size)
        self._note(content, offset, end, hint)
        wanted = _chunks_of(extents)
        chunks = dict(zip(wanted, await self._chunks.get_many(wanted), strict=True)) if wanted else {}
        if not wanted:
            await trio.lowlevel.checkpoint()
        return _assemble(extents, chunks, offset, end)

    def read_nowait(self, content: Content, offset: int, length: int, hint: ReadHint | None = None) -> bytes | None:
        """Return the same if all of it can be had at once, else None; raise as `read` does, but not for all damage."""
        extents = self._extents(content, offset, length, hint)
        # Much is answered at once only if nothing has to be decoded for it: it was fetched ahead.
        large = len(extents) > INLINE_EXTENTS or min(length, content.size) > INLINE_BYTES
        find = self._chunks.get_kept if large else self._chunks.get_nowait
        chunks: dict[ChunkId, bytes] = {}
        for extent in extents:
            chunk_id = extent.chunk_id
            if chunk_id == HOLE or chunk_id in chunks:
                continue
            chunk = find(chunk_id)
            if chunk is None:
                return None
            chunks[chunk_id] = chunk
        end = min(offset + length, content.size)
        self._note(content, offset, end, hint)
        return _assemble(extents, chunks, offset, end)

    async def fetch_ahead(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Have the next chunks fetched for whoever reads in sequence; until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def fetch(self, content: Content) -> None:
        """Have the first piece of a content fetched, if `fetch_ahead` runs: it will probably be read."""
        if self._nursery is not None:
            self._nursery.start_soon(self._prefetch, content, 0, PIECE_BYTES)

    def content_of(self, digest: Digest) -> Content | None:
        """Return where the content with this digest, under any function, is; None if the vault does not have it."""
        if not digest.size:
            return EMPTY
        if digest.function not in {self._function, *FUNCTION_CODES}:
            return None
        row = self._catalog.get(Family.BLOB, _blob_key(digest.function, digest.hash))
        if row is not None:
            manifest = Manifest(row)
            return Content(ContentKind.MANIFEST, digest.hash, digest.size) if manifest.size == digest.size else None
        if digest.function != self._function:
            return None
        row = self._catalog.get(Family.CHUNK, digest.hash)
        if row is None:
            return None
        chunk = decode_chunk_row(row)
        if chunk.state is not ChunkState.LIVE or chunk.location.raw_bytes != digest.size:
            return None
        return Content(ContentKind.CHUNK, digest.hash, digest.size)

    def digest_of(self, content: Content) -> Digest:
        """Return the digest of a content under the vault's own function."""
        hash_ = self._empty_hash if content.kind is ContentKind.EMPTY else content.hash
        return Digest(self._function, hash_, content.size)

    def extents(self, content: Content, offset: int = 0, length: int | None = None) -> list[Extent]:
        """Return the chunks and holes that cover a range, or all of the content; raise as `read` does."""
        return self._extents(content, offset, content.size if length is None else length, None)

    def _extents(self, content: Content, offset: int, length: int, hint: ReadHint | None) -> list[Extent]:
        if length <= 0 or offset >= content.size:
            return []
        if content.kind is ContentKind.CHUNK:
            return [Extent(0, content.size, ChunkId(content.hash))]
        if hint is not None and hint.of == content:
            extents = hint.extents
            if extents and extents[0].offset <= offset and min(offset + length, content.size) <= extents[-1].end:
                return [extent for extent in extents if extent.offset < offset + length and extent.end > offset]
        extents = extents_covering(self._root(content), offset, length, self._page)
        if hint is not None:
            hint.of, hint.extents = content, extents
        return extents

    def _root(self, content: Content) -> Manifest:
        kept = self._manifests.get(content.hash)
        if kept is None:
            # A content known by a foreign digest only has its manifest under that function; hashes do not collide.
            codes = [function_code(self._function), *FUNCTION_CODES.values()]
            rows = (self._catalog.get(Family.BLOB, bytes([code]) + content.hash) for code in codes)
            row = next((row for row in rows if row is not None), None)
            if row is None:
                raise ContentMissing(content)
            kept = self._keep(content.hash, Manifest(row))
        else:
            self._manifests.move_to_end(content.hash)
        if kept.size != content.size:
            raise ManifestInvalid("it is of another size than what refers to it says")
        return kept

    def _page(self, page_hash: bytes) -> Manifest:
        kept = self._manifests.get(page_hash)
        if kept is not None:
            self._manifests.move_to_end(page_hash)
            return kept
        row = self._catalog.get(Family.PAGE, page_hash)
        if row is None:
            raise ManifestInvalid(f"its page {page_hash.hex()} is gone")
        return self._keep(page_hash, Manifest(row))

    def _keep(self, key: bytes, manifest: Manifest) -> Manifest:
        self._manifests[key] = manifest
        if len(self._manifests) > KEPT_MANIFESTS:
            self._manifests.popitem(last=False)
        return manifest

    def _note(self, content: Content, offset: int, end: int, hint: ReadHint | None) -> None:
        """Remember what a read asks for, and fetch ahead of one that goes on and on."""
        if hint is None or content.kind is not ContentKind.MANIFEST:
            return
        if offset == hint.next_offset:
            hint.sequential += 1
        else:
            hint.sequential = hint.fetched_to = 0
        hint.next_offset = end
        if self._nursery is None or not hint.sequential:
            return
        # Claimed before it is fetched, so that a piece is asked for once; coalescing lets a reader wait for it.
        stop = min(end + PIECE_BYTES * min(hint.sequential, PIECES_AHEAD), content.size)
        start = max(end, hint.fetched_to)
        while stop - start >= PIECE_BYTES or start < stop == content.size:
            piece_end = min(start + PIECE_BYTES, stop)
            self._nursery.start_soon(self._prefetch, content, start, piece_end - start)
            hint.fetched_to = start = piece_end

    async def _prefetch(self, content: Content, offset: int, length: int) -> None:
        # Best effort: whoever reads the chunk will meet the same error, and is the one to be told.
        with suppress(TaskVaultError, OSError):
            await self._chunks.get_many(_chunks_of(self._extents(content, offset, length, None)))


def _chunks_of(extents: list[Extent]) -> list[ChunkId]:
    return list(dict.fromkeys(extent.chunk_id for extent in extents if extent.chunk_id != HOLE))


def _assemble(extents: list[Extent], chunks: dict[ChunkId, bytes], start: int, end: int) -> bytes:
    parts: list[bytes | memoryview] = []
    for extent in extents:
        first = max(start, extent.offset) - extent.offset
        last = min(end, extent.end) - extent.offset
        if extent.chunk_id == HOLE:
            parts.append(bytes(last - first))
            continue
        chunk = chunks[extent.chunk_id]
        if len(chunk) != extent.raw_bytes:
            raise ManifestInvalid(f"chunk {extent.chunk_id.hex()} has another length than it says")
        if len(extents) == 1:
            return chunk if last - first == len(chunk) else chunk[first:last]
        parts.append(memoryview(chunk)[first:last])
    return b"".join(parts)


def _blob_key(function: str, hash_: bytes) -> bytes:
    return bytes([function_code(function)]) + hash_
