"""Attached ranges: each leads to a tree that is there, has a number for each inode of the tree, and overlaps none."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tvfs.catalog.catalog import Batch, Family
from tvfs.filesystem.directories import decode_dirent
from tvfs.filesystem.evictable_rows import TO_GATHER, file_row
from tvfs.filesystem.inode import HAS_DELTAS, NO_HASH, Inode, changed
from tvfs.filesystem.ranges import AttachedRange
from tvfs.filesystem.scans import rows_of
from tvfs.fsck.examination import Examination
from tvfs.fsck.finding import Finding, Step
from tvfs.fsck.namespace_rows import decode_inode, decode_range
from tvfs.fsck.tree_rebuild import read_root

CHECK = "ranges"


def check_ranges(exam: Examination) -> Iterator[Step]:
    """Yield what makes ranges true; a directory whose tree is gone keeps what was changed in it."""
    yield from _check_rows(exam)
    yield from _check_bases(exam)


def _check_rows(exam: Examination) -> Iterator[Step]:
    before: AttachedRange | None = None
    for key, row in exam.catalog.scan(Family.RANGE):
        attached = decode_range(key, row)
        where = f"range {int.from_bytes(key, 'big')}"
        if attached is None:
            yield _removed(key, where, "its row cannot be read", "removed; made anew if its directory is known")
            continue
        root = read_root(exam, attached.index)
        if root is None:
            yield _removed(key, where, f"its tree {attached.index.hex()} is gone", "removed")
            continue
        if attached.count != 1 + root.below:
            attached = msgspec.structs.replace(attached, count=1 + root.below)
            batch = Batch()
            batch.put(Family.RANGE, key, msgspec.msgpack.encode(attached))
            finding = Finding(CHECK, where, "it has another count of numbers than its tree has inodes", "put right")
            yield Step(finding, batch)
        if before is not None and before.end > attached.first:
            weaker = before if _is_rooted(exam, attached) and not _is_rooted(exam, before) else attached
            weak_key = weaker.first.to_bytes(8, "big")
            what = f"range {before.first} and range {attached.first} overlap"
            yield _removed(weak_key, f"range {weaker.first}", what, "removed")
            before = attached if weaker is before else before
            continue
        is_left = next(exam.catalog.scan(Family.INODE, key, attached.end.to_bytes(8, "big")), None) is not None
        # Its root was removed, and it is about to be dissolved.
        is_going = exam.catalog.get(Family.USAGE, file_row(TO_GATHER, attached.first)) is not None
        if not is_left and not is_going:
            yield _removed(key, where, "nothing that it attached is there any more", "removed")
            continue
        before = attached


def _check_bases(exam: Examination) -> Iterator[Step]:
    """Directories with a base: the tree is there, and a range gives its inodes their numbers."""
    for key, row in exam.catalog.scan(Family.INODE):
        inode = decode_inode(row)
        if inode is None or not inode.is_directory or inode.hash == NO_HASH:
            continue
        ino = int.from_bytes(key, "big")
        root = read_root(exam, inode.hash)
        where = f"directory {ino}"
        if root is None:
            yield _detached(exam, ino, inode, "the tree that it was attached by is gone")
            continue
        attached = _range_of(exam, ino)
        if attached is not None and (attached.first != ino or attached.index == inode.hash):
            continue
        following = next(exam.catalog.scan(Family.RANGE, (ino + 1).to_bytes(8, "big")), None)
        if attached is not None or (following and int.from_bytes(following[0], "big") < ino + 1 + root.below):
            yield _detached(exam, ino, inode, "its range is that of another tree")
            continue
        # Its owner and time are those of the directory, and members may have moved: the careful answer.
        anew = AttachedRange(
            1, ino, 1 + root.below, inode.hash, inode.uid, inode.gid, False, inode.ctime_ns, inode.read_only, True
        )
        batch = Batch()
        batch.put(Family.RANGE, key, msgspec.msgpack.encode(anew))
        yield Step(Finding(CHECK, where, "the numbers of what it was attached with are gone", "made anew"), batch)


def _range_of(exam: Examination, ino: int) -> AttachedRange | None:
    row = exam.catalog.last(Family.RANGE, ino.to_bytes(8, "big"))
    attached = None if row is None else decode_range(*row)
    return attached if attached is not None and ino < attached.end else None


def _is_rooted(exam: Examination, attached: AttachedRange) -> bool:
    row = exam.catalog.get(Family.INODE, attached.first.to_bytes(8, "big"))
    inode = None if row is None else decode_inode(row)
    return inode is not None and inode.hash == attached.index


def _detached(exam: Examination, ino: int, inode: Inode, what: str) -> Step:
    """Let a directory have only what was put into it since: what the tree held is lost."""
    batch = Batch()
    bare = changed(inode, hash=NO_HASH, flags=inode.flags & ~HAS_DELTAS)
    batch.put(Family.INODE, ino.to_bytes(8, "big"), bare.encode())
    for key, row in rows_of(exam.catalog, Family.DIRENT, ino):
        if len(row) == 20 and not decode_dirent(row).kind:
            batch.delete(Family.DIRENT, key)
    remedy = "it keeps what was changed in it since; the rest is lost"
    return Step(Finding(CHECK, f"directory {ino}", what, remedy), batch)


def _removed(key: bytes, where: str, what: str, remedy: str) -> Step:
    batch = Batch()
    batch.delete(Family.RANGE, key)
    return Step(Finding(CHECK, where, what, remedy), batch)
