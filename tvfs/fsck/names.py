"""Names: each leads to an inode, each inode has one, counts are what they count, and every directory is below the root.

Memory: a few bits an inode, and what has more than one name.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator

from tvfs.catalog.catalog import Batch, Family
from tvfs.filesystem.directories import Dirent, decode_dirent, encode_dirent
from tvfs.filesystem.inode import HAS_DELTAS, NO_HASH, OWN_XATTRS, Inode, changed
from tvfs.filesystem.model import FIRST_FREE, ROOT, WORK
from tvfs.filesystem.views import FIXED
from tvfs.fsck.examination import Examination
from tvfs.fsck.finding import Finding, Step
from tvfs.fsck.namespace_rows import (
    FIXED_INODES,
    NamespaceRows,
    decode_inode,
    fresh_directory,
    give_a_name,
)
from tvfs.fsck.number_set import NumberSet

CHECK = "names"
_DIRECTORY = stat.S_IFDIR >> 12
_MOST_NAME_BYTES = 255


class Named:
    """How many names each inode has, as far as it was looked."""

    def __init__(self) -> None:
        self._once = NumberSet()
        self._more: dict[int, int] = {}

    def add(self, ino: int) -> bool:
        """Count one more name; return False if it was not the first."""
        if self._once.add(ino):
            return True
        self._more[ino] = self._more.get(ino, 1) + 1
        return False

    def count(self, ino: int) -> int:
        """How many names were counted."""
        return self._more.get(ino, 1 if ino in self._once else 0)


def check_names(exam: Examination) -> Iterator[Step]:
    """Yield what makes the namespace whole; nothing for a vault whose namespace was never made."""
    if next(exam.catalog.scan(Family.INODE), None) is None and next(exam.catalog.scan(Family.DIRENT), None) is None:
        return
    yield from _check_inode_rows(exam)
    yield from _check_fixed(exam)
    rows = NamespaceRows(exam)
    yield from _check_parents(exam, rows)
    named = Named()
    yield from _check_rows(exam, rows, named)
    yield from _check_members(exam, rows, named)
    yield from _check_links(exam, rows, named)
    yield from _check_reachable(exam, rows)
    yield from _check_counts(exam, rows)
    yield from _check_leftovers(exam, rows)


def _check_inode_rows(exam: Examination) -> Iterator[Step]:
    for key, row in exam.catalog.scan(Family.INODE):
        if len(key) == 8 and decode_inode(row) is not None:
            continue
        batch = Batch()
        batch.delete(Family.INODE, key)
        what = "its row cannot be read"
        yield Step(Finding(CHECK, f"inode {int.from_bytes(key, 'big')}", what, "removed, with its names"), batch)


def _check_fixed(exam: Examination) -> Iterator[Step]:
    rows = NamespaceRows(exam)
    for ino in FIXED_INODES:
        inode = rows.row(ino)
        if inode is None or not inode.is_directory or inode.hash != NO_HASH:
            batch = Batch()
            rows.put(batch, ino, fresh_directory(exam, rows.row(WORK), ROOT))
            yield Step(Finding(CHECK, f"directory {ino}", "it is always there, and was not", "made anew"), batch)
    for name, ino in FIXED.items():
        found = rows.dirent(ROOT, name)
        if found is None or found.child != ino or found.kind != _DIRECTORY:
            batch = Batch()
            inode = rows.row(ino)
            assert inode is not None, "it has just been made"
            rows.put_name(exam, batch, ROOT, name, ino, inode)
            yield Step(Finding(CHECK, name.decode(), "the root does not lead to it", "it does"), batch)


def _check_parents(exam: Examination, rows: NamespaceRows) -> Iterator[Step]:
    """Directories that have names in them are there, and know that they have rows."""
    last = -1
    for key, _ in exam.catalog.scan(Family.DIRENT):
        parent = int.from_bytes(key[:8], "big")
        if parent == last or len(key) < 8:
            continue
        last = parent
        directory = rows.inode(parent)
        if directory is None:
            if parent < FIRST_FREE:
                continue
            batch = Batch()
            rows.put(batch, parent, fresh_directory(exam, rows.row(WORK), 0))
            what = "it is gone, and names in it are there"
            yield Step(Finding(CHECK, f"directory {parent}", what, "made anew, for what is in it"), batch)
        elif _knows_nothing_of_rows(directory) or rows.row(parent) is None:
            batch = Batch()
            flags = directory.flags | (HAS_DELTAS if directory.is_directory else 0)
            rows.put(batch, parent, changed(directory, flags=flags))
            what = "names were put into it and it does not know"
            yield Step(Finding(CHECK, f"directory {parent}", what, "it knows"), batch)


def _knows_nothing_of_rows(directory: Inode) -> bool:
    return directory.is_directory and directory.hash != NO_HASH and not directory.flags & HAS_DELTAS


def _check_rows(exam: Examination, rows: NamespaceRows, named: Named) -> Iterator[Step]:
    strayed: list[tuple[int, bytes, int]] = []
    for key, row in exam.catalog.scan(Family.DIRENT):
        parent, name = int.from_bytes(key[:8], "big"), key[8:]
        directory = rows.inode(parent)
        reason = _reason_against(rows, directory, name, row)
        if reason is not None:
            batch = Batch()
            if directory is None or not directory.is_directory or not _is_name(name):
                batch.delete(Family.DIRENT, key)
            else:
                rows.remove_name(batch, parent, name)
            yield Step(Finding(CHECK, _place(rows, parent, name), reason, "name removed"), batch)
            continue
        dirent = decode_dirent(row)
        if not dirent.kind:
            continue
        child = rows.named(dirent.child)
        assert child is not None, "a name that leads nowhere has been removed"
        if child.kind != dirent.kind:
            batch = Batch()
            batch.put(Family.DIRENT, key, encode_dirent(dirent._replace(kind=child.kind)))
            finding = Finding(CHECK, _place(rows, parent, name), "it tells another type of file", "put right")
            yield Step(finding, batch)
        if not child.is_directory:
            named.add(dirent.child)
        elif child.parent != parent:
            strayed.append((parent, name, dirent.child))
        elif not named.add(dirent.child):
            yield _second_name(rows, parent, name)
    for parent, name, ino in strayed:
        yield from _settle_stray(exam, rows, named, parent, name, ino)


def _reason_against(rows: NamespaceRows, directory: Inode | None, name: bytes, row: bytes) -> str | None:
    if directory is None or not directory.is_directory:
        return "it is in no directory"
    if not _is_name(name):
        return "it cannot be a name"
    if len(row) != 20:
        return "its row cannot be read"
    dirent: Dirent = decode_dirent(row)
    if not dirent.kind:
        return None if rows.base_entry(directory, name) is not None else "it hides what is not there"
    child = rows.named(dirent.child)
    if child is None or (dirent.child in FIXED_INODES and FIXED.get(name) != dirent.child):
        return f"it leads to inode {dirent.child}, which is not there"
    return None


def _settle_stray(
    exam: Examination, rows: NamespaceRows, named: Named, parent: int, name: bytes, ino: int
) -> Iterator[Step]:
    """A directory that says that it is elsewhere: if it is not, it is here."""
    inode = rows.named(ino)
    member = rows.member(ino)
    if inode is None:
        return
    is_elsewhere = named.count(ino) > 0 or (member is not None and rows.shows_member(member))
    if is_elsewhere:
        yield _second_name(rows, parent, name)
        return
    named.add(ino)
    if ino in FIXED_INODES:
        return
    batch = Batch()
    rows.put(batch, ino, changed(inode, parent=parent))
    yield Step(Finding(CHECK, _place(rows, parent, name), "it says that it is elsewhere", "put right"), batch)


def _second_name(rows: NamespaceRows, parent: int, name: bytes) -> Step:
    batch = Batch()
    rows.remove_name(batch, parent, name)
    what = "it is a second name of a directory, which can have one only"
    return Step(Finding(CHECK, _place(rows, parent, name), what, "name removed"), batch)


def _check_members(exam: Examination, rows: NamespaceRows, named: Named) -> Iterator[Step]:
    """Inodes of attached trees that have a row may still have the name that the tree gives them."""
    for key, row in exam.catalog.scan(Family.INODE):
        ino = int.from_bytes(key, "big")
        member = rows.member(ino)
        if member is None or not rows.shows_member(member):
            continue
        inode = decode_inode(row)
        if inode is None:
            continue
        entry, parent, _ = member
        if not named.add(ino) and inode.is_directory:
            yield _second_name(rows, parent, entry.name)
        elif inode.is_directory and inode.parent != parent:
            batch = Batch()
            rows.put(batch, ino, changed(inode, parent=parent))
            finding = Finding(CHECK, _place(rows, parent, entry.name), "it says that it is elsewhere", "put right")
            yield Step(finding, batch)


def _check_links(exam: Examination, rows: NamespaceRows, named: Named) -> Iterator[Step]:
    for key, _ in exam.catalog.scan(Family.INODE):
        ino = int.from_bytes(key, "big")
        inode = rows.row(ino)
        if inode is None or ino in FIXED_INODES:
            continue
        names = named.count(ino)
        if not names:
            yield _nameless(exam, rows, ino, inode)
        elif not inode.is_directory and inode.nlink != names:
            batch = Batch()
            rows.put(batch, ino, changed(inode, nlink=names))
            what = f"it has {names} names and counts {inode.nlink}"
            yield Step(Finding(CHECK, f"inode {ino}", what, "put right"), batch)


def _nameless(exam: Examination, rows: NamespaceRows, ino: int, inode: Inode) -> Step:
    batch = Batch()
    if inode.nlink == 0:
        was_open = exam.catalog.get(Family.ORPHAN, ino.to_bytes(8, "big")) is not None
        purge(exam, batch, ino)
        what = "it was removed while it was open" if was_open else "it was removed and is still there"
        finding = Finding(CHECK, f"inode {ino}", what, "purged", after_stop=was_open and not exam.clean)
        return Step(finding, batch)
    path = give_a_name(exam, rows, batch, ino, inode)
    return Step(Finding(CHECK, f"inode {ino}", "it has no name", f"moved to {path}"), batch)


def purge(exam: Examination, batch: Batch, ino: int) -> None:
    """Remove everything that is kept under an inode's number; its staging file is a stray from then on."""
    key, end = ino.to_bytes(8, "big"), (ino + 1).to_bytes(8, "big")
    for family in (Family.INODE, Family.ORPHAN, Family.STAGING):
        batch.delete(family, key)
    for family in (Family.XATTR, Family.DIRENT):
        batch.delete_range(family, key, end)


def _check_reachable(exam: Examination, rows: NamespaceRows) -> Iterator[Step]:
    """Every directory leads to the root: a ring of directories that contain each other is opened."""
    reachable = NumberSet()
    for fixed in FIXED_INODES:
        reachable.add(fixed)
    for key, row in exam.catalog.scan(Family.INODE):
        inode = decode_inode(row)
        if inode is None or not inode.is_directory:
            continue
        ino = int.from_bytes(key, "big")
        walked: dict[int, None] = {}
        above: Inode | None = inode
        while ino not in reachable and ino not in walked and above is not None:
            walked[ino] = None
            above = rows.inode(ino)
            ino = above.parent if above is not None else ino
        if ino not in reachable and walked:
            # A ring, or a parent that is not there; the name in it goes, and the directory is found again.
            yield from _reattached(exam, rows, min(walked) if ino in walked else list(walked)[-1])
        for each in walked:
            reachable.add(each)


def _reattached(exam: Examination, rows: NamespaceRows, ino: int) -> Iterator[Step]:
    inode = rows.inode(ino)
    if inode is None:
        return
    batch = Batch()
    for name, dirent in rows.dirents(inode.parent):
        if dirent.child == ino and dirent.kind:
            rows.remove_name(batch, inode.parent, name)
    member = rows.member(ino)
    if member is not None and member[1] == inode.parent and rows.shows_member(member):
        rows.remove_name(batch, member[1], member[0].name)
    path = give_a_name(exam, rows, batch, ino, inode)
    what = "it does not lead to the root: it is below itself"
    yield Step(Finding(CHECK, f"directory {ino}", what, f"moved to {path}"), batch)


def _check_counts(exam: Examination, rows: NamespaceRows) -> Iterator[Step]:
    for key, row in exam.catalog.scan(Family.INODE):
        found = decode_inode(row)
        if found is None or not found.is_directory:
            continue
        ino = int.from_bytes(key, "big")
        inode = rows.row(ino)
        if inode is None or (inode.nlink == 0 and ino >= FIRST_FREE):
            continue
        names, subdirectories = _counted(rows, ino, inode)
        if (inode.entries, inode.nlink) != (names, 2 + subdirectories):
            batch = Batch()
            rows.put(batch, ino, changed(inode, entries=names, nlink=2 + subdirectories))
            counted = f"{inode.entries} and {inode.nlink - 2}"
            what = f"it has {names} names, {subdirectories} of directories, and counts {counted}"
            yield Step(Finding(CHECK, rows.path(ino), what, "put right"), batch)


def _counted(rows: NamespaceRows, ino: int, inode: Inode) -> tuple[int, int]:
    names = subdirectories = 0
    if inode.hash != NO_HASH:
        root = rows.trees.root(inode.hash)
        names, subdirectories = root.entries, root.subdirectories
    for name, dirent in rows.dirents(ino):
        hidden = rows.base_entry(inode, name)
        if hidden is not None:
            names -= 1
            subdirectories -= hidden.kind == _DIRECTORY
        names += dirent.kind != 0
        subdirectories += dirent.kind == _DIRECTORY
    return names, subdirectories


def _check_leftovers(exam: Examination, rows: NamespaceRows) -> Iterator[Step]:
    for key, _ in exam.catalog.scan(Family.ORPHAN):
        ino = int.from_bytes(key, "big")
        inode = rows.row(ino) if len(key) == 8 else None
        if inode is None or inode.nlink:
            batch = Batch()
            batch.delete(Family.ORPHAN, key)
            yield Step(Finding(CHECK, f"orphan {ino}", "it has a name, or is not there", "not an orphan"), batch)
    last = -1
    for key, _ in exam.catalog.scan(Family.XATTR):
        ino = int.from_bytes(key[:8], "big")
        inode = rows.row(ino)
        if inode is not None and inode.flags & OWN_XATTRS and len(key) > 8:
            continue
        batch = Batch()
        batch.delete(Family.XATTR, key)
        finding = Finding(CHECK, f"inode {ino}", "it has extended attributes that do not count", "removed")
        yield Step(finding if ino != last else None, batch)
        last = ino


def _is_name(name: bytes) -> bool:
    if not 0 < len(name) <= _MOST_NAME_BYTES or name in (b".", b".."):
        return False
    return b"/" not in name and b"\0" not in name


def _place(rows: NamespaceRows, parent: int, name: bytes) -> str:
    return f"{rows.path(parent)}/{name.decode('utf-8', 'backslashreplace')}"
