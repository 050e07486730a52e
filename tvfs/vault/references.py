"""What keeps what: the one table that says which content a row refers to (docs/design/reclaim.md §1).

Pure, and total: a row that cannot be read refers to nothing, so that it can be removed like any other.  An object is
named by its key in family `ref`: kind (1 byte), for a blob the code of its hash function (1 byte), and its id.

A digest does not tell whether its content is one chunk or a blob with a manifest.  So what knows only a digest, the
root of a tree's index, refers to both; the one that is not there costs a row.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Callable
from enum import IntEnum

import msgspec

from tvfs.catalog.catalog import Family
from tvfs.content.reference import ContentKind
from tvfs.content.tree_index import PAGE_ENTRIES
from tvfs.digest import HASH_BYTES, HOLE, function_code


class Kind(IntEnum):
    """First byte of an object's key; stored."""

    CHUNK = 1
    BLOB = 2
    PAGE = 3
    TREE = 4


CHUNK_KEY = bytes([Kind.CHUNK])
PAGE_KEY = bytes([Kind.PAGE])
TREE_KEY = bytes([Kind.TREE])

REFERRING = frozenset(
    {
        Family.ENTRY, Family.RANGE, Family.INODE, Family.STAGING,
        Family.TREE, Family.TREEPAGE, Family.BLOB, Family.PAGE, Family.DOOMED,
    }
)  # fmt: skip
"""Families whose rows refer to objects."""

ROOTS = (Family.ENTRY, Family.RANGE, Family.INODE, Family.STAGING)
"""Families whose rows are wanted for their own sake."""

MANIFEST_HEADER = struct.Struct(">BBxxIQ")
"""Version, level, count, size: tvfs/content/manifest.py."""

_ZEROS = bytes(HASH_BYTES)
_ITEM_BYTES = (36, 40)
"""Of a manifest's item, by level; the hash is its end."""
_LEAST_ENTRY_BYTES = 48
"""Of an entry with a hash, in a page of a tree's index."""
_INODE_BYTES = 112
_INODE_HASH = slice(72, 104)


def references_of(family: Family, key: bytes, value: bytes, function: str) -> list[bytes]:
    """Return the keys of the objects that a row refers to; one that it refers to twice is there twice.

    `function` names the vault's own hash function.  1 to 3 µs; a page of 256 entries or of 1,024 chunks 100 µs.
    """
    refers = _TABLE.get(family)
    if refers is None:
        return []
    try:
        return refers(key, value, blob_key_prefix(function))
    except (msgspec.MsgspecError, ValueError, struct.error, IndexError):
        return []


def blob_key_prefix(function: str) -> bytes:
    """Return how the keys of blobs under a hash function begin."""
    return bytes([Kind.BLOB, function_code(function)])


def inode_reference(row: bytes, blob_prefix: bytes) -> bytes | None:
    """Return the key of the object that an inode row refers to, or None: 0.3 µs, for it is what is written most."""
    if len(row) < _INODE_BYTES:
        return None
    state = row[1]
    if state == 2:  # ContentState.CHUNK, .MANIFEST: tvfs/filesystem/inode.py
        return CHUNK_KEY + row[_INODE_HASH]
    if state == 3:
        return blob_prefix + row[_INODE_HASH]
    if row[6] & 0xF0 == stat.S_IFDIR >> 8 and row[_INODE_HASH] != _ZEROS:
        return TREE_KEY + row[_INODE_HASH]
    return None


def object_of_row(family: Family, key: bytes) -> bytes | None:
    """Return the key of the object that a row is stored in, or None for a row that is no part of one."""
    match family:
        case Family.CHUNK:
            return CHUNK_KEY + key
        case Family.BLOB:
            return bytes([Kind.BLOB]) + key
        case Family.PAGE:
            return PAGE_KEY + key
        case Family.TREE:
            return TREE_KEY + key
        case Family.TREEPAGE:
            return TREE_KEY + key[:HASH_BYTES]
    return None


def row_of_object(object_key: bytes) -> tuple[Family, bytes]:
    """Return family and key of the row that says that the object is there."""
    return _FAMILIES[object_key[0]], object_key[1:]


def id_of(object_key: bytes) -> bytes:
    """Return the 32 bytes that leases go by."""
    return object_key[-HASH_BYTES:]


def describe(object_key: bytes) -> str:
    """Name an object for people."""
    return f"{Kind(object_key[0]).name.lower()} {id_of(object_key).hex()}"


def manifest_references(encoded: bytes, start: int = 0) -> list[bytes]:
    """Return what the items of a manifest from number `start` on refer to; raise `ValueError` for no manifest."""
    if len(encoded) < MANIFEST_HEADER.size:
        return []
    _, level, count, _ = MANIFEST_HEADER.unpack_from(encoded)
    if level > 1 or len(encoded) != MANIFEST_HEADER.size + count * _ITEM_BYTES[level]:
        raise ValueError("no manifest")
    item_bytes = _ITEM_BYTES[level]
    first = MANIFEST_HEADER.size + start * item_bytes + item_bytes - HASH_BYTES
    hashes = [encoded[at : at + HASH_BYTES] for at in range(first, len(encoded), item_bytes)]
    return [PAGE_KEY + each for each in hashes] if level else [CHUNK_KEY + each for each in hashes if each != HOLE]


def manifest_count(encoded: bytes) -> int:
    """Return how many items a manifest has."""
    count: int = MANIFEST_HEADER.unpack_from(encoded)[2]
    return count


def most_references(family: Family, value: bytes) -> int:
    """Return about how many references a row has, at once: what it costs to write it, 5 µs each."""
    match family:
        case Family.BLOB | Family.PAGE:
            return manifest_count(value)
        case Family.TREEPAGE:
            return min(len(value) // _LEAST_ENTRY_BYTES, PAGE_ENTRIES)
    return 4


def first_items(encoded: bytes, count: int) -> bytes:
    """Return the first items of a manifest as a manifest, whose size is not kept: a rest for family `doomed`."""
    version, level, _, _ = MANIFEST_HEADER.unpack_from(encoded)
    body = encoded[MANIFEST_HEADER.size : MANIFEST_HEADER.size + count * _ITEM_BYTES[level]]
    return MANIFEST_HEADER.pack(version, level, count, 0) + body


def manifest_change(old: bytes, new: bytes) -> tuple[list[bytes], list[bytes]]:
    """Return what `new` refers to less and more than `old`, where one of the two begins like the other or is empty.

    Costs what the difference has, so that a manifest may be let go, or be built up, a few items a batch.
    """
    shorter, longer = (old, new) if len(old) < len(new) else (new, old)
    header = MANIFEST_HEADER.size
    if len(shorter) >= header and shorter[:2] == longer[:2] and longer.startswith(shorter[header:], header):
        tail = manifest_references(longer, manifest_count(shorter))
        return ([], tail) if longer is new else (tail, [])
    return _manifest(b"", old, b""), _manifest(b"", new, b"")


class _Snapshot(msgspec.Struct):
    index: bytes


class _Entry(msgspec.Struct):
    snapshot: _Snapshot | None = None


class _Range(msgspec.Struct, array_like=True):
    version: int
    first: int
    count: int
    index: bytes


class _Staged(msgspec.Struct, array_like=True):
    version: int
    generation: int
    base_kind: int = 0
    base_hash: bytes = b""


class _TreeRoot(msgspec.Struct, array_like=True):
    version: int
    function: str
    tree_hash: bytes
    tree_size: int
    attributes_hash: bytes
    attributes_size: int


class _IndexEntry(msgspec.Struct, array_like=True, gc=False):
    """The first fields of an `IndexEntry`, only those typed that are looked at: a quarter faster."""

    name: object
    kind: object
    mode: object
    uid: object
    gid: object
    mtime_ns: object
    size: object = 0
    content_kind: int = 0
    content_hash: bytes = b""
    target: object = b""
    rdev: object = 0
    child: bytes = b""


class _TreePage(msgspec.Struct, array_like=True):
    version: int
    entries: list[_IndexEntry]


_entry_decoder = msgspec.msgpack.Decoder(_Entry)
_range_decoder = msgspec.msgpack.Decoder(_Range)
_staged_decoder = msgspec.msgpack.Decoder(_Staged)
_root_decoder = msgspec.msgpack.Decoder(_TreeRoot)
_page_decoder = msgspec.msgpack.Decoder(_TreePage)


def _entry(key: bytes, value: bytes, blob_prefix: bytes) -> list[bytes]:
    snapshot = _entry_decoder.decode(memoryview(value)[1:]).snapshot
    return [] if snapshot is None else [TREE_KEY + snapshot.index]


def _range(key: bytes, value: bytes, blob_prefix: bytes) -> list[bytes]:
    index = _range_decoder.decode(value).index
    return [] if index == _ZEROS else [TREE_KEY + index]


def _inode(key: bytes, value: bytes, blob_prefix: bytes) -> list[bytes]:
    reference = inode_reference(value, blob_prefix)
    return [] if reference is None else [reference]


def _staging(key: bytes, value: bytes, blob_prefix: bytes) -> list[bytes]:
    staged = _staged_decoder.decode(value)
    return _content(staged.base_kind, staged.base_hash, blob_prefix) if staged.base_hash else []


def _content(kind: int, hash_: bytes, blob_prefix: bytes) -> list[bytes]:
    if kind == ContentKind.CHUNK:
        return [CHUNK_KEY + hash_]
    return [blob_prefix + hash_] if kind == ContentKind.MANIFEST else []


def _tree(key: bytes, value: bytes, blob_prefix: bytes) -> list[bytes]:
    root = _root_decoder.decode(value)
    prefix = blob_key_prefix(root.function)
    found: list[bytes] = []
    for hash_, size in ((root.tree_hash, root.tree_size), (root.attributes_hash, root.attributes_size)):
        if hash_ and size:
            found.append(prefix + hash_)
            if prefix == blob_prefix:
                found.append(CHUNK_KEY + hash_)
    return found


def _treepage(key: bytes, value: bytes, blob_prefix: bytes) -> list[bytes]:
    found: list[bytes] = []
    for entry in _page_decoder.decode(value).entries:
        kind = entry.content_kind
        if kind == 1:
            found.append(CHUNK_KEY + entry.content_hash)
        elif kind == 2:
            found.append(blob_prefix + entry.content_hash)
        if entry.child:
            found.append(TREE_KEY + entry.child)
    return found


def _manifest(key: bytes, value: bytes, blob_prefix: bytes) -> list[bytes]:
    try:
        return manifest_references(value)
    except ValueError:
        return []


_TABLE: dict[Family, Callable[[bytes, bytes, bytes], list[bytes]]] = {
    Family.ENTRY: _entry,
    Family.RANGE: _range,
    Family.INODE: _inode,
    Family.STAGING: _staging,
    Family.TREE: _tree,
    Family.TREEPAGE: _treepage,
    Family.BLOB: _manifest,
    Family.PAGE: _manifest,
    Family.DOOMED: _manifest,
}
_FAMILIES: dict[int, Family] = {
    Kind.CHUNK: Family.CHUNK,
    Kind.BLOB: Family.BLOB,
    Kind.PAGE: Family.PAGE,
    Kind.TREE: Family.TREE,
}
