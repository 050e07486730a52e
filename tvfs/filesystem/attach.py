"""Attach: give a directory the content of a tree in O(1).

One range row, one dirent and one inode row, whatever the size; and a few more for each group of hard links in the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvfs.content.attributes import UNKNOWN
from tvfs.content.snapshot import Snapshot
from tvfs.content.tree_index import DIRECTORY, IndexEntry, TreeIndexMissing, TreeIndexReader, TreeIndexRoot
from tvfs.filesystem.change import Change
from tvfs.filesystem.directories import Directories, Dirent
from tvfs.filesystem.inode import NO_HASH, READ_ONLY, Inode, changed
from tvfs.filesystem.model import Caller
from tvfs.filesystem.namespace import Namespace, check_name
from tvfs.filesystem.nodes import Nodes, storable_time
from tvfs.filesystem.posix_error import Exists, NotADirectory, NotFound
from tvfs.filesystem.ranges import AttachedRange
from tvfs.vault.counters import NEXT_INO, NEXT_SEQ, Counters

MAX_LINKED_NAMES = 4096
"""A tree with more names of hard links is attached without: as files of their own with the same content.  Each takes
a few rows, and all are written in one step."""


class Attacher:
    """Attaches trees by their index; synchronous, one batch each."""

    def __init__(
        self,
        nodes: Nodes,
        directories: Directories,
        namespace: Namespace,
        counters: Counters,
        *,
        default_owner: Caller,
    ) -> None:
        self._nodes = nodes
        self._trees: TreeIndexReader = nodes.trees
        self._directories = directories
        self._namespace = namespace
        self._counters = counters
        self._default_owner = default_owner
        self.tell: Callable[[int], None] = lambda _directory: None
        """Has the kernel told that the owner added a name to a directory; set once, if something is mounted."""

    def attach(
        self,
        parent: int,
        name: bytes,
        snapshot: Snapshot,
        *,
        owner: tuple[int, int] | None,
        read_only: bool,
        subpath: str,
    ) -> int:
        """Give `parent` a new child with the content of a tree, or of one file or directory in it; return its number.

        `owner` (uid, gid) overrides the tree's; without it, what has no owner gets the vault's.  Raises `Exists`,
        `NotFound` for a subpath that is not in the tree, `TreeIndexMissing`.  The parent may be read-only: this is the
        owner's door.
        """
        check_name(name)
        directory = self._namespace.directory(parent)
        if directory.nlink == 0:
            raise NotFound("The directory to attach to has been removed.")
        if self._directories.find(parent, directory, name) is not None:
            raise Exists(f"{name!r} exists already; only a name that is free can be attached to.")
        if not self._trees.is_there(snapshot.index):
            raise TreeIndexMissing(snapshot.index, "no root")
        entry, index, groups = self._descend(snapshot, subpath)
        change = self._namespace.change()
        uid, gid = owner or (self._default_owner.uid, self._default_owner.gid)
        if entry is not None and entry.kind != DIRECTORY:
            ino = self._attach_file(change, parent, name, entry, (uid, gid, owner is not None, read_only))
        else:
            root = self._trees.root(index)
            first = self._counters.take(NEXT_INO, 1 + root.below)
            attached = AttachedRange(
                1, first, 1 + root.below, index, uid, gid, owner is not None, change.now_ns, read_only, bool(groups)
            )
            ino = self._attach_directory(change, parent, name, root, attached)
            self._link_groups(change, attached, groups)
        change.commit()
        self.tell(parent)
        return ino

    def ensure_directory(self, parent: int, name: bytes) -> int:
        """Return a child directory of a read-only place, after making it if need be, with its mode and owner."""
        check_name(name)
        directory = self._namespace.directory(parent)
        found = self._directories.find(parent, directory, name)
        if found is not None:
            if not found[1].is_directory:
                raise NotADirectory(f"{name!r} exists already and is no directory.")
            return found[0]
        change = self._namespace.change()
        inode = changed(
            directory, nlink=2, entries=0, parent=parent, hash=NO_HASH, flags=directory.flags & READ_ONLY,
            atime_ns=change.now_ns, mtime_ns=change.now_ns, ctime_ns=change.now_ns,
        )  # fmt: skip
        ino, _ = self._namespace.add(change, parent, name, inode)
        change.commit()
        self.tell(parent)
        return ino

    def _descend(self, snapshot: Snapshot, subpath: str) -> tuple[IndexEntry | None, bytes, list[list[bytes]]]:
        index = snapshot.index
        groups = [list(group) for group in self._trees.root(index).hard_links]
        entry: IndexEntry | None = None
        path = b""
        for part in (part.encode("utf-8", "surrogateescape") for part in subpath.split("/") if part not in ("", ".")):
            if entry is not None and entry.kind != DIRECTORY:
                raise NotFound(f"{subpath!r} is not in the tree: a part of it is no directory.")
            entry = self._trees.lookup(index, part)
            if entry is None:
                raise NotFound(f"{subpath!r} is not in the tree.")
            index = entry.child
            path += part + b"/"
        within = [[each[len(path) :] for each in group if each.startswith(path)] for group in groups]
        linked = [group for group in within if len(group) > 1]
        return entry, index, linked if sum(map(len, linked)) <= MAX_LINKED_NAMES else []

    def _attach_directory(
        self, change: Change, parent: int, name: bytes, root: TreeIndexRoot, attached: AttachedRange
    ) -> int:
        inode = attached_root(root, attached, parent)
        change.put(attached.first, inode)
        self._nodes.ranges.add(change, attached)
        self._namespace.enter(change, parent, name, attached.first, inode)
        return attached.first

    def _attach_file(
        self, change: Change, parent: int, name: bytes, entry: IndexEntry, how: tuple[int, int, bool, bool]
    ) -> int:
        uid, gid, override, read_only = how
        lone = AttachedRange(1, 0, 1, NO_HASH, uid, gid, override, change.now_ns, read_only, False)
        ino, _ = self._namespace.add(change, parent, name, self._nodes.from_entry(entry, 0, lone))
        return ino

    def _link_groups(self, change: Change, attached: AttachedRange, groups: Sequence[Sequence[bytes]]) -> None:
        """Let the paths of each group lead to one inode: that of the first path."""
        seen: set[bytes] = set()
        for group in groups:
            shared, first_parent = self._member(attached, group[0])
            self._check_group(attached, group, shared, seen)
            inode = self._nodes.from_entry(shared, first_parent, attached)
            ino = first_parent + shared.preorder
            change.put(ino, changed(inode, nlink=len(group)))
            for path in group[1:]:
                other, other_parent = self._member(attached, path)
                self._adopt_parent(change, attached, other_parent, path)
                dirent = Dirent(other.kind, ino, self._counters.take(NEXT_SEQ))
                self._directories.put(change, other_parent, other.name, dirent)

    def _check_group(
        self, attached: AttachedRange, group: Sequence[bytes], shared: IndexEntry, seen: set[bytes]
    ) -> None:
        """Raise unless the names of a group can be those of one file, and of no other group: trees come from anywhere.

        A directory with two names would be a way round in circles.
        """
        before = len(seen)
        seen.update(group)
        if len(seen) != before + len(group) or shared.kind == DIRECTORY:
            raise TreeIndexMissing(attached.index, "hard links that no tree can have")
        for path in group[1:]:
            other, _ = self._member(attached, path)
            if (other.kind, other.content_hash, other.size, other.target, other.rdev) != (
                shared.kind, shared.content_hash, shared.size, shared.target, shared.rdev,
            ):  # fmt: skip
                raise TreeIndexMissing(attached.index, "hard links to files that differ")

    def _member(self, attached: AttachedRange, path: bytes) -> tuple[IndexEntry, int]:
        """Return the entry at a path below the attached directory, and its directory's number."""
        index, parent = attached.index, attached.first
        *above, name = path.split(b"/")
        for part in above:
            entry = self._trees.lookup(index, part)
            if entry is None:
                raise NotFound(f"The tree lists a hard link {path!r} that is not in it.")
            self._trees.child_root(entry)
            index, parent = entry.child, parent + entry.preorder
        entry = self._trees.lookup(index, name)
        if entry is None:
            raise NotFound(f"The tree lists a hard link {path!r} that is not in it.")
        return entry, parent

    def _adopt_parent(self, change: Change, attached: AttachedRange, parent: int, path: bytes) -> None:
        """Let a directory have a row, which its deltas are noted in; its range is not in the catalog yet."""
        if change.has(parent):
            return
        entry, above = self._member(attached, path.rpartition(b"/")[0])
        change.put(parent, self._nodes.from_entry(entry, above, attached))


def attached_root(root: TreeIndexRoot, attached: AttachedRange, parent: int) -> Inode:
    """Return the inode of a directory as it is attached."""
    return Inode(
        mode=0o040000 | root.mode,
        uid=attached.uid if attached.override or root.uid == UNKNOWN else root.uid,
        gid=attached.gid if attached.override or root.gid == UNKNOWN else root.gid,
        nlink=2 + root.subdirectories,
        size=0,
        atime_ns=attached.attached_ns,
        mtime_ns=attached.attached_ns if root.mtime_ns == UNKNOWN else storable_time(root.mtime_ns),
        ctime_ns=attached.attached_ns,
        flags=READ_ONLY if attached.read_only else 0,
        hash=attached.index,
        parent=parent,
        entries=root.entries,
        born_ns=attached.attached_ns,
    )
