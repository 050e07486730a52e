"""Evictable directories, and what is known of the files in them: eviction knows each file, so that it can go one day.

A row that stands for nothing any more is no fault: it is forgotten when it is met.  What lacks a row is, unless a
directory is still to be gone through; then that is put right by having it gone through.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator

from tvfs.catalog.catalog import Batch, Family
from tvfs.errors import RowDamaged
from tvfs.filesystem.directories import decode_dirent
from tvfs.filesystem.evictable_rows import (
    FILE,
    MARKED,
    NAMES_FIRST,
    TO_GATHER,
    FileUse,
    decode_use,
    file_row,
    inode_of,
    last_of,
    parse_file_rank,
    rank_row,
)
from tvfs.filesystem.inode import EVICTABLE, NO_HASH, Inode
from tvfs.filesystem.model import ROOT
from tvfs.fsck.examination import Examination
from tvfs.fsck.finding import Finding, Step
from tvfs.fsck.namespace_rows import NamespaceRows, decode_inode
from tvfs.vault.entry_usage import FILES_BY_RANK

CHECK = "evictable"
_REGULAR = stat.S_IFREG >> 12


def check_evictables(exam: Examination) -> Iterator[Step]:
    """Yield what makes eviction know every file that it may take; runs after the check of names."""
    yield from _check_keys(exam)
    rows = NamespaceRows(exam)
    yield from _check_marks(exam, rows)
    yield from _check_uses(exam, rows)
    if next(exam.catalog.scan(Family.USAGE, MARKED, last_of(MARKED)), None) is not None:
        yield from _check_known(exam, rows)


def _check_keys(exam: Examination) -> Iterator[Step]:
    for key, _ in exam.catalog.scan(Family.USAGE, FILES_BY_RANK):
        length = {FILES_BY_RANK: 17, FILE: 9, TO_GATHER: 9, MARKED: 9}.get(key[:1])
        if length is not None and len(key) != length:
            yield _removed(key, f"row {key.hex()}", "it is about no inode")


def _check_marks(exam: Examination, rows: NamespaceRows) -> Iterator[Step]:
    for key, row in exam.catalog.scan(Family.INODE):
        inode = decode_inode(row)
        ino = int.from_bytes(key, "big")
        if inode is None or not inode.flags & EVICTABLE or not inode.is_directory:
            continue
        if exam.catalog.get(Family.USAGE, file_row(MARKED, ino)) is None:
            batch = Batch()
            batch.put(Family.USAGE, file_row(MARKED, ino), b"")
            batch.put(Family.USAGE, file_row(TO_GATHER, ino), NAMES_FIRST)
            yield Step(Finding(CHECK, rows.path(ino), "eviction does not know of it", "made known"), batch)
    for key, _ in exam.catalog.scan(Family.USAGE, MARKED, last_of(MARKED)):
        inode = rows.row(inode_of(key))
        if inode is None or not inode.flags & EVICTABLE:
            yield _removed(key, rows.path(inode_of(key)), "eviction takes it for evictable, and it is not marked")


def _check_uses(exam: Examination, rows: NamespaceRows) -> Iterator[Step]:
    for key, row in exam.catalog.scan(Family.USAGE, FILE, last_of(FILE)):
        ino = inode_of(key)
        use = _decoded(row)
        if use is None:
            yield _removed(key, f"inode {ino}", "what is known of its use cannot be read")
        elif rows.inode(ino) is None:
            yield Step(None, _without(key))
        elif use.rank is not None and exam.catalog.get(Family.USAGE, rank_row(use.rank, ino)) is None:
            batch = Batch()
            batch.put(Family.USAGE, rank_row(use.rank, ino), b"")
            yield Step(Finding(CHECK, f"inode {ino}", "it is not in the ranking", "put into it"), batch)
    for key, _ in exam.catalog.scan(Family.USAGE, FILES_BY_RANK, FILES_BY_RANK + b"\xff" * 17):
        rank, ino = parse_file_rank(key)
        row_of_use = exam.catalog.get(Family.USAGE, file_row(FILE, ino))
        use = None if row_of_use is None else _decoded(row_of_use)
        if use is None or use.rank != rank:
            yield Step(None, _without(key))


def _check_known(exam: Examination, rows: NamespaceRows) -> Iterator[Step]:
    last, wanted = -1, False
    for key, row in exam.catalog.scan(Family.DIRENT):
        parent = int.from_bytes(key[:8], "big")
        if parent != last:
            last, wanted = parent, _is_gone_through(exam, rows, parent)
        if wanted:
            dirent = decode_dirent(row)
            if dirent.kind == _REGULAR and exam.catalog.get(Family.USAGE, file_row(FILE, dirent.child)) is None:
                wanted = False
                yield _to_gather(rows, parent, "eviction does not know all files in it")
    for key, row in exam.catalog.scan(Family.INODE):
        inode = decode_inode(row)
        if inode is not None and inode.is_directory and inode.hash != NO_HASH:
            ino = int.from_bytes(key, "big")
            if _is_gone_through(exam, rows, ino):
                yield _to_gather(rows, ino, "eviction does not know the attached files in it")


def _is_gone_through(exam: Examination, rows: NamespaceRows, ino: int) -> bool:
    """Whether a directory is evictable, and neither it nor one above it is still to be gone through."""
    evictable = False
    for _ in range(4096):
        inode: Inode | None = rows.inode(ino)
        if inode is None or exam.catalog.get(Family.USAGE, file_row(TO_GATHER, ino)) is not None:
            return False
        evictable |= bool(inode.flags & EVICTABLE)
        if ino == ROOT or not inode.parent or inode.parent == ino:
            return evictable
        ino = inode.parent
    return False


def _to_gather(rows: NamespaceRows, ino: int, what: str) -> Step:
    batch = Batch()
    batch.put(Family.USAGE, file_row(TO_GATHER, ino), NAMES_FIRST)
    return Step(Finding(CHECK, rows.path(ino), what, "the next start goes through it"), batch)


def _removed(key: bytes, where: str, what: str) -> Step:
    return Step(Finding(CHECK, where, what, "removed"), _without(key))


def _without(key: bytes) -> Batch:
    batch = Batch()
    batch.delete(Family.USAGE, key)
    return batch


def _decoded(row: bytes) -> FileUse | None:
    try:
        return decode_use(row)
    except RowDamaged:
        return None
