"""The tree index: a directory of any size, looked into without being parsed whole.

Derived from a pair of `Directory` and attributes, and rebuildable from it (docs/design/on-disk-format.md §7).  A root
row tells the totals and where pages begin; a page row holds up to 256 entries, sorted by raw name.
"""

from __future__ import annotations

import stat
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Annotated, Generic, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from tvfs.catalog.catalog import Family
from tvfs.content.attributes import OwnAttributes, Xattrs
from tvfs.content.index_faults import MAX_NAME_BYTES as MAX_NAME_BYTES
from tvfs.content.index_faults import PAGE_ENTRIES as PAGE_ENTRIES
from tvfs.content.index_faults import fault_of_entries, fault_of_page, fault_of_root
from tvfs.content.reference import Content, ContentKind
from tvfs.content.snapshot import Snapshot
from tvfs.digest import HASH_BYTES, Digest
from tvfs.errors import FormatTooNew, TaskVaultError

VERSION = 1
MAX_TARGET_BYTES = 4095
"""Longest symlink target; the kernel's limit."""
MAX_SIZE = (1 << 63) - 1
"""Longest content, and the most that counts of bytes and files may say: what the kernel's offsets can."""
MAX_ENTRIES = 1 << 24
"""Names in one directory; its root then has 65,536 pages and takes about 2 MiB."""
MAX_BELOW = 1 << 40
"""Inodes below one directory: attaching takes as many numbers, of which there are 2^63."""
DIRECTORY = stat.S_IFDIR >> 12
REGULAR = stat.S_IFREG >> 12
SYMLINK = stat.S_IFLNK >> 12

# What a field may be is checked where it is decoded, in C: rows come from clients and disks.
Hash: TypeAlias = Annotated[bytes, Meta(min_length=HASH_BYTES, max_length=HASH_BYTES)]
OptionalHash: TypeAlias = Annotated[bytes, Meta(max_length=HASH_BYTES)]
Path: TypeAlias = bytes
Name: TypeAlias = bytes
Target: TypeAlias = Annotated[bytes, Meta(max_length=MAX_TARGET_BYTES)]
Mode: TypeAlias = Annotated[int, Meta(ge=0, le=0o7777)]
OwnerId: TypeAlias = Annotated[int, Meta(ge=-1, le=(1 << 32) - 1)]
Size: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_SIZE)]
Below: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_BELOW)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_ENTRIES)]

K = TypeVar("K")
V = TypeVar("V")

_NO_ATTRIBUTES = bytes(HASH_BYTES)


class TreeIndexMissing(TaskVaultError):
    """The vault has no index, or no page of it, under an id that something refers to."""

    def __init__(self, index: bytes, what: str) -> None:
        super().__init__(f"The index of the tree {index.hex()} is gone or damaged ({what}); save the tree again.")
        self.index = index


class IndexEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One name in a directory."""

    name: Name
    kind: Annotated[int, Meta(ge=0, le=15)]
    """`stat.S_IFMT(mode) >> 12`."""
    mode: Mode
    """Permission bits only."""
    uid: OwnerId
    gid: OwnerId
    mtime_ns: int
    size: Size = 0
    """Of a file's content, or of a symlink's target."""
    content_kind: Annotated[int, Meta(ge=0, le=2)] = 0
    """A `ContentKind`; for files only."""
    content_hash: OptionalHash = b""
    target: Target = b""
    """Of a symlink."""
    rdev: Annotated[int, Meta(ge=0, le=(1 << 32) - 1)] = 0
    """Of a device."""
    child: OptionalHash = b""
    """Index id of a subdirectory."""
    preorder: Annotated[int, Meta(ge=0, le=MAX_BELOW)] = 0
    """The entry's inode number less its directory's."""
    below: Below = 0
    """Inodes below a subdirectory, at any depth; they follow it."""
    xattrs: Xattrs = ()

    @property
    def content(self) -> Content:
        """The content of a file."""
        return Content(ContentKind(self.content_kind), self.content_hash, self.size)

    @property
    def st_mode(self) -> int:
        """Type and permission bits, as `stat` shows them."""
        return self.kind << 12 | self.mode


class TreeIndexRoot(msgspec.Struct, frozen=True, array_like=True):
    """What a directory is, without its entries."""

    version: int
    function: str
    """Of the two digests."""
    tree_hash: Hash
    tree_size: Size
    attributes_hash: OptionalHash
    """Empty for a tree without attributes."""
    attributes_size: Size
    mode: Mode
    uid: OwnerId
    gid: OwnerId
    mtime_ns: int
    xattrs: Xattrs
    entries: Count
    """Names in this directory."""
    below: Below
    """Inodes below, at any depth."""
    files: Size
    """Files below, at any depth."""
    bytes: Size
    """Of content below; what is shared counts each time."""
    subdirectories: Count
    """In this directory: its link count is two more."""
    page_names: list[Name]
    """First name of each page."""
    page_preorders: list[int]
    """`preorder` of the first entry of each page."""
    hard_links: list[list[Path]] = []
    """At the root of a snapshot: groups of paths that are one file, as in the attributes; so that attaching, which
    must make them one, reads no attributes object."""
    height: Annotated[int, Meta(ge=0, le=MAX_BELOW)] = 0
    """Levels of directories below this one; 0 also where an older version did not count them."""

    @property
    def own(self) -> OwnAttributes:
        """The directory's own attributes."""
        return OwnAttributes(self.mode, self.uid, self.gid, self.mtime_ns, self.xattrs)

    def snapshot(self, index: Hash) -> Snapshot:
        """The pair that this index, whose id is `index`, was made from."""
        attributes = None
        if self.attributes_hash:
            attributes = Digest(self.function, self.attributes_hash, self.attributes_size)
        tree = Digest(self.function, self.tree_hash, self.tree_size)
        return Snapshot(tree, attributes, index, self.files, self.bytes)


class TreeIndexPage(msgspec.Struct, frozen=True, array_like=True):
    """Up to `PAGE_ENTRIES` entries in a row."""

    version: int
    entries: list[IndexEntry]


_encoder = msgspec.msgpack.Encoder()
_root_decoder = msgspec.msgpack.Decoder(TreeIndexRoot)
_page_decoder = msgspec.msgpack.Decoder(TreeIndexPage)


def tree_index_id(hash_of: Callable[[bytes], bytes], tree_hash: bytes, attributes_hash: bytes | None) -> bytes:
    """Return the id of the index of a pair; `hash_of` is the vault's hash function."""
    return hash_of(b"tvindex1" + tree_hash + (attributes_hash or _NO_ATTRIBUTES))


def page_key(index: bytes, number: int) -> bytes:
    """Key of a page in family `treepage`."""
    return index + number.to_bytes(4, "big")


def encode_index(root: TreeIndexRoot, index: bytes, entries: list[IndexEntry]) -> list[tuple[Family, bytes, bytes]]:
    """Return the rows `(family, key, value)` of a directory, its root first; `entries` are sorted and numbered."""
    pages = (entries[start : start + PAGE_ENTRIES] for start in range(0, len(entries), PAGE_ENTRIES))
    return [encode_root(index, root), *(encode_page(index, number, page) for number, page in enumerate(pages))]


def encode_root(index: bytes, root: TreeIndexRoot) -> tuple[Family, bytes, bytes]:
    """Return the row of a root."""
    return Family.TREE, index, _encoder.encode(root)


def encode_page(index: bytes, number: int, entries: list[IndexEntry]) -> tuple[Family, bytes, bytes]:
    """Return the row of a page; `entries` are sorted and numbered."""
    return Family.TREEPAGE, page_key(index, number), _encoder.encode(TreeIndexPage(VERSION, entries))


def decode_root(index: bytes, value: bytes | None) -> TreeIndexRoot:
    """Return a root as stored; raise `TreeIndexMissing` for none or a damaged one, or `FormatTooNew`."""
    if value is None:
        raise TreeIndexMissing(index, "no root")
    try:
        root = _root_decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise TreeIndexMissing(index, str(exc)) from exc
    if root.version > VERSION:
        raise FormatTooNew("The index of a tree", root.version, VERSION)
    if (fault := fault_of_root(root)) is not None:
        raise TreeIndexMissing(index, fault)
    return root


def decode_page(index: bytes, number: int, value: bytes | None) -> list[IndexEntry]:
    """Return the entries of a page as stored; raise `TreeIndexMissing`."""
    if value is None:
        raise TreeIndexMissing(index, f"no page {number}")
    try:
        page = _page_decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise TreeIndexMissing(index, f"page {number}: {exc}") from exc
    if page.version > VERSION:
        raise FormatTooNew("A page of the index of a tree", page.version, VERSION)
    if (fault := fault_of_entries(page.entries)) is not None:
        raise TreeIndexMissing(index, fault)
    return page.entries


def check_page(index: bytes, root: TreeIndexRoot, number: int, entries: list[IndexEntry]) -> None:
    """Raise `TreeIndexMissing` unless a decoded page is the one that its root tells of."""
    if (fault := fault_of_page(root, number, entries)) is not None:
        raise TreeIndexMissing(index, f"page {number}: {fault}")


def check_child(entry: IndexEntry, root: TreeIndexRoot) -> None:
    """Raise `TreeIndexMissing` unless the root of a subdirectory's index has as much below it as its parent says.

    What is below a directory has the numbers after it: one that has more would have those of others.
    """
    if root.below != entry.below:
        raise TreeIndexMissing(entry.child, f"{root.below} below it, and {entry.below} by what its parent says")


class TreeIndexReader:
    """Looks into indexes; a few decoded roots and pages are kept.

    Called inline from one thread; a call costs a bisection, and at most one page (256 entries) is read and decoded.
    """

    def __init__(
        self, get: Callable[[Family, bytes], bytes | None], *, kept_roots: int = 4096, kept_pages: int = 64
    ) -> None:
        """`get` reads one row, as `Catalog.get` does.  A kept page takes about 150 KiB, a kept root about 1 KiB."""
        self._get = get
        self._roots: _Kept[bytes, TreeIndexRoot] = _Kept(kept_roots)
        self._pages: _Kept[tuple[bytes, int], list[IndexEntry]] = _Kept(kept_pages)

    def root(self, index: bytes) -> TreeIndexRoot:
        """Return what the directory is; raise `TreeIndexMissing`."""
        root = self._roots.get(index)
        if root is None:
            root = self._roots.keep(index, decode_root(index, self._get(Family.TREE, index)))
        return root

    def child_root(self, entry: IndexEntry) -> TreeIndexRoot:
        """Return what a subdirectory is, checked against what its parent says; raise `TreeIndexMissing`."""
        root = self.root(entry.child)
        check_child(entry, root)
        return root

    def page(self, index: bytes, number: int) -> list[IndexEntry]:
        """Return the entries of one page; do not change the list.  Raise `TreeIndexMissing`."""
        page = self._pages.get((index, number))
        if page is None:
            root = self.root(index)
            page = decode_page(index, number, self._get(Family.TREEPAGE, page_key(index, number)))
            check_page(index, root, number, page)
            self._pages.keep((index, number), page)
        return page

    def is_there(self, index: bytes) -> bool:
        """Whether the vault has the index now; what is kept here of one that was let go and came again is dropped."""
        value = self._get(Family.TREE, index)
        kept = self._roots.get(index)
        if value is not None and kept is not None and decode_root(index, value) != kept:
            self.forget(index)
        return value is not None

    def lookup(self, index: bytes, name: bytes) -> IndexEntry | None:
        """Return the entry with this name, or None."""
        number = bisect_right(self.root(index).page_names, name) - 1
        if number < 0:
            return None
        page = self.page(index, number)
        position = bisect_right(page, name, key=_name_of) - 1
        entry = page[position]
        return entry if entry.name == name else None

    def at_preorder(self, index: bytes, preorder: int) -> IndexEntry | None:
        """Return the entry that is, or that has below it, the inode at this offset from the directory's; or None."""
        root = self.root(index)
        if not 0 < preorder <= root.below:
            return None
        number = bisect_right(root.page_preorders, preorder) - 1
        page = self.page(index, number)
        return page[bisect_right(page, preorder, key=_preorder_of) - 1]

    def iterate(self, index: bytes, position: int = 0) -> Iterator[tuple[int, IndexEntry]]:
        """Yield `(position, entry)` in order of names from a position on; positions count from 0."""
        count = self.root(index).entries
        while position < count:
            page = self.page(index, position // PAGE_ENTRIES)
            for entry in page[position % PAGE_ENTRIES :]:
                yield position, entry
                position += 1

    def position_after(self, index: bytes, name: bytes) -> int:
        """Return the position of the first entry whose name is greater than `name`."""
        number = bisect_right(self.root(index).page_names, name) - 1
        if number < 0:
            return 0
        return number * PAGE_ENTRIES + bisect_right(self.page(index, number), name, key=_name_of)

    def forget(self, index: bytes) -> None:
        """Drop what is kept of an index that was removed."""
        self._roots.drop(lambda key: key == index)
        self._pages.drop(lambda key: key[0] == index)


def _name_of(entry: IndexEntry) -> bytes:
    return entry.name


def _preorder_of(entry: IndexEntry) -> int:
    return entry.preorder


class _Kept(Generic[K, V]):
    """The most recently used of what was decoded."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def keep(self, key: K, value: V) -> V:
        self._values[key] = value
        if len(self._values) > self._limit:
            self._values.popitem(last=False)
        return value

    def drop(self, unwanted: Callable[[K], bool]) -> None:
        for key in [key for key in self._values if unwanted(key)]:
            del self._values[key]
