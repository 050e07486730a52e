"""Staged files: rows, files and inodes belong together.  Bytes that only a staging file has are never thrown away."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec

from tvfs.catalog.catalog import Batch, Family
from tvfs.content.reference import Content
from tvfs.filesystem.inode import STAGED, Inode, changed
from tvfs.filesystem.staged_file import FILE_VERSION, StagedRow, decode_row
from tvfs.fsck.examination import Examination
from tvfs.fsck.finding import Finding, Step
from tvfs.fsck.namespace_rows import NamespaceRows, decode_inode
from tvfs.fsck.pack_files import set_aside

CHECK = "staging"
_NAME = re.compile(r"([0-9a-f]{16})\.([0-9]+)(\.map)?")


def check_staging(exam: Examination) -> Iterator[Step]:
    """Yield what brings rows in line with inodes and files; runs before the check of names."""
    rows = NamespaceRows(exam)
    yield from _check_rows(exam, rows)
    yield from _check_inodes(exam, rows)


def check_staging_files(exam: Examination) -> Iterator[Step]:
    """Yield what takes away files that no row leads to; runs when it is settled which rows there are."""
    for path in _files(exam):
        match = _NAME.fullmatch(path.name)
        ino = int(match[1], 16) if match else 0
        row = None if match is None else exam.catalog.get(Family.STAGING, ino.to_bytes(8, "big"))
        staged = None if row is None else _decoded(row)
        if match and staged is not None and not staged[0].content and path in _paths(exam, ino, staged[0].generation):
            continue
        where = f"staging/{path.parent.name}/{path.name}"
        act: Callable[[], None] = partial(_unlink, path)
        remedy = "removed"
        after_stop = not (exam.clean or exam.rebuilt)
        if not after_stop or match is None:
            act, remedy = set_aside(exam, path), "set aside"
        yield Step(Finding(CHECK, where, "nothing leads to it", remedy, after_stop=after_stop), act=act)


def _check_rows(exam: Examination, rows: NamespaceRows) -> Iterator[Step]:
    for key, row in exam.catalog.scan(Family.STAGING):
        ino = int.from_bytes(key, "big")
        inode = rows.row(ino) if len(key) == 8 else None
        staged = _decoded(row)
        if inode is None or inode.state != STAGED or staged is None:
            batch = Batch()
            batch.delete(Family.STAGING, key)
            what = "its row cannot be read" if staged is None else "no staged inode belongs to it"
            yield Step(Finding(CHECK, f"staged file {ino}", what, "row removed"), batch)
            continue
        path = exam.layout.staged_file(ino, staged[0].generation)
        if not staged[0].content and not path.exists():
            what = "its bytes are gone; what was sealed before is left"
            if staged[1] is None:
                what = "its bytes are gone"
            act = partial(_make_file, path, staged[0].base_limit)
            finding = Finding(CHECK, f"staged file {ino}", what, "made anew", after_stop=not exam.clean)
            yield Step(finding, act=act)


def _check_inodes(exam: Examination, rows: NamespaceRows) -> Iterator[Step]:
    for key, row in exam.catalog.scan(Family.INODE):
        inode = decode_inode(row)
        if inode is None or inode.state != STAGED or exam.catalog.get(Family.STAGING, key) is not None:
            continue
        ino = int.from_bytes(key, "big")
        generation = _generation_of(exam, ino)
        batch = Batch()
        if generation is None:
            batch.delete(Family.INODE, key)
            remedy = "the file is removed, with its names"
            yield Step(Finding(CHECK, f"inode {ino}", "its staged bytes are gone", remedy), batch)
            continue
        batch.put(Family.STAGING, key, msgspec.msgpack.encode(StagedRow(FILE_VERSION, generation)))
        batch.put(Family.INODE, key, _staged(inode).encode())
        finding = Finding(CHECK, f"inode {ino}", "its row of staging is gone", f"its file {generation} is taken in")
        yield Step(finding, batch)


def _generation_of(exam: Examination, ino: int) -> int | None:
    """Return the latest staging file of an inode that is whole in itself: one with a map is not."""
    directory = exam.layout.staging_directory(ino)
    found = []
    for path in directory.iterdir() if directory.is_dir() else ():
        match = _NAME.fullmatch(path.name)
        if match and int(match[1], 16) == ino and not match[3] and not path.with_name(path.name + ".map").exists():
            found.append(int(match[2]))
    return max(found, default=None)


def _paths(exam: Examination, ino: int, generation: int) -> tuple[Path, Path]:
    return exam.layout.staged_file(ino, generation), exam.layout.staged_map(ino, generation)


def _decoded(row: bytes) -> tuple[StagedRow, Content | None] | None:
    try:
        return decode_row(row)
    except (msgspec.MsgspecError, ValueError):
        return None


def _staged(inode: Inode) -> Inode:
    return changed(inode, size=0)


def _files(exam: Examination) -> Iterator[Path]:
    for parent, _, names in os.walk(exam.layout.staging):
        for name in sorted(names):
            yield Path(parent) / name


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


def _make_file(path: Path, size: int) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("ab") as file:
        os.truncate(file.fileno(), size)
        os.fsync(file.fileno())
