"""Inodes and names of a stopped vault, read from rows and attached trees without a memory that could be out of date."""

from __future__ import annotations

import stat
from collections.abc import Iterator

import msgspec

from tvfs.catalog.catalog import Batch, Family
from tvfs.content.tree_index import IndexEntry, TreeIndexMissing, TreeIndexReader
from tvfs.errors import RowDamaged
from tvfs.filesystem.directories import Dirent, decode_dirent, encode_dirent
from tvfs.filesystem.inode import HAS_DELTAS, NO_HASH, ROW_BYTES, Inode, changed
from tvfs.filesystem.model import CAS, KEYS, PREPARED, ROOT, RUNS, SNAPSHOTS, TRASH, WORK
from tvfs.filesystem.nodes import Nodes
from tvfs.filesystem.ranges import AttachedRange
from tvfs.filesystem.scans import rows_of
from tvfs.filesystem.views import FIXED, PREPARED_NAME
from tvfs.fsck.examination import Examination
from tvfs.vault.counters import NEXT_INO, NEXT_SEQ, Counters

FIXED_INODES = (ROOT, WORK, KEYS, RUNS, SNAPSHOTS, CAS, PREPARED, TRASH)
LOST_AND_FOUND = b"lost+found"
"""Directory in `work/` for what has no name any more; each thing is called by its inode number."""
_DIRENT_BYTES = 20
_FILE_TYPES = frozenset(
    {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK}
)


def decode_inode(row: bytes) -> Inode | None:
    """Return the inode, or None for a row that cannot be one."""
    try:
        inode = Inode.decode(row)
    except RowDamaged:
        return None
    kind = stat.S_IFMT(inode.mode)
    if len(row) < ROW_BYTES or row[0] == 0 or kind not in _FILE_TYPES or inode.state > 4:
        return None
    if (kind == stat.S_IFREG) != (inode.state > 0) or (inode.target != b"") != (kind == stat.S_IFLNK):
        return None
    return inode


def decode_range(key: bytes, row: bytes) -> AttachedRange | None:
    """Return the range, or None for a row that cannot be one."""
    try:
        attached = msgspec.msgpack.decode(row, type=AttachedRange)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    if attached.first.to_bytes(8, "big") != key or attached.count < 1 or len(attached.index) != len(NO_HASH):
        return None
    return attached


class NamespaceRows:
    """Rows are read each time; attached trees and ranges are taken to stay as they are from then on."""

    def __init__(self, exam: Examination) -> None:
        self._catalog = exam.catalog
        self.trees = TreeIndexReader(exam.catalog.get)
        self.nodes = Nodes(exam.catalog, self.trees, remembered=1)

    def inode(self, ino: int) -> Inode | None:
        """Return an inode that has a row or is as an attached tree says; None if there is none that can be read."""
        row = self._catalog.get(Family.INODE, ino.to_bytes(8, "big"))
        if row is not None:
            return decode_inode(row)
        member = self.member(ino)
        # A tree still tells of directories that were removed, as long as something else needs its range.
        if member is None or not (self.shows_member(member) or self._is_called(member, ino)):
            return None
        return self._as_attached(member)

    def named(self, ino: int) -> Inode | None:
        """Return what a name leads to: wherever it is now, what has lost its row is again as its tree says."""
        row = self._catalog.get(Family.INODE, ino.to_bytes(8, "big"))
        if row is not None:
            return decode_inode(row)
        member = self.member(ino)
        return None if member is None else self._as_attached(member)

    def row(self, ino: int) -> Inode | None:
        """Return an inode that has a row."""
        row = self._catalog.get(Family.INODE, ino.to_bytes(8, "big"))
        return None if row is None else decode_inode(row)

    def _as_attached(self, member: tuple[IndexEntry, int, AttachedRange]) -> Inode | None:
        try:
            return self.nodes.from_entry(*member)
        except TreeIndexMissing:
            return None

    def member(self, ino: int) -> tuple[IndexEntry, int, AttachedRange] | None:
        """Return what an attached tree says of one of its members, its first parent and the range."""
        try:
            return self.nodes.entry(ino)
        except TreeIndexMissing:
            return None

    def base_entry(self, directory: Inode, name: bytes) -> IndexEntry | None:
        """Return what the tree that a directory was attached by has under a name."""
        if directory.hash == NO_HASH:
            return None
        try:
            return self.trees.lookup(directory.hash, name)
        except TreeIndexMissing:
            return None

    def dirent(self, parent: int, name: bytes) -> Dirent | None:
        """Return the row of a name; None if there is none."""
        row = self._catalog.get(Family.DIRENT, parent.to_bytes(8, "big") + name)
        return None if row is None or len(row) != _DIRENT_BYTES else decode_dirent(row)

    def dirents(self, parent: int) -> Iterator[tuple[bytes, Dirent]]:
        """Yield the rows of a directory."""
        for key, row in rows_of(self._catalog, Family.DIRENT, parent):
            if len(row) == _DIRENT_BYTES:
                yield key[8:], decode_dirent(row)

    def shows_member(self, member: tuple[IndexEntry, int, AttachedRange]) -> bool:
        """Whether an attached inode still has the name that the tree gives it."""
        entry, parent, _ = member
        directory = self.inode(parent)
        if directory is None or self.base_entry(directory, entry.name) is None:
            return False
        return self._catalog.get(Family.DIRENT, parent.to_bytes(8, "big") + entry.name) is None

    def _is_called(self, member: tuple[IndexEntry, int, AttachedRange], ino: int) -> bool:
        """Whether a row has the name that the tree gives an inode: its directory is an ordinary one by now."""
        entry, parent, _ = member
        dirent = self.dirent(parent, entry.name)
        return dirent is not None and dirent.child == ino and dirent.kind != 0

    def put(self, batch: Batch, ino: int, inode: Inode) -> None:
        """Set the row of an inode."""
        batch.put(Family.INODE, ino.to_bytes(8, "big"), inode.encode())

    def put_name(self, exam: Examination, batch: Batch, parent: int, name: bytes, ino: int, inode: Inode) -> None:
        """Let a name lead to an inode; what the directory counts is put right by the check of counts."""
        dirent = Dirent(inode.kind, ino, Counters(exam.catalog).take(NEXT_SEQ))
        batch.put(Family.DIRENT, parent.to_bytes(8, "big") + name, encode_dirent(dirent))

    def remove_name(self, batch: Batch, parent: int, name: bytes) -> None:
        """Let a name lead nowhere: what the attached tree has under it stays hidden."""
        key = parent.to_bytes(8, "big") + name
        directory = self.inode(parent)
        if directory is not None and self.base_entry(directory, name) is not None:
            old = self.dirent(parent, name)
            batch.put(Family.DIRENT, key, encode_dirent(Dirent(0, 0, 0 if old is None else old.seq)))
            if not directory.flags & HAS_DELTAS:
                self.put(batch, parent, changed(directory, flags=directory.flags | HAS_DELTAS))
        else:
            batch.delete(Family.DIRENT, key)

    def path(self, ino: int) -> str:
        """Return a path below the mount, as far as it can be found without looking everywhere; `inode N` otherwise."""
        parts: list[bytes] = []
        for _ in range(4096):
            if ino == ROOT:
                return b"/".join(reversed(parts)).decode("utf-8", "backslashreplace") or "/"
            found = self._name_of(ino)
            if found is None:
                break
            ino, name = found
            parts.append(name)
        rest = b"/".join(reversed(parts)).decode("utf-8", "backslashreplace")
        return f"inode {ino}/{rest}" if rest else f"inode {ino}"

    def _name_of(self, ino: int) -> tuple[int, bytes] | None:
        if ino == PREPARED:
            return ROOT, PREPARED_NAME
        if ino == TRASH:
            return ROOT, b".trash"
        for name, fixed in FIXED.items():
            if fixed == ino:
                return ROOT, name
        inode = self.inode(ino)
        if inode is None:
            return None
        member = self.member(ino)
        if inode.is_directory:
            for name, dirent in self.dirents(inode.parent):
                if dirent.child == ino and dirent.kind:
                    return inode.parent, name
        return (member[1], member[0].name) if member is not None and self.shows_member(member) else None


def fresh_directory(exam: Examination, like: Inode | None, parent: int) -> Inode:
    """Return a new, empty directory for what was found; only its owner may look."""
    now_ns = exam.clock.now_ns()
    owner = (0, 0) if like is None else (like.uid, like.gid)
    return Inode(stat.S_IFDIR | 0o700, *owner, 2, 0, now_ns, now_ns, now_ns, parent=parent)


def give_a_name(exam: Examination, rows: NamespaceRows, batch: Batch, ino: int, inode: Inode) -> str:
    """Put a nameless inode into `work/lost+found`, which is made if need be; return its path."""
    work = rows.row(WORK)
    found = rows.dirent(WORK, LOST_AND_FOUND)
    if found is not None and found.kind == stat.S_IFDIR >> 12 and rows.inode(found.child) is not None:
        place = found.child
    else:
        place = Counters(exam.catalog).take(NEXT_INO)
        directory = fresh_directory(exam, work, WORK)
        rows.put(batch, place, directory)
        rows.put_name(exam, batch, WORK, LOST_AND_FOUND, place, directory)
    name = str(ino).encode()
    inode = changed(inode, parent=place) if inode.is_directory else changed(inode, nlink=1)
    rows.put(batch, ino, inode)
    rows.put_name(exam, batch, place, name, ino, inode)
    return f"work/lost+found/{ino}"
