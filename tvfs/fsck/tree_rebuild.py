"""One tree index from Directory, attributes and the roots of its subdirectories; and the two former from an index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tvfs.catalog.catalog import Family
from tvfs.chunks.chunk_row import decode_chunk_row
from tvfs.content.attributes import (
    UNKNOWN,
    Attributes,
    AttributesInvalid,
    EntryAttributes,
    OwnAttributes,
    decode_attributes,
)
from tvfs.content.directory_message import TreeFile
from tvfs.content.reference import EMPTY, ContentKind
from tvfs.content.tree_builder import DEFAULT_DIRECTORY_MODE, BuiltDirectory, Subdirectory, TreeBuilder
from tvfs.content.tree_index import (
    DIRECTORY,
    REGULAR,
    SYMLINK,
    IndexEntry,
    TreeIndexMissing,
    TreeIndexReader,
    TreeIndexRoot,
    decode_root,
    tree_index_id,
)
from tvfs.content.trees import TreeInvalid, parse_directory
from tvfs.fsck.examination import Examination

MAX_OBJECT_BYTES = 256 << 20
"""A Directory or attributes object that is longer is not loaded; none is."""
_FILE_MODE, _EXECUTABLE_MODE, _LINK_MODE = 0o644, 0o755, 0o777
"""Of what came without attributes."""


@dataclass(frozen=True, slots=True)
class Pair:
    """What a tree index is made from."""

    tree_hash: bytes
    attributes_hash: bytes | None

    def index(self, exam: Examination) -> bytes:
        """Return the id of the index."""
        return tree_index_id(exam.hash_function.digest, self.tree_hash, self.attributes_hash)


class Unbuildable(Exception):
    """An index cannot be built from what is there; the text says what is missing."""


class ChildMissing(Exception):
    """An index cannot be built before that of a subdirectory is."""

    def __init__(self, pair: Pair) -> None:
        super().__init__(pair)
        self.pair = pair


def read_root(exam: Examination, index: bytes) -> TreeIndexRoot | None:
    """Return the root that is stored under an id, if it is that tree's."""
    row = exam.catalog.get(Family.TREE, index)
    if row is None:
        return None
    try:
        root = decode_root(index, row)
    except TreeIndexMissing:
        return None
    pair = Pair(root.tree_hash, root.attributes_hash or None)
    return root if pair.index(exam) == index and root.function == exam.hash_function.name else None


def read_entries(exam: Examination, index: bytes, root: TreeIndexRoot) -> list[IndexEntry] | None:
    """Return all entries of an index; None if a page is missing or contradicts the root."""
    reader = TreeIndexReader(exam.catalog.get, kept_roots=1, kept_pages=1)
    try:
        entries = [entry for _, entry in reader.iterate(index)]
    except (TreeIndexMissing, IndexError):
        return None
    return entries if len(entries) == root.entries else None


def build_index(exam: Examination, pair: Pair, kinds: Mapping[bytes, int]) -> BuiltDirectory:
    """Return everything that is stored of a directory; raise `Unbuildable` or `ChildMissing`.

    `kinds` says by name how the index that is there finds each file's content: where one chunk and a manifest are both
    that content, either is right.
    """
    encoded = exam.blob(pair.tree_hash, MAX_OBJECT_BYTES)
    if encoded is None:
        raise Unbuildable(f"its Directory {pair.tree_hash.hex()} is gone")
    try:
        listing = parse_directory(encoded)
    except TreeInvalid as exc:
        raise Unbuildable(f"its Directory is none: {exc.reason}") from exc
    attributes = _attributes(exam, pair.attributes_hash)
    rows = {} if attributes is None else {row.name: row for row in attributes.entries}
    entries = [_file(exam, file, kinds.get(file.name), rows.pop(file.name, None)) for file in listing.files]
    entries += [_symlink(link.name, link.target, rows.pop(link.name, None)) for link in listing.symlinks]
    entries += [_special(row) for row in rows.values()]
    hashes = {} if attributes is None else {each.name: each.hash or None for each in attributes.directories}
    directories = [
        (each.name, _subdirectory(exam, Pair(each.hash, hashes.get(each.name)))) for each in listing.directories
    ]
    own = OwnAttributes(DEFAULT_DIRECTORY_MODE) if attributes is None else attributes.own
    links = [] if attributes is None else attributes.hard_links
    return TreeBuilder(exam.hash_function, with_attributes=attributes is not None).build(
        own, entries, directories, links
    )


def build_objects(exam: Examination, root: TreeIndexRoot, entries: list[IndexEntry]) -> BuiltDirectory:
    """Return Directory and attributes as an index tells them; raise `Unbuildable` if they are others than it names."""
    directories = []
    for entry in entries:
        if entry.kind == DIRECTORY:
            child = read_root(exam, entry.child)
            if child is None:
                raise Unbuildable(f"the index {entry.child.hex()} of a subdirectory is gone")
            directories.append(
                (entry.name, Subdirectory(child.snapshot(entry.child), child.own, child.below, child.height))
            )
    built = TreeBuilder(exam.hash_function, with_attributes=bool(root.attributes_hash)).build(
        root.own, [entry for entry in entries if entry.kind != DIRECTORY], directories, root.hard_links
    )
    snapshot = built.directory.snapshot
    made = (snapshot.tree.hash, snapshot.attributes.hash if snapshot.attributes else b"")
    if made != (root.tree_hash, root.attributes_hash):
        raise Unbuildable("its index tells something else")
    return built


def _attributes(exam: Examination, hash_: bytes | None) -> Attributes | None:
    if hash_ is None:
        return None
    encoded = exam.blob(hash_, MAX_OBJECT_BYTES)
    if encoded is None:
        raise Unbuildable(f"its attributes {hash_.hex()} are gone")
    try:
        return decode_attributes(encoded)
    except AttributesInvalid as exc:
        raise Unbuildable(f"its attributes are none: {exc.reason}") from exc


def _file(exam: Examination, file: TreeFile, kind: int | None, row: EntryAttributes | None) -> IndexEntry:
    if not file.size:
        content_kind, content_hash = int(ContentKind.EMPTY), EMPTY.hash
    else:
        content_kind, content_hash = _content_kind(exam, file, kind), file.hash
    if row is None:
        mode = _EXECUTABLE_MODE if file.executable else _FILE_MODE
        row = EntryAttributes(file.name, REGULAR, mode, UNKNOWN, UNKNOWN, UNKNOWN)
    return IndexEntry(
        file.name, REGULAR, row.mode, row.uid, row.gid, row.mtime_ns, file.size, content_kind, content_hash,
        xattrs=row.xattrs,
    )  # fmt: skip


def _content_kind(exam: Examination, file: TreeFile, kind: int | None) -> int:
    chunk = exam.catalog.get(Family.CHUNK, file.hash)
    is_chunk = chunk is not None and decode_chunk_row(chunk).location.raw_bytes == file.size
    is_blob = exam.catalog.get(Family.BLOB, exam.blob_key(file.hash)) is not None
    if is_chunk == is_blob and kind in (ContentKind.CHUNK, ContentKind.MANIFEST):
        return kind
    return int(ContentKind.MANIFEST if is_blob else ContentKind.CHUNK)


def _symlink(name: bytes, target: bytes, row: EntryAttributes | None) -> IndexEntry:
    row = row or EntryAttributes(name, SYMLINK, _LINK_MODE, UNKNOWN, UNKNOWN, UNKNOWN)
    return IndexEntry(
        name, SYMLINK, row.mode, row.uid, row.gid, row.mtime_ns, len(target), target=target, xattrs=row.xattrs
    )


def _special(row: EntryAttributes) -> IndexEntry:
    return IndexEntry(row.name, row.kind, row.mode, row.uid, row.gid, row.mtime_ns, rdev=row.rdev, xattrs=row.xattrs)


def _subdirectory(exam: Examination, pair: Pair) -> Subdirectory:
    index = pair.index(exam)
    root = read_root(exam, index)
    if root is None:
        raise ChildMissing(pair)
    return Subdirectory(root.snapshot(index), root.own, root.below, root.height)
