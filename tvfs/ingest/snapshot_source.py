"""Read a snapshot from anywhere that can answer for rows and chunks: the owner's socket, or a test's memory.

Everything is verified: chunks by their hash, manifests by their sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tvfs.catalog.catalog import Family
from tvfs.content.manifest import Manifest
from tvfs.content.reference import Content, ContentKind
from tvfs.content.tree_index import (
    IndexEntry,
    TreeIndexRoot,
    check_child,
    check_page,
    decode_page,
    decode_root,
    page_key,
)
from tvfs.digest import HOLE, ChunkId, Digest, function_code
from tvfs.errors import TaskVaultError
from tvfs.plugin_api import HashFunction

ReadRows = Callable[[Sequence[tuple[str, bytes]]], list[bytes | None]]
"""Answers `(family, key)` rows of families `blob`, `page`, `tree` and `treepage`, in order."""
ReadChunks = Callable[[Sequence[ChunkId]], list[bytes]]
"""Answers the raw bytes of chunks, in order; raises for one that it does not have."""

WINDOW_BYTES = 4 << 20
"""About how many bytes are asked for at a time."""
PAGES_AT_ONCE = 16
MAX_BLOB_BYTES = 4 << 30
"""What is taken into memory whole: output of a command, at most; a digest may tell any size."""


class ContentDamaged(TaskVaultError):
    """What came for a content is not that content."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"The content {name} is damaged ({reason}); save it again.")
        self.name = name


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of bytes of a content; a hole has no chunk."""

    raw_bytes: int
    chunk_id: ChunkId | None


class SnapshotSource:
    """Reads trees and contents.  Used by one thread."""

    def __init__(self, read_rows: ReadRows, read_chunks: ReadChunks, hash_function: HashFunction) -> None:
        self._read_rows = read_rows
        self._read_chunks = read_chunks
        self._hash_function = hash_function

    def root(self, index: bytes) -> TreeIndexRoot:
        """Return what a directory is; raise `TreeIndexMissing`."""
        return decode_root(index, self._read_rows([(Family.TREE.value, index)])[0])

    def entries(self, index: bytes, root: TreeIndexRoot) -> Iterator[IndexEntry]:
        """Yield the entries of a directory in order of their names; raise `TreeIndexMissing`.

        What comes is what the root tells of: no name leads elsewhere, and whoever goes down comes to an end.
        """
        pages = len(root.page_names)
        for start in range(0, pages, PAGES_AT_ONCE):
            numbers = range(start, min(start + PAGES_AT_ONCE, pages))
            values = self._read_rows([(Family.TREEPAGE.value, page_key(index, number)) for number in numbers])
            for number, value in zip(numbers, values, strict=True):
                page = decode_page(index, number, value)
                check_page(index, root, number, page)
                yield from page

    def child_root(self, entry: IndexEntry) -> TreeIndexRoot:
        """Return what a subdirectory is, checked against what its parent says; raise `TreeIndexMissing`."""
        root = self.root(entry.child)
        check_child(entry, root)
        return root

    def lookup(self, index: bytes, path: bytes) -> IndexEntry | None:
        """Return the entry at a path below a directory, or None."""
        entry: IndexEntry | None = None
        for name in path.split(b"/"):
            if entry is not None:
                if not entry.child:
                    return None
                index = entry.child
            entry = self._entry(index, name)
            if entry is None:
                return None
        return entry

    def blob(self, digest: Digest) -> bytes:
        """Return a whole content that is known by its digest under the vault's function; raise `ContentDamaged`."""
        if not digest.size:
            return b""
        if digest.size > MAX_BLOB_BYTES:
            raise ContentDamaged(digest.hex, f"{digest.size} bytes are too many to be taken into memory")
        content = bytearray(digest.size)  # what nothing is written to is a hole
        for offset, raw in self.read(self._content_of(digest)):
            content[offset : offset + len(raw)] = raw
        return bytes(content)

    def pieces(self, content: Content) -> list[Piece]:
        """Return what a content consists of, in order; raise `ContentDamaged`."""
        if content.kind is ContentKind.EMPTY:
            return []
        if content.kind is ContentKind.CHUNK:
            return [Piece(content.size, ChunkId(content.hash))]
        root = self._manifest(content)
        pages = [root]
        if root.level:
            values = self._read_rows([(Family.PAGE.value, page_hash) for page_hash in root.hashes()])
            pages = [Manifest(self._checked(value, content)) for value in values]
        pieces = [
            Piece(raw_bytes, None if chunk_id == HOLE else ChunkId(chunk_id))
            for page in pages
            for raw_bytes, chunk_id in page.items()
        ]
        if sum(piece.raw_bytes for piece in pieces) != content.size:
            raise ContentDamaged(content.hash.hex(), "its chunks do not add up to its size")
        return pieces

    def read(self, content: Content) -> Iterator[tuple[int, bytes]]:
        """Yield `(offset, bytes)` in order; holes are left out."""
        offset = 0
        window: list[tuple[int, Piece]] = []
        window_bytes = 0
        for piece in self.pieces(content):
            if piece.chunk_id is not None:
                window.append((offset, piece))
                window_bytes += piece.raw_bytes
            offset += piece.raw_bytes
            if window_bytes >= WINDOW_BYTES:
                yield from self._read_window(window)
                window, window_bytes = [], 0
        yield from self._read_window(window)

    def chunks(self, chunk_ids: Sequence[ChunkId]) -> list[bytes]:
        """Return verified chunks in order; raise `ContentDamaged`."""
        chunks = self._read_chunks(chunk_ids)
        digest = self._hash_function.digest
        for chunk_id, raw in zip(chunk_ids, chunks, strict=True):
            if digest(raw) != chunk_id:
                raise ContentDamaged(chunk_id.hex(), "its bytes do not have its hash")
        return chunks

    def _read_window(self, window: list[tuple[int, Piece]]) -> Iterator[tuple[int, bytes]]:
        if not window:
            return
        chunks = self.chunks([piece.chunk_id for _, piece in window if piece.chunk_id is not None])
        for (offset, piece), raw in zip(window, chunks, strict=True):
            if len(raw) != piece.raw_bytes:
                raise ContentDamaged(str(piece.chunk_id), "it has another length than its manifest says")
            yield offset, raw

    def _entry(self, index: bytes, name: bytes) -> IndexEntry | None:
        for entry in self.entries(index, self.root(index)):
            if entry.name == name:
                return entry
        return None

    def _content_of(self, digest: Digest) -> Content:
        if self._read_rows([(Family.BLOB.value, _blob_key(digest.function, digest.hash))])[0] is None:
            return Content(ContentKind.CHUNK, digest.hash, digest.size)
        return Content(ContentKind.MANIFEST, digest.hash, digest.size)

    def _manifest(self, content: Content) -> Manifest:
        key = _blob_key(self._hash_function.name, content.hash)
        return Manifest(self._checked(self._read_rows([(Family.BLOB.value, key)])[0], content))

    def _checked(self, value: bytes | None, content: Content) -> bytes:
        if value is None:
            raise ContentDamaged(content.hash.hex(), "its manifest is gone")
        return value


def _blob_key(function: str, hash_: bytes) -> bytes:
    return bytes([function_code(function)]) + hash_
