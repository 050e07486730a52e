"""What the mount shows of entries (`keys/`, `runs/`, `snapshots/`) is what the entries are.

A view that is not is marked as being changed; the next start of the daemon makes it anew from its entry, or takes it
away.  What cannot be the view of any entry goes to the trash.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from urllib.parse import unquote

from tvfs.catalog.catalog import Batch, Family, prefix_end
from tvfs.filesystem.inode import Inode, changed
from tvfs.filesystem.model import KEYS, RUNS, SNAPSHOTS, TRASH
from tvfs.fsck.entries import VIEW_CHANGING
from tvfs.fsck.examination import Examination
from tvfs.fsck.finding import Finding, Step
from tvfs.fsck.namespace_rows import NamespaceRows
from tvfs.vault.names import NameInvalid, check_key, check_scope
from tvfs.vault.stored_entry import PATHS, RUN, StoredEntry, decode_entry

CHECK = "views"
SNAPSHOT_SCOPE = ".snapshots"
SHOWN_RUN = b"run:"
"""Rows of family `sys`, followed by scope, 0x00, key: under which run's number a run entry is shown."""
_DIRECTORY = stat.S_IFDIR >> 12


def check_views(exam: Examination) -> Iterator[Step]:
    """Yield what has views made anew; nothing for a vault whose namespace was never made."""
    rows = NamespaceRows(exam)
    if rows.row(KEYS) is None:
        return
    yield from _check_shown_runs(exam)
    yield from _check_missing(exam, rows)
    for scope_name, dirent in list(rows.dirents(KEYS)):
        scope = _scope_of(scope_name)
        if dirent.kind != _DIRECTORY or scope is None:
            yield _to_trash(exam, rows, KEYS, scope_name, dirent.child)
            continue
        for name, shown in rows.dirents(dirent.child):
            yield from _check_shown(exam, rows, dirent.child, name, shown.child, scope)
    for name, shown in rows.dirents(SNAPSHOTS):
        yield from _check_shown(exam, rows, SNAPSHOTS, name, shown.child, SNAPSHOT_SCOPE)
    yield from _check_runs(exam, rows)


def _check_shown_runs(exam: Examination) -> Iterator[Step]:
    for key, run in exam.catalog.scan(Family.SYS, SHOWN_RUN, prefix_end(SHOWN_RUN)):
        row_key = key[len(SHOWN_RUN) :]
        entry = _entry(exam, row_key)
        if entry is None or entry.kind != RUN or not run.isdigit():
            # What is shown under the number is found below to be no view.
            batch = Batch()
            batch.delete(Family.SYS, key)
            finding = Finding(
                CHECK, f"run {run.decode('ascii', 'replace')}", "it shows an entry that is gone", "forgotten"
            )
            yield Step(None if _is_being_changed(exam, row_key) else finding, batch)


def _check_missing(exam: Examination, rows: NamespaceRows) -> Iterator[Step]:
    for row_key, row in exam.catalog.scan(Family.ENTRY):
        entry = decode_entry(row_key, row)
        if entry.snapshot is None or _is_being_changed(exam, row_key):
            continue
        place = _place(exam, rows, entry)
        if place is None:
            continue
        parent, name = place
        dirent = rows.dirent(parent, name) if parent else None
        inode = None if dirent is None or not dirent.kind else rows.inode(dirent.child)
        if inode is None or inode.hash != entry.snapshot.index:
            what = "the mount does not show it" if inode is None else "the mount shows something else"
            yield _anew(row_key, f"entry {entry.scope}/{entry.key}", what)


def _place(exam: Examination, rows: NamespaceRows, entry: StoredEntry) -> tuple[int, bytes] | None:
    """Return where an entry is to be seen: directory (0 if that is not there) and name; None if nowhere."""
    if entry.scope == SNAPSHOT_SCOPE:
        return None if entry.expires_ns else (SNAPSHOTS, entry.key.encode())
    if entry.kind == PATHS:
        return None
    row_key = entry.scope.encode() + b"\0" + entry.key.encode()
    if entry.kind == RUN:
        run = exam.catalog.get(Family.SYS, SHOWN_RUN + row_key)
        return None if run is None else (RUNS, run)
    scope = rows.dirent(KEYS, _directory_of(entry.scope))
    return (scope.child if scope is not None else 0), entry.key.encode()


def _check_shown(  # a place, and what is there
    exam: Examination, rows: NamespaceRows, parent: int, name: bytes, ino: int, scope: str
) -> Iterator[Step]:
    try:
        key = check_key(name.decode())
    except (UnicodeDecodeError, NameInvalid):
        yield _to_trash(exam, rows, parent, name, ino)
        return
    row_key = scope.encode() + b"\0" + key.encode()
    entry = _entry(exam, row_key)
    if _is_being_changed(exam, row_key):
        return
    if entry is None or entry.snapshot is None or _place(exam, rows, entry) != (parent, name):
        yield _anew(row_key, rows.path(ino), "it shows an entry that is gone")


def _check_runs(exam: Examination, rows: NamespaceRows) -> Iterator[Step]:
    shown = {run for _, run in exam.catalog.scan(Family.SYS, SHOWN_RUN, prefix_end(SHOWN_RUN))}
    for name, dirent in list(rows.dirents(RUNS)):
        if name not in shown:
            yield _to_trash(exam, rows, RUNS, name, dirent.child)


def _to_trash(exam: Examination, rows: NamespaceRows, parent: int, name: bytes, ino: int) -> Step:
    where = rows.path(parent) + "/" + name.decode("utf-8", "backslashreplace")
    batch = Batch()
    inode, above, trash = rows.inode(ino), rows.row(parent), rows.row(TRASH)
    assert inode is not None, "names were checked before"
    assert above is not None, "names were checked before"
    assert trash is not None, "names were checked before"
    rows.remove_name(batch, parent, name)
    rows.put(batch, parent, _with_names(above, -1, inode))
    if inode.is_directory:
        rows.put(batch, ino, changed(inode, parent=TRASH))
        rows.put_name(exam, batch, TRASH, f"{ino:016x}".encode(), ino, inode)
        rows.put(batch, TRASH, _with_names(trash, 1, inode))
    elif inode.nlink > 1:
        rows.put(batch, ino, changed(inode, nlink=inode.nlink - 1))
    else:
        rows.put(batch, ino, changed(inode, nlink=0))
        batch.put(Family.ORPHAN, ino.to_bytes(8, "big"), b"")
    return Step(Finding(CHECK, where, "it is the view of no entry", "moved to the trash"), batch)


def _with_names(directory: Inode, more: int, of: Inode) -> Inode:
    return changed(
        directory,
        entries=directory.entries + more,
        nlink=directory.nlink + (more if of.is_directory else 0),
    )


def _anew(row_key: bytes, where: str, what: str) -> Step:
    batch = Batch()
    batch.put(Family.SYS, VIEW_CHANGING + row_key, b"")
    return Step(Finding(CHECK, where, what, "made anew at the next start"), batch)


def _entry(exam: Examination, row_key: bytes) -> StoredEntry | None:
    row = exam.catalog.get(Family.ENTRY, row_key)
    return None if row is None else decode_entry(row_key, row)


def _is_being_changed(exam: Examination, row_key: bytes) -> bool:
    return exam.catalog.get(Family.SYS, VIEW_CHANGING + row_key) is not None


def _directory_of(scope: str) -> bytes:
    return scope.replace("%", "%25").replace("/", "%2F").encode()


def _scope_of(name: bytes) -> str | None:
    try:
        scope = check_scope(unquote(name.decode(), errors="strict"))
    except (UnicodeDecodeError, NameInvalid):
        return None
    return scope if _directory_of(scope) == name else None
