"""Attached ranges: inode numbers that have no row of their own until they are changed (on-disk format §8)."""

from __future__ import annotations

from bisect import bisect_right, insort

import msgspec

from tvfs.catalog.catalog import Catalog, Family
from tvfs.errors import RowDamaged
from tvfs.filesystem.change import Change

_REMEMBERED = 4096


class AttachedRange(msgspec.Struct, frozen=True, array_like=True):
    """`first` is the attached directory itself; what is below it has the numbers up to `end`, in preorder."""

    version: int
    first: int
    count: int
    index: bytes
    """Tree index of the directory."""
    uid: int
    """Owner of what the tree has no owner for."""
    gid: int
    override: bool
    """Whether that owner counts also where the tree has one."""
    attached_ns: int
    read_only: bool
    moved: bool
    """Some member has, or had, a name outside the directory it was attached in: it cannot be removed wholesale."""

    @property
    def end(self) -> int:
        """The first number after the range."""
        return self.first + self.count


_decoder = msgspec.msgpack.Decoder(AttachedRange)


def decode_range(row: bytes) -> AttachedRange:
    """Return a row of family `range`; raise `RowDamaged`."""
    try:
        return _decoder.decode(row)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise RowDamaged("An attached tree's row in the catalog") from exc


class Ranges:
    """Finds the range of an inode; the last few thousand are kept decoded."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._firsts: list[int] = []
        self._known: dict[int, AttachedRange] = {}
        self._latest: AttachedRange | None = None

    def find(self, ino: int) -> AttachedRange | None:
        """Return the range that `ino` is in, or None."""
        latest = self._latest
        if latest is not None and latest.first <= ino < latest.first + latest.count:
            return latest
        at = bisect_right(self._firsts, ino)
        if at:
            known = self._known[self._firsts[at - 1]]
            if ino < known.end:
                self._latest = known
                return known
        row = self._catalog.last(Family.RANGE, ino.to_bytes(8, "big"))
        if row is None:
            return None
        found = decode_range(row[1])
        if ino >= found.end:
            return None
        self._remember(found)
        return found

    def add(self, change: Change, attached: AttachedRange) -> None:
        """Put the row."""
        change.batch.put(Family.RANGE, attached.first.to_bytes(8, "big"), msgspec.msgpack.encode(attached))
        change.afterwards.append(lambda: self.forget(attached.first))

    def mark_moved(self, change: Change, ino: int) -> None:
        """Note that a member gets a name outside its first parent."""
        attached = self.find(ino)
        if attached is not None and not attached.moved and ino != attached.first:
            self.add(change, msgspec.structs.replace(attached, moved=True))

    def remove(self, change: Change, attached: AttachedRange) -> None:
        """Remove the row."""
        change.batch.delete(Family.RANGE, attached.first.to_bytes(8, "big"))
        change.afterwards.append(lambda: self.forget(attached.first))

    def forget(self, first: int) -> None:
        """Read the row again when it is next needed."""
        self._latest = None
        if self._known.pop(first, None) is not None:
            self._firsts.remove(first)

    def _remember(self, attached: AttachedRange) -> None:
        if len(self._firsts) >= _REMEMBERED:
            self._firsts.clear()
            self._known.clear()
        insort(self._firsts, attached.first)
        self._known[attached.first] = attached
        self._latest = attached
