"""Rows of tree indexes are written once: the inode numbers of whatever is attached follow from them."""

from __future__ import annotations

from tvfs.catalog.catalog import Catalog, Family
from tvfs.content.tree_index import TreeIndexMissing, TreeIndexRoot, check_page, decode_page, decode_root
from tvfs.digest import HASH_BYTES


class IndexRows:
    """Tells which rows of one commit are there already.  The commit holds the indexes, so none of them goes away."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._latest: tuple[bytes, TreeIndexRoot] | None = None

    def are_kept(self, family: Family, key: bytes) -> bool:
        """Whether a row must not be written: its index is there, and what is there of it is not damaged.

        Write in the same step as this was asked, or ask again.
        """
        if family is Family.TREE:
            return self._root(key) is not None
        if family is not Family.TREEPAGE:
            return False
        index, number = key[:HASH_BYTES], int.from_bytes(key[HASH_BYTES:], "big")
        root = self._root(index)
        if root is None:
            return False
        try:
            check_page(index, root, number, decode_page(index, number, self._catalog.get(Family.TREEPAGE, key)))
        except TreeIndexMissing:
            return False
        return True

    def _root(self, index: bytes) -> TreeIndexRoot | None:
        # Only one that is there is remembered: another commit may write it at any time.
        if self._latest is not None and self._latest[0] == index:
            return self._latest[1]
        try:
            root = decode_root(index, self._catalog.get(Family.TREE, index))
        except TreeIndexMissing:
            return None
        self._latest = index, root
        return root
