"""Every inode by number: from its row, from the tree that its range was attached by, or from a view."""

from __future__ import annotations

from collections.abc import Callable

from tvfs.catalog.catalog import Catalog, Family
from tvfs.content.attributes import UNKNOWN
from tvfs.content.tree_index import DIRECTORY, REGULAR, IndexEntry, TreeIndexMissing, TreeIndexReader
from tvfs.filesystem.inode import READ_ONLY, STAGED, Inode
from tvfs.filesystem.model import FileAttributes, Ino
from tvfs.filesystem.posix_error import NotFound
from tvfs.filesystem.ranges import AttachedRange, Ranges
from tvfs.filesystem.recent import Recent

DIRECTORY_SIZE = 4096
"""What stat shows as the size of a directory; nobody may conclude anything from it."""
MAX_LEVELS = 4096
"""Of directories in an attached tree, below which nothing is found: no path has so many names."""
_CONTENT_STATES = (1, 2, 3)
"""`ContentState` by `ContentKind`."""


class Nodes:
    """Answers from a bounded memory of decoded inodes; every write goes through `became`, so it is never stale."""

    def __init__(self, catalog: Catalog, trees: TreeIndexReader, *, remembered: int) -> None:
        self._catalog = catalog
        self.trees = trees
        self.ranges = Ranges(catalog)
        self._recent: Recent[Inode] = Recent(remembered)
        self._virtual: dict[int, Inode] = {}
        self._way: list[tuple[int, int, bytes]] = []
        """Directories from the top of an attached range down: number, end of the numbers in it, index."""
        self.staged_extent: Callable[[int], tuple[int, int]] = _unstaged
        """Logical size of a staged file and how much of it takes room, in bytes; set by the staging area."""

    def find(self, ino: int) -> Inode | None:
        """Return the inode, or None if there is none of that number."""
        inode = self._recent.get(ino)
        if inode is not None:
            return inode
        row = self._catalog.get(Family.INODE, ino.to_bytes(8, "big"))
        inode = Inode.decode(row) if row is not None else self._virtual.get(ino) or self._descend(ino)
        if inode is not None:
            self._recent.put(ino, inode)
        return inode

    def get(self, ino: int) -> Inode:
        """Return the inode; raise `NotFound`."""
        inode = self._recent.get(ino) or self.find(ino)
        if inode is None:
            raise NotFound(f"There is no inode {ino}; it was removed.")
        return inode

    def child(self, parent: int, entry: IndexEntry) -> tuple[int, Inode]:
        """Return number and inode of a name in the base tree of `parent`."""
        ino = parent + entry.preorder
        inode = self._recent.get(ino)
        if inode is None:
            row = self._catalog.get(Family.INODE, ino.to_bytes(8, "big"))
            if row is not None:
                inode = Inode.decode(row)
            else:
                attached = self.ranges.find(ino)
                if attached is None:
                    raise TreeIndexMissing(entry.child, f"inode {ino} is outside of what was attached")
                inode = self.from_entry(entry, parent, attached)
            self._recent.put(ino, inode)
        return ino, inode

    def entry(self, ino: int) -> tuple[IndexEntry, int, AttachedRange] | None:
        """Return what the attached tree says of a member of a range, its first parent and the range.

        None for the attached directory itself and for inodes outside of ranges.
        """
        attached = self.ranges.find(ino)
        if attached is None or ino == attached.first:
            return None
        # The way of the last descent is remembered: a walk of a deep tree costs a step for each inode, not for each
        # level above it.
        way = self._way
        while way and not (way[0][0] == attached.first and way[-1][0] < ino < way[-1][1]):
            way.pop()
        if not way:
            way.append((attached.first, attached.end, attached.index))
        while len(way) < MAX_LEVELS:
            parent, _, index = way[-1]
            entry = self.trees.at_preorder(index, ino - parent)
            if entry is None:
                return None
            if entry.preorder == ino - parent:
                return entry, parent, attached
            first = parent + entry.preorder
            way.append((first, first + 1 + entry.below, entry.child))
        raise TreeIndexMissing(attached.index, f"more than {MAX_LEVELS} levels")

    def has_row(self, ino: int) -> bool:
        """Whether the inode was made or changed here, rather than being as the attached tree has it."""
        return self._catalog.get(Family.INODE, ino.to_bytes(8, "big")) is not None

    def attributes(self, ino: int, inode: Inode) -> FileAttributes:
        """Return what stat shows."""
        if inode.state == STAGED:
            size, occupied_bytes = self.staged_extent(ino)
        elif inode.is_directory:
            size = occupied_bytes = DIRECTORY_SIZE
        else:
            size = occupied_bytes = inode.size
        return FileAttributes(
            Ino(ino), inode.mode, inode.nlink, inode.uid, inode.gid, inode.rdev, size,
            (occupied_bytes + 511) >> 9,
            inode.atime_ns, inode.mtime_ns, inode.ctime_ns, inode.born_ns,
        )  # fmt: skip

    def became(self, ino: int, inode: Inode | None) -> None:
        """A row was written or removed."""
        if inode is None:
            self._recent.drop(ino)
        else:
            self._recent.put(ino, inode)

    def show(self, ino: int, inode: Inode) -> None:
        """Let an inode exist that has no row: of a view."""
        self._virtual[ino] = inode

    def hide(self, ino: int) -> None:
        """End what `show` began."""
        if self._virtual.pop(ino, None) is not None:
            self._recent.drop(ino)

    def forget_range(self) -> None:
        """Rows were removed wholesale: believe nothing that is remembered."""
        self._recent.clear()

    def _descend(self, ino: int) -> Inode | None:
        found = self.entry(ino)
        return None if found is None else self.from_entry(*found)

    def from_entry(self, entry: IndexEntry, parent: int, attached: AttachedRange) -> Inode:
        """Return the inode that an entry of an attached tree stands for, as long as it has no row."""
        uid = attached.uid if attached.override or entry.uid == UNKNOWN else entry.uid
        gid = attached.gid if attached.override or entry.gid == UNKNOWN else entry.gid
        mtime = attached.attached_ns if entry.mtime_ns == UNKNOWN else storable_time(entry.mtime_ns)
        flags = READ_ONLY if attached.read_only else 0
        mode = entry.kind << 12 | entry.mode
        changed = attached.attached_ns
        if entry.kind == REGULAR:
            state = _CONTENT_STATES[entry.content_kind]
            return Inode(
                mode, uid, gid, 1, entry.size, mtime, mtime, changed, 0, flags, state, entry.content_hash or bytes(32),
                born_ns=changed,
            )  # fmt: skip
        if entry.kind == DIRECTORY:
            root = self.trees.child_root(entry)
            links = 2 + root.subdirectories
            return Inode(
                mode, uid, gid, links, 0, mtime, mtime, changed, 0, flags, 0, entry.child, parent, root.entries,
                born_ns=changed,
            )  # fmt: skip
        return Inode(
            mode, uid, gid, 1, len(entry.target), mtime, mtime, changed, entry.rdev, flags, target=entry.target,
            born_ns=changed,
        )  # fmt: skip


def storable_time(time_ns: int) -> int:
    """Return a time that a row of an inode can hold, the nearest: of 1677 to 2262."""
    return min(max(time_ns, -(1 << 63)), (1 << 63) - 1)


def _unstaged(ino: int) -> tuple[int, int]:
    raise AssertionError(f"inode {ino} is staged and there is no staging area")
