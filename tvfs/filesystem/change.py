"""One change of the namespace: collected, then written as one batch, then believed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tvfs.catalog.catalog import Batch, Catalog, Family, prefix_end
from tvfs.catalog.rocks import CatalogFull
from tvfs.filesystem.inode import OWN_XATTRS, Inode
from tvfs.filesystem.posix_error import NoSpace

LAST_REQUEST = b"last_request"
"""Row of `sys`: the session and the number of the last request of the kernel that changed names."""


def last_request(catalog: Catalog) -> bytes:
    """Return session and number of the last request that changed names; empty if nobody could have taken over."""
    return catalog.get(Family.SYS, LAST_REQUEST) or b""


def begin_requests(catalog: Catalog, session: bytes) -> None:
    """Note that what changes names from now on is asked for in this session."""
    batch = Batch()
    batch.put(Family.SYS, LAST_REQUEST, session + bytes(8))
    catalog.write(batch)


class RequestMark:
    """Names the request that is being answered in the batch that it writes.

    Whoever takes over from a daemon that was killed so knows whether the request that was not answered had been done.
    """

    def __init__(self) -> None:
        self.current = b""
        """Session and request, 8 bytes each; empty if nobody could take over, and between requests."""


class InodeSource(Protocol):
    """Where a change reads inodes and tells what became of them."""

    def get(self, ino: int) -> Inode:
        """Return an inode; raise `NotFound`."""
        ...

    def became(self, ino: int, inode: Inode | None) -> None:
        """The inode is now this; None: it is no more."""
        ...


class Change:
    """Lives within one synchronous block; nothing has happened until `commit`, and all of it after."""

    __slots__ = ("_catalog", "_inodes", "_mark", "_pending", "afterwards", "batch", "now_ns")

    def __init__(self, catalog: Catalog, inodes: InodeSource, now_ns: int, mark: bytes = b"") -> None:
        """`mark` names the request that makes the change; see `RequestMark`."""
        self._catalog = catalog
        self._inodes = inodes
        self._mark = mark
        self._pending: dict[int, Inode | None] = {}
        self.batch = Batch()
        self.now_ns = now_ns
        self.afterwards: list[Callable[[], None]] = []
        """What to do once the batch is written: memory that follows the rows."""

    def inode(self, ino: int) -> Inode:
        """Return the inode as this change leaves it."""
        pending = self._pending.get(ino)
        return self._inodes.get(ino) if pending is None else pending

    def put(self, ino: int, inode: Inode) -> None:
        """Set an inode; the last one counts."""
        self._pending[ino] = inode

    def has(self, ino: int) -> bool:
        """Whether the change sets the inode."""
        return self._pending.get(ino) is not None

    def drop(self, ino: int) -> None:
        """Remove what is kept under the inode's number alone: row, orphan mark, extended attributes."""
        inode = self.inode(ino)
        self._pending[ino] = None
        key = ino.to_bytes(8, "big")
        if inode.nlink == 0:
            self.batch.delete(Family.ORPHAN, key)
        if inode.flags & OWN_XATTRS:
            self.batch.delete_range(Family.XATTR, key, prefix_end(key) or b"")

    def commit(self) -> None:
        """Write the batch; raise `NoSpace` or what the catalog raises, then nothing has changed, in memory neither."""
        batch = self.batch
        for ino, inode in self._pending.items():
            if inode is None:
                batch.delete(Family.INODE, ino.to_bytes(8, "big"))
            else:
                batch.put(Family.INODE, ino.to_bytes(8, "big"), inode.encode())
        if self._mark:
            batch.put(Family.SYS, LAST_REQUEST, self._mark)
        try:
            self._catalog.write(batch)
        except CatalogFull as exc:
            raise NoSpace from exc
        for ino, inode in self._pending.items():
            self._inodes.became(ino, inode)
        for act in self.afterwards:
            act()
