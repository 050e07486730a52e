"""Scans of the rows of one inode."""

from __future__ import annotations

from collections.abc import Iterator

from tvfs.catalog.catalog import Catalog, Family, prefix_end


def rows_of(catalog: Catalog, family: Family, ino: int, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
    """Yield the rows whose key begins with an inode's number, from `start` on."""
    key = ino.to_bytes(8, "big")
    return catalog.scan(family, max(key, start), prefix_end(key))
