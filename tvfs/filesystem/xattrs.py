"""Extended attributes: rows, or those of the attached tree until the first of them is changed."""

from __future__ import annotations

from collections.abc import Callable

from tvfs.catalog.catalog import Catalog, Family
from tvfs.filesystem.change import Change
from tvfs.filesystem.inode import OWN_XATTRS, Inode, changed
from tvfs.filesystem.nodes import Nodes
from tvfs.filesystem.posix_error import NameTooLong, NoAttribute, NoSpace, OutOfRange, ReadOnly
from tvfs.filesystem.scans import rows_of

MAX_NAME_BYTES = 255
MAX_VALUE_BYTES = 64 << 10


class ExtendedAttributes:
    """Used only where the mount was made with extended attributes, and by snapshots."""

    def __init__(
        self, catalog: Catalog, nodes: Nodes, start_change: Callable[[], Change], *, has_room: Callable[[int], bool]
    ) -> None:
        """`has_room` says whether rows of so many bytes may be added."""
        self._has_room = has_room
        self._catalog = catalog
        self._nodes = nodes
        self._start_change = start_change

    def all(self, ino: int) -> tuple[tuple[bytes, bytes], ...]:
        """Return names and values, sorted."""
        inode = self._nodes.get(ino)
        if inode.flags & OWN_XATTRS:
            return tuple((key[8:], value) for key, value in rows_of(self._catalog, Family.XATTR, ino))
        return self._of_tree(ino, inode)

    def get(self, ino: int, name: bytes) -> bytes:
        """Return a value; raise `NoAttribute`."""
        for known, value in self.all(ino):
            if known == name:
                return value
        raise NoAttribute(f"There is no extended attribute {name!r}.")

    def set(self, ino: int, name: bytes, value: bytes) -> None:
        """Set a value."""
        if not 0 < len(name) <= MAX_NAME_BYTES:
            raise NameTooLong(f"The name of an extended attribute has at most {MAX_NAME_BYTES} bytes.")
        if len(value) > MAX_VALUE_BYTES:
            raise OutOfRange(f"An extended attribute has at most {MAX_VALUE_BYTES} bytes.")
        if not self._has_room(2 * len(value)):
            raise NoSpace
        change = self._own(ino)
        change.batch.put(Family.XATTR, ino.to_bytes(8, "big") + name, value)
        change.commit()

    def remove(self, ino: int, name: bytes) -> None:
        """Remove one; raise `NoAttribute`."""
        self.get(ino, name)
        change = self._own(ino)
        change.batch.delete(Family.XATTR, ino.to_bytes(8, "big") + name)
        change.commit()

    def _own(self, ino: int) -> Change:
        """Start a change in which the inode's attributes are rows."""
        inode = self._nodes.get(ino)
        if inode.read_only:
            raise ReadOnly("It")
        change = self._start_change()
        if not inode.flags & OWN_XATTRS:
            for name, value in self._of_tree(ino, inode):
                change.batch.put(Family.XATTR, ino.to_bytes(8, "big") + name, value)
        change.put(ino, changed(inode, flags=inode.flags | OWN_XATTRS, ctime_ns=change.now_ns))
        return change

    def _of_tree(self, ino: int, inode: Inode) -> tuple[tuple[bytes, bytes], ...]:
        attached = self._nodes.ranges.find(ino)
        if attached is None:
            return ()
        if attached.first == ino:
            return self._nodes.trees.root(attached.index).xattrs
        found = self._nodes.entry(ino)
        return found[0].xattrs if found is not None else ()
