"""What a commit must say to be taken: pure checks, and the questions it leaves for the catalog."""

from __future__ import annotations

from collections.abc import Container, Iterator

from tvfs.catalog.catalog import Family
from tvfs.content.manifest import MAX_ITEMS_UNPAGED, Manifest, ManifestInvalid
from tvfs.content.msgpack_shape import TooManyObjects, check_shape
from tvfs.content.reference import ContentKind
from tvfs.content.tree_index import (
    MAX_SIZE,
    IndexEntry,
    TreeIndexMissing,
    TreeIndexRoot,
    decode_page,
    decode_root,
    tree_index_id,
)
from tvfs.digest import FUNCTION_CODES, HASH_BYTES, HOLE, function_code
from tvfs.errors import TaskVaultError
from tvfs.ingest.commit import BlobRecord, ChunkRecord, IngestCommit, RowRecord
from tvfs.packs.location import Location
from tvfs.packs.record import MAX_CHUNK_BYTES, PACK_HEADER_BYTES, RECORD_HEADER_BYTES
from tvfs.plugin_api import HashFunction

_KEY_BYTES = {Family.PAGE: HASH_BYTES, Family.TREE: HASH_BYTES, Family.TREEPAGE: HASH_BYTES + 4}
"""Families that a commit may write rows to, and how long their keys are."""


UNCOUNTED_ROW_BYTES = 256 << 10
"""A longer row of a tree index is counted before it is decoded; a usual page has 40 KiB."""
_MOST_OBJECTS = {Family.TREE: 300_000, Family.TREEPAGE: 100_000}
"""In one row: a directory of the most entries has 131,072 names and numbers of pages; a page a few thousand values."""


class CommitRejected(TaskVaultError):
    """A commit says something that cannot be true; nothing of it was taken."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The commit was refused and nothing was stored: {reason}; update the program that sent it.")
        self.reason = reason


class DecodedCommit:
    """A commit whose shape was checked; whether manifests add up is for `chunks_of` and `pages_of`, page by page."""

    def __init__(self, commit: IngestCommit, own_function: str) -> None:
        """`own_function` names the vault's hash.  Raise `CommitRejected`; rows count only after `check_row`."""
        self._commit = commit
        self.records = {record.chunk_id: record for record in reversed(commit.chunks)}
        """By chunk id; of two for the same chunk the first counts."""
        self.all_records = commit.chunks
        self.pages: dict[bytes, Manifest] = {}
        for row in commit.rows:
            if len(row.key) != _KEY_BYTES.get(row.family, -1):  # type: ignore[call-overload]
                raise CommitRejected(f"a row of family {row.family!r} with a key of {len(row.key)} bytes")
        self.roots = [_check_blob(blob, own_function) for blob in commit.blobs]
        for chunk_id in commit.uses:
            _check_chunk_id(chunk_id)
        self.uses = commit.uses
        self.blob_keys = {bytes([function_code(blob.function)]) + blob.hash for blob in commit.blobs}
        """In family `blob`."""
        self.tree_roots: dict[bytes, TreeIndexRoot] = {}
        self.tree_pages: set[bytes] = set()
        """Keys in family `treepage`; what the pages refer to is in the next three."""
        self.page_chunks: dict[bytes, int] = {}
        self.page_blobs: dict[bytes, None] = {}
        self.page_trees: dict[bytes, None] = {}

    def ids(self) -> Iterator[bytes]:
        """Yield the id of every object that rows of the commit are of; rows count only after `check_row`."""
        yield from self.records
        yield from self.pages
        yield from (blob.hash for blob in self._commit.blobs)
        yield from self.tree_roots
        yield from {key[:HASH_BYTES] for key in self.tree_pages}

    def check_row(self, row: RowRecord, hash_function: HashFunction) -> None:
        """Raise `CommitRejected` unless a row can be what its key says; up to 0.3 ms."""
        match row.family:
            case Family.PAGE:
                if hash_function.digest(row.value) != row.key:
                    raise CommitRejected(f"page {row.key.hex()} has another hash")
                self.pages[row.key] = decode_manifest(row.value, "a page", level=0)
            case Family.TREE:
                self.tree_roots[row.key] = _check_tree(row, hash_function)
            case Family.TREEPAGE:
                self._add_tree_page(row.key, _check_tree_page(row))

    def _add_tree_page(self, key: bytes, entries: list[IndexEntry]) -> None:
        self.tree_pages.add(key)
        for entry in entries:
            if entry.content_kind == ContentKind.CHUNK:
                if self.page_chunks.setdefault(entry.content_hash, entry.size) != entry.size:
                    raise CommitRejected(f"chunk {entry.content_hash.hex()} cannot have two lengths")
            elif entry.content_kind == ContentKind.MANIFEST:
                self.page_blobs[entry.content_hash] = None
            if entry.child:
                self.page_trees[entry.child] = None

    def rows_children_first(self) -> Iterator[tuple[Family, bytes, bytes]]:
        """Yield `(family, key, value)`, what is referred to before what refers."""
        rows = self._commit.rows
        yield from ((Family.PAGE, row.key, row.value) for row in rows if row.family == Family.PAGE)
        for blob in self._commit.blobs:
            yield Family.BLOB, bytes([function_code(blob.function)]) + blob.hash, blob.manifest
        trees = [row for row in rows if row.family in (Family.TREE, Family.TREEPAGE)]
        last_page = {row.key[:HASH_BYTES]: at for at, row in enumerate(trees) if row.family == Family.TREEPAGE}
        place = {id(row): max(at, last_page.get(row.key, at)) for at, row in enumerate(trees)}
        # In the order they came, subdirectories first, but each root behind its pages: where it is, all of the tree is.
        trees.sort(key=lambda row: (place[id(row)], row.family == Family.TREE))
        yield from ((Family(row.family), row.key, row.value) for row in trees)


def check_record(record: ChunkRecord, pack_bytes: int, codecs: Container[int]) -> None:
    """Raise `CommitRejected` unless the record can lie in a pack of this length."""
    _check_chunk_id(record.chunk_id)
    if not 0 < record.raw_bytes <= MAX_CHUNK_BYTES or not 0 <= record.stored_bytes <= MAX_CHUNK_BYTES:
        raise CommitRejected(f"chunk {record.chunk_id.hex()} cannot have {record.raw_bytes} bytes")
    if record.offset < PACK_HEADER_BYTES or record_end(record) > pack_bytes:
        raise CommitRejected(f"chunk {record.chunk_id.hex()} lies outside of pack {record.pack}")
    if record.codec not in codecs and record.codec != 0:
        raise CommitRejected(f"no installed compression plugin has the id {record.codec}")
    if record.codec == 0 and record.stored_bytes != record.raw_bytes:
        raise CommitRejected(f"chunk {record.chunk_id.hex()} is raw and has two lengths")


def record_end(record: ChunkRecord) -> int:
    """Return the offset of the first byte after the record."""
    return record.offset + RECORD_HEADER_BYTES + record.stored_bytes


def location_of(record: ChunkRecord) -> Location:
    """Return where the record says that its chunk lies."""
    return Location(record.pack, record.offset, record.stored_bytes, record.raw_bytes, record.codec)


def decode_manifest(encoded: bytes, what: str, *, level: int | None = None) -> Manifest:
    """Return a manifest; raise `CommitRejected`."""
    try:
        manifest = Manifest(encoded)
    except ManifestInvalid as exc:
        raise CommitRejected(f"{what} is no manifest ({exc})") from exc
    if level is not None and manifest.level != level:
        raise CommitRejected(f"{what} is a manifest of level {manifest.level}")
    if manifest.level == 0 and manifest.count > MAX_ITEMS_UNPAGED:
        raise CommitRejected(f"{what} has {manifest.count} items, and {MAX_ITEMS_UNPAGED} are allowed in one part")
    if manifest.size > MAX_SIZE:
        raise CommitRejected(f"{what} is that of {manifest.size} bytes")
    return manifest


def chunks_of(manifest: Manifest) -> list[tuple[bytes, int]]:
    """Return `(chunk id, raw_bytes)` of a manifest of level 0, without holes; raise `CommitRejected`."""
    return [(chunk_id, raw_bytes) for raw_bytes, chunk_id in _items(manifest) if chunk_id != HOLE]


def pages_of(manifest: Manifest) -> list[tuple[bytes, int]]:
    """Return `(page hash, bytes covered)` of a manifest of level 1; raise `CommitRejected`."""
    return [(page_hash, covered_bytes) for covered_bytes, page_hash in _items(manifest)]


def _items(manifest: Manifest) -> list[tuple[int, bytes]]:
    items = list(manifest.items())
    if not all(length for length, _ in items):
        raise CommitRejected("a manifest has an item of no bytes")
    if sum(length for length, _ in items) != manifest.size:
        raise CommitRejected(f"the items of a manifest do not add up to its {manifest.size} bytes")
    return items


def _check_chunk_id(chunk_id: bytes) -> None:
    if len(chunk_id) != HASH_BYTES or chunk_id == HOLE:
        raise CommitRejected(f"{chunk_id.hex()!r} is no chunk id")


def count_objects(row: RowRecord) -> None:
    """Raise `CommitRejected` for a long row of more values than such a row can have; a tenth of a second at most."""
    try:
        check_shape(row.value, _MOST_OBJECTS[Family(row.family)])
    except TooManyObjects as exc:
        raise CommitRejected(f"the row {row.key.hex()} of a tree index cannot be one ({exc.reason})") from exc


def _check_tree(row: RowRecord, hash_function: HashFunction) -> TreeIndexRoot:
    try:
        root = decode_root(row.key, row.value)
    except TreeIndexMissing as exc:
        raise CommitRejected(f"the row {row.key.hex()} is no root of a tree index") from exc
    if tree_index_id(hash_function.digest, root.tree_hash, root.attributes_hash or None) != row.key:
        raise CommitRejected(f"the tree index {row.key.hex()} is that of another tree")
    if root.function != hash_function.name:
        raise CommitRejected(f"the tree index {row.key.hex()} is of a tree under {root.function!r}")
    return root


def _check_tree_page(row: RowRecord) -> list[IndexEntry]:
    try:
        return decode_page(row.key[:HASH_BYTES], int.from_bytes(row.key[HASH_BYTES:], "big"), row.value)
    except TreeIndexMissing as exc:
        raise CommitRejected(f"the row {row.key.hex()} is no page of a tree index") from exc


def _check_blob(blob: BlobRecord, own_function: str) -> Manifest:
    if blob.function not in {own_function, *FUNCTION_CODES} or len(blob.hash) != HASH_BYTES:
        raise CommitRejected(f"a blob under {blob.function!r} with a hash of {len(blob.hash)} bytes")
    return decode_manifest(blob.manifest, f"the blob {blob.hash.hex()}")
