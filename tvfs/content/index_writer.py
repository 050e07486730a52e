"""Writes the index of one directory from its entries in order: a page at a time, however many there are."""

from __future__ import annotations

from msgspec.structs import replace

from tvfs.catalog.catalog import Family
from tvfs.content.attributes import OwnAttributes
from tvfs.content.tree_index import (
    DIRECTORY,
    MAX_BELOW,
    MAX_SIZE,
    PAGE_ENTRIES,
    REGULAR,
    IndexEntry,
    TreeIndexRoot,
    encode_page,
    encode_root,
)
from tvfs.content.tree_index import VERSION as INDEX_VERSION
from tvfs.digest import Digest
from tvfs.errors import TaskVaultError

Row = tuple[Family, bytes, bytes]


class TreeTooLarge(TaskVaultError):
    """What is below a directory, counted once for each place where it is, is more than can be numbered."""

    def __init__(self, what: str, most: int) -> None:
        super().__init__(f"A directory has more than {most} {what} below it; attach a part of the tree instead.")
        self.what = what
        self.most = most


class IndexWriter:
    """Takes the entries of one directory in order of their names; the rows come out as pages fill."""

    def __init__(self, index: bytes, *, most_below: int = MAX_BELOW) -> None:
        self._index = index
        self._most_below = most_below
        self._page: list[IndexEntry] = []
        self._names: list[bytes] = []
        self._preorders: list[int] = []
        self._following = 1
        self._entries = self._files = self._bytes = self._subdirectories = self._height = 0

    def add(self, entry: IndexEntry, child: TreeIndexRoot | None = None) -> Row | None:
        """Number an entry; `child` is the root of a subdirectory's index.  Return a page's row when it is full.

        Raise `TreeTooLarge`.
        """
        entry = replace(entry, preorder=self._following)
        self._following += 1 + entry.below
        self._entries += 1
        if entry.kind == REGULAR:
            self._files += 1
            self._bytes += entry.size
        elif child is not None:
            assert entry.kind == DIRECTORY
            self._files += child.files
            self._bytes += child.bytes
            self._subdirectories += 1
            self._height = max(self._height, child.height + 1)
        if self._following - 1 > self._most_below:
            raise TreeTooLarge("entries", self._most_below)
        if self._bytes > MAX_SIZE:
            raise TreeTooLarge("bytes", MAX_SIZE)
        self._page.append(entry)
        return self._end_page() if len(self._page) == PAGE_ENTRIES else None

    def finish(self, tree: Digest, own: OwnAttributes) -> tuple[TreeIndexRoot, list[Row]]:
        """Return the root and the last rows, the root's own at the end."""
        rows = [self._end_page()] if self._page else []
        root = TreeIndexRoot(
            version=INDEX_VERSION,
            function=tree.function,
            tree_hash=tree.hash,
            tree_size=tree.size,
            attributes_hash=b"",
            attributes_size=0,
            mode=own.mode,
            uid=own.uid,
            gid=own.gid,
            mtime_ns=own.mtime_ns,
            xattrs=own.xattrs,
            entries=self._entries,
            below=self._following - 1,
            files=self._files,
            bytes=self._bytes,
            subdirectories=self._subdirectories,
            page_names=self._names,
            page_preorders=self._preorders,
            height=self._height,
        )
        return root, [*rows, encode_root(self._index, root)]

    def _end_page(self) -> Row:
        page, self._page = self._page, []
        self._names.append(page[0].name)
        self._preorders.append(page[0].preorder)
        return encode_page(self._index, len(self._names) - 1, page)
