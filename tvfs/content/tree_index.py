"""The tree index: a directory of any size, looked into without being parsed whole.

Derived from a pair of `Directory` and attributes, and rebuildable from it (docs/design/on-disk-format.md §7).  A root
row tells the totals and where pages begin; a page row holds up to 256 entries, sorted by raw name.
"""

from __future__ import annotations

import stat
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice
from operator import lt
from typing import Generic, TypeAlias, TypeVar

import msgspec

from tvfs.catalog.catalog import Family
from tvfs.content.attributes import OwnAttributes, Xattrs
from tvfs.content.reference import Content, ContentKind
from tvfs.content.snapshot import Snapshot
from tvfs.digest import HASH_BYTES, Digest
from tvfs.errors import FormatTooNew, TaskVaultError

VERSION = 1
PAGE_ENTRIES = 256
MAX_NAME_BYTES = 255
"""Longest name that a directory may hold, before escaping; the kernel's limit."""
DIRECTORY = stat.S_IFDIR >> 12
REGULAR = stat.S_IFREG >> 12
SYMLINK = stat.S_IFLNK >> 12

Hash: TypeAlias = bytes
Name: TypeAlias = bytes

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

    name: bytes
    kind: int
    """`stat.S_IFMT(mode) >> 12`."""
    mode: int
    """Permission bits only."""
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    """Of a file's content, or of a symlink's target."""
    content_kind: int = 0
    """A `ContentKind`; for files only."""
    content_hash: bytes = b""
    target: bytes = b""
    """Of a symlink."""
    rdev: int = 0
    """Of a device."""
    child: bytes = b""
    """Index id of a subdirectory."""
    preorder: int = 0
    """The entry's inode number less its directory's."""
    below: int = 0
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
    tree_size: int
    attributes_hash: Hash
    """Empty for a tree without attributes."""
    attributes_size: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    xattrs: Xattrs
    entries: int
    """Names in this directory."""
    below: int
    """Inodes below, at any depth."""
    files: int
    """Files below, at any depth."""
    bytes: int
    """Of content below; what is shared counts each time."""
    subdirectories: int
    """In this directory: its link count is two more."""
    page_names: list[Name]
    """First name of each page."""
    page_preorders: list[int]
    """`preorder` of the first entry of each page."""
    hard_links: list[list[Name]] = []
    """At the root of a snapshot: groups of paths that are one file, as in the attributes; so that attaching, which
    must make them one, reads no attributes object."""

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
    rows = [(Family.TREE, index, _encoder.encode(root))]
    for number, start in enumerate(range(0, len(entries), PAGE_ENTRIES)):
        page = TreeIndexPage(VERSION, entries[start : start + PAGE_ENTRIES])
        rows.append((Family.TREEPAGE, page_key(index, number), _encoder.encode(page)))
    return rows


def decode_root(index: bytes, value: bytes | None) -> TreeIndexRoot:
    """Return a root as stored; raise `TreeIndexMissing` for none or a damaged one, or `FormatTooNew`."""
    if value is None:
        raise TreeIndexMissing(index, "no root")
    try:
        root = _root_decoder.decode(value)
    except msgspec.MsgspecError as exc:
        raise TreeIndexMissing(index, str(exc)) from exc
    if root.version > VERSION:
        raise FormatTooNew("The index of a tree", root.version, VERSION)
    return root


def decode_page(index: bytes, number: int, value: bytes | None) -> list[IndexEntry]:
    """Return the entries of a page as stored; raise `TreeIndexMissing`."""
    if value is None:
        raise TreeIndexMissing(index, f"no page {number}")
    try:
        page = _page_decoder.decode(value)
    except msgspec.MsgspecError as exc:
        raise TreeIndexMissing(index, f"page {number}: {exc}") from exc
    if page.version > VERSION:
        raise FormatTooNew("A page of the index of a tree", page.version, VERSION)
    _check_entries(index, page.entries)
    return page.entries


def _check_entries(index: bytes, entries: list[IndexEntry]) -> None:
    """Raise unless the names can be those of one directory: a page may come from anywhere, and names become paths.

    On whole lists, 20 µs a page.
    """
    if not entries:
        return
    names = [entry.name for entry in entries]
    joined = b"/".join(names)
    if joined.count(b"/") > len(names) - 1 or b"\0" in joined or any(map(names.__contains__, (b"", b".", b".."))):
        raise TreeIndexMissing(index, "a name that no entry of a directory can have")
    if max(map(len, names)) > MAX_NAME_BYTES:
        raise TreeIndexMissing(index, f"a name of more than {MAX_NAME_BYTES} bytes")
    if not all(map(lt, names, islice(names, 1, None))):
        raise TreeIndexMissing(index, "names that are not in order")
    if any(not entry.target or b"\0" in entry.target for entry in entries if entry.kind == SYMLINK):
        raise TreeIndexMissing(index, "a symlink whose target no symlink can have")


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

    def page(self, index: bytes, number: int) -> list[IndexEntry]:
        """Return the entries of one page; do not change the list.  Raise `TreeIndexMissing`."""
        page = self._pages.get((index, number))
        if page is None:
            value = self._get(Family.TREEPAGE, page_key(index, number))
            page = self._pages.keep((index, number), decode_page(index, number, value))
        return page

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
