"""How many references the kernel holds to each inode: counted by the adapter, asked by the filesystem."""

from __future__ import annotations

from tvfs.filesystem.model import Ino
from tvfs.filesystem.session_record import SessionRecord

_BUCKET_BITS = 12
"""Inodes are also counted by buckets of 4,096 numbers, so that a whole attached range is asked about in a few steps."""
_INHERITED = 1 << 40
"""Stands for the references, nobody knows how many, that the kernel had when the session was taken over."""


class LookupCounts:
    """A number removed from the namespace lives on until the kernel has given every reference back.

    Of an inherited session is only known which inodes the kernel refers to.  That is enough: it gives back all
    references to an inode at once, so that more than were counted since are all.
    """

    def __init__(self, record: SessionRecord | None = None) -> None:
        """Which inodes the kernel knows is noted in `record`, and read from it first."""
        self._counts: dict[int, int] = {}
        self._held_in_bucket: dict[int, int] = {}
        self._record: SessionRecord | None = None
        if record is not None:
            for ino in record.known_inodes():
                self.add(Ino(ino), _INHERITED)
        self._record = record

    def add(self, ino: Ino, n: int = 1) -> None:
        """The kernel was given `n` more references."""
        count = self._counts.get(ino)
        if count is None:
            if self._record is not None:
                self._record.known(ino)
            self._counts[ino] = n
            bucket = ino >> _BUCKET_BITS
            self._held_in_bucket[bucket] = self._held_in_bucket.get(bucket, 0) + 1
        else:
            self._counts[ino] = count + n

    def drop(self, ino: Ino, n: int) -> bool:
        """The kernel gave `n` references back; True when none are left.

        More than it had counts as all: at an unmount the kernel and we may have lost count of each other.
        """
        count = self._counts.get(ino)
        if count is None:
            return False
        if count > n and (count < _INHERITED or count - _INHERITED >= n):
            self._counts[ino] = count - n
            return False
        del self._counts[ino]
        if self._record is not None:
            self._record.forgotten(ino)
        bucket = ino >> _BUCKET_BITS
        held = self._held_in_bucket[bucket] - 1
        if held:
            self._held_in_bucket[bucket] = held
        else:
            del self._held_in_bucket[bucket]
        return True

    def known(self) -> list[Ino]:
        """Return the inodes to which the kernel has references."""
        return [Ino(ino) for ino in self._counts]

    def holds(self, ino: Ino) -> bool:
        """Whether the kernel has a reference to `ino`."""
        return ino in self._counts

    def holds_any(self, first: int, end: int) -> bool:
        """Whether the kernel has a reference to an inode with `first <= ino < end`."""
        for bucket in range(first >> _BUCKET_BITS, ((end - 1) >> _BUCKET_BITS) + 1):
            if bucket not in self._held_in_bucket:
                continue
            low = bucket << _BUCKET_BITS
            high = low + (1 << _BUCKET_BITS)
            if first <= low and high <= end:
                return True
            if any(ino in self._counts for ino in range(max(first, low), min(end, high))):
                return True
        return False

    def clear(self) -> list[Ino]:
        """Forget everything and return what was held: after an unmount no more references come back."""
        held = [Ino(ino) for ino in self._counts]
        self._counts.clear()
        self._held_in_bucket.clear()
        return held
