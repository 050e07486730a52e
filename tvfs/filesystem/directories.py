"""A directory: the base tree that it was attached by, less whiteouts, plus dirent rows.

A dirent row shadows the base entry of the same name; a whiteout is a row that says there is nothing.  A listing is
in order of names.  Its cookies do not depend on what happens to other names: position in the base + 1, or 2^40 + the
seq of the row.  A name that gets a row only because the directory is to have no base any more keeps its cookie: its
seq is as much below 2^64 as makes the sum, modulo 2^64, what it was.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import chain
from typing import NamedTuple

from tvfs.catalog.catalog import Catalog, Family, prefix_end
from tvfs.content.tree_index import IndexEntry
from tvfs.errors import RowDamaged
from tvfs.filesystem.change import Change
from tvfs.filesystem.inode import HAS_DELTAS, NO_HASH, Inode, changed
from tvfs.filesystem.model import TRASH
from tvfs.filesystem.nodes import Nodes
from tvfs.filesystem.scans import rows_of

DELTA_COOKIE = 1 << 40
"""Cookies of dirent rows begin here; no base tree has as many entries."""
GONE_REMEMBERED = 16_384
"""Cookies of removed names that are remembered of a directory that was listed; `rm -r` removes 10,000 at a time."""
GONE_REMEMBERED_OF_ALL = 8 * GONE_REMEMBERED
_ROW = struct.Struct(">BBxxQQ")
_SEQ_END = 1 << 64
_VERSION = 1
_WHITEOUT = 0


class Dirent(NamedTuple):
    """A dirent row."""

    kind: int
    """File type as in `Inode.kind`; 0 is a whiteout."""
    child: int
    seq: int


class Listed(NamedTuple):
    """One name of a listing."""

    name: bytes
    ino: int
    cookie: int
    entry: IndexEntry | None
    """Where the name comes from the base tree."""
    kind: int


def encode_dirent(dirent: Dirent) -> bytes:
    """Return the row."""
    return _ROW.pack(_VERSION, *dirent)


def decode_dirent(row: bytes) -> Dirent:
    """Return what was encoded; raise `RowDamaged`."""
    if len(row) != _ROW.size:
        raise RowDamaged("A name's row in the catalog")
    _, kind, child, seq = _ROW.unpack(row)
    return Dirent(kind, child, seq)


def trash_name(ino: int) -> bytes:
    """Return what something is called in the trash."""
    return f"{ino:016x}".encode()


def trash_key(ino: int) -> bytes:
    """Return the key of the row that says that something is in the trash; they are in order of inode numbers."""
    return TRASH.to_bytes(8, "big") + trash_name(ino)


class Directories:
    """Looks names up and changes them; knows nothing of permissions, times or links."""

    def __init__(self, catalog: Catalog, nodes: Nodes) -> None:
        self._catalog = catalog
        self._nodes = nodes
        self.is_listed: Callable[[int], bool] = _never
        """Whether somebody has listed a directory of late; set once."""
        self._gone: OrderedDict[int, OrderedDict[int, bytes]] = OrderedDict()
        """Of directories that were listed: the name of each cookie that was given up since."""
        self._gone_of_all = 0

    def find(self, parent: int, directory: Inode, name: bytes) -> tuple[int, Inode] | None:
        """Return number and inode of a name, or None."""
        base = directory.hash
        if base == NO_HASH or directory.flags & HAS_DELTAS:
            row = self._catalog.get(Family.DIRENT, parent.to_bytes(8, "big") + name)
            if row is not None:
                dirent = decode_dirent(row)
                return None if dirent.kind == _WHITEOUT else (dirent.child, self._nodes.get(dirent.child))
            if base == NO_HASH:
                return None
        entry = self._nodes.trees.lookup(base, name)
        return None if entry is None else self._nodes.child(parent, entry)

    def put(self, change: Change, parent: int, name: bytes, dirent: Dirent) -> None:
        """Let a name lead to an inode, whatever it led to before."""
        self._remember_cookie(change, parent, name)
        change.batch.put(Family.DIRENT, parent.to_bytes(8, "big") + name, encode_dirent(dirent))
        self._note_delta(change, parent)

    def own(self, change: Change, parent: int, listed: Listed) -> None:
        """Give a name of the base tree a row that says the same, cookie included, for when there is no base."""
        dirent = Dirent(listed.kind, listed.ino, (listed.cookie - DELTA_COOKIE) % _SEQ_END)
        change.batch.put(Family.DIRENT, parent.to_bytes(8, "big") + listed.name, encode_dirent(dirent))
        self._note_delta(change, parent)

    def remove(self, change: Change, parent: int, name: bytes, seq: int) -> None:
        """Let a name lead nowhere."""
        self._remember_cookie(change, parent, name)
        base = change.inode(parent).hash
        key = parent.to_bytes(8, "big") + name
        if base != NO_HASH and self._nodes.trees.lookup(base, name) is not None:
            change.batch.put(Family.DIRENT, key, encode_dirent(Dirent(_WHITEOUT, 0, seq)))
            self._note_delta(change, parent)
        else:
            change.batch.delete(Family.DIRENT, key)

    def remove_all(self, change: Change, parent: int) -> None:
        """Remove the rows of a directory that is going away; one that has names in it has been emptied before."""
        directory = change.inode(parent)
        # Without a base there are no whiteouts, so an empty directory has no rows; range deletions slow reads down.
        if directory.hash != NO_HASH and directory.flags & HAS_DELTAS:
            key = parent.to_bytes(8, "big")
            change.batch.delete_range(Family.DIRENT, key, prefix_end(key) or b"")

    def listing(self, parent: int, directory: Inode, after: bytes = b"") -> Iterator[Listed]:
        """Yield the names greater than `after`, in order, as they are now.  Do not await between steps."""
        base = directory.hash
        if base == NO_HASH:
            return (_of_row(name, dirent) for name, dirent in self._rows(parent, after) if dirent.kind)
        start = self._nodes.trees.position_after(base, after) if after else 0
        entries = self._nodes.trees.iterate(base, start)
        if not directory.flags & HAS_DELTAS:
            return (_of_entry(parent, position, entry) for position, entry in entries)
        return _merged(parent, entries, self._rows(parent, after))

    def any_in_trash(self, first: int, end: int) -> bool:
        """Whether an inode with a number from `first` to `end` is at the top of the trash."""
        return next(self._catalog.scan(Family.DIRENT, trash_key(first), trash_key(end)), None) is not None

    def name_of_cookie(self, parent: int, directory: Inode, cookie: int) -> bytes:
        """Return the name whose entry had this cookie; empty, the start, if nobody knows any more.

        Reads every row of the directory, unless the name was removed while somebody listed: for a program that seeks to
        a place it was told long ago, or by the kernel, which had it of another's listing.
        """
        gone = self._gone.get(parent)
        if gone is not None and cookie in gone:
            return gone[cookie]
        if cookie < DELTA_COOKIE and directory.hash != NO_HASH:
            for _, entry in self._nodes.trees.iterate(directory.hash, cookie - 1):
                return entry.name
        seq = (cookie - DELTA_COOKIE) % _SEQ_END
        return next((name for name, dirent in self._rows(parent, b"") if dirent.seq == seq), b"")

    def listed_no_more(self, parent: int) -> None:
        """It is long ago that anybody listed the directory."""
        self._gone_of_all -= len(self._gone.pop(parent, ()))

    def _remember_cookie(self, change: Change, parent: int, name: bytes) -> None:
        """The name gets another cookie, or none."""
        if not self.is_listed(parent):
            return
        row = self._catalog.get(Family.DIRENT, parent.to_bytes(8, "big") + name)
        if row is not None:
            self._remember(parent, _cookie(decode_dirent(row)), name)
            return
        base = change.inode(parent).hash
        if base != NO_HASH and self._nodes.trees.lookup(base, name) is not None:
            self._remember(parent, self._nodes.trees.position_after(base, name), name)

    def _remember(self, parent: int, cookie: int, name: bytes) -> None:
        gone = self._gone.setdefault(parent, OrderedDict())
        before = len(gone)
        gone[cookie] = name
        self._gone_of_all += len(gone) - before
        if len(gone) > GONE_REMEMBERED:
            gone.popitem(last=False)
            self._gone_of_all -= 1
        elif self._gone_of_all > GONE_REMEMBERED_OF_ALL:
            self.listed_no_more(next(iter(self._gone)))

    def _rows(self, parent: int, after: bytes) -> Iterator[tuple[bytes, Dirent]]:
        key = parent.to_bytes(8, "big")
        start = key + after + b"\0" if after else key
        for found, row in rows_of(self._catalog, Family.DIRENT, parent, start):
            yield found[8:], decode_dirent(row)

    def _note_delta(self, change: Change, parent: int) -> None:
        directory = change.inode(parent)
        if directory.hash != NO_HASH and not directory.flags & HAS_DELTAS:
            change.put(parent, changed(directory, flags=directory.flags | HAS_DELTAS))


def _never(ino: int) -> bool:
    """Nobody lists anything."""
    return False


def _cookie(dirent: Dirent) -> int:
    return (DELTA_COOKIE + dirent.seq) % _SEQ_END


def _of_row(name: bytes, dirent: Dirent) -> Listed:
    return Listed(name, dirent.child, _cookie(dirent), None, dirent.kind)


def _of_entry(parent: int, position: int, entry: IndexEntry) -> Listed:
    return Listed(entry.name, parent + entry.preorder, position + 1, entry, entry.kind)


def _merged(
    parent: int, entries: Iterator[tuple[int, IndexEntry]], rows: Iterator[tuple[bytes, Dirent]]
) -> Iterator[Listed]:
    row = next(rows, None)
    for position, entry in entries:
        while row is not None and row[0] < entry.name:
            if row[1].kind:
                yield _of_row(*row)
            row = next(rows, None)
        if row is not None and row[0] == entry.name:
            if row[1].kind:
                yield _of_row(*row)
            row = next(rows, None)
        else:
            yield _of_entry(parent, position, entry)
    for name, dirent in chain([row] if row is not None else [], rows):
        if dirent.kind:
            yield _of_row(name, dirent)
