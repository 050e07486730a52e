"""What a session with the kernel leaves to whoever takes it over: agreed parameters, open handles, known inodes.

A memory file, mapped, so that noting something is no system call and outlives the process that noted it: whoever keeps
its descriptor hands it to the next owner.  It never reaches a disk and ends with the machine, as the session does.

```
0        8s magic and version · 8s session · 32s device of the mount · Q settled · Q complete · Q agreed
         · Q minor · Q flags · Q max_readahead · Q max_background · Q rows ever used
         · Q highest handle ever noted
4 KiB    rows of 5 words: kind, number, inode, flags | backing id << 32, number of the request that opened it
16 MiB   one bit for each inode number: the kernel refers to it
```

All in the machine's own byte order.  A row counts if its kind, which is written last, is not 0.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from enum import IntEnum
from typing import NamedTuple

from tvfs.errors import TaskVaultError

_MAGIC = b"tvsess\x00\x01"
NO_SESSION = bytes(8)
"""Instead of the number of a session that another daemon could take over."""
_HEADER = struct.Struct("=8s8s32s")
_SETTLED, _COMPLETE, _AGREED, _MINOR, _FLAGS, _READAHEAD, _BACKGROUND, _ROWS, _HIGHEST = range(6, 15)
"""Places of the words after the header."""
_ROWS_AT = 4096 // 8
_ROW_WORDS = 5
ROWS_MAX = 400_000
"""How many handles and files read past us fit in."""
_KNOWN_AT = 16 << 20
_KNOWN_BYTES = 1 << 32
INO_END = 8 * _KNOWN_BYTES
"""Inode numbers that can be noted are below this: a million new files a day for ninety years."""
_TOTAL_BYTES = _KNOWN_AT + _KNOWN_BYTES
_PAGE_INODES = 8 * mmap.PAGESIZE
_EMPTY_PAGES_MAX = 64
_LOW = (1 << 32) - 1


class SessionRecordUnreadable(TaskVaultError):
    """A record cannot be used by this version, or not at all."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"What a daemon notes about its mount for the next one cannot be used: {reason}; "
            "the mount will be made anew, and programs that have files open on it see errors."
        )


class RowKind(IntEnum):
    """What a row is about; the numbers are kept in the record."""

    READER = 1
    WRITER = 2
    DIRECTORY = 3
    """Of older versions, where a directory was open by handle: means nothing any more."""
    DIRECT = 4
    """An inode that has been read past us and may still be mapped; its number is that of the last such beginning."""


class Opened(NamedTuple):
    """One row."""

    kind: RowKind
    number: int
    """The handle."""
    ino: int
    flags: int
    """The flags that the open was answered with."""
    backing_id: int
    request: int
    """The number of the request that opened it."""


class Agreed(NamedTuple):
    """What both sides agreed on when the session began."""

    minor: int
    flags: int
    max_readahead: int
    max_background: int


class SessionRecord:
    """The owner's trio thread only.  Nothing raises for want of room: a record that is not complete says so."""

    def __init__(self, descriptor: int) -> None:
        """Use a record; owns the descriptor.  Raises `SessionRecordUnreadable`, and has closed it then."""
        self.descriptor = descriptor
        try:
            self._map = mmap.mmap(descriptor, _TOTAL_BYTES)
        except (OSError, ValueError) as exc:
            os.close(descriptor)
            raise SessionRecordUnreadable(str(exc)) from exc
        self._words = memoryview(self._map)[:_KNOWN_AT].cast("Q")
        magic, self.session, device = _HEADER.unpack_from(self._map)
        if magic != _MAGIC:
            self.close()
            raise SessionRecordUnreadable("another version wrote it")
        self.device: str = device.rstrip(b"\0").decode()
        self._rows: dict[int, int] = {}
        self._direct: dict[int, int] = {}
        self._free: list[int] = []
        self._begun = 0
        self._held: dict[int, int] = {}
        """How many inodes the kernel knows of those whose bits share a page."""
        self._empty: list[int] = []
        self._inherited = list(self._read())

    @staticmethod
    def create() -> SessionRecord:
        """Return an empty record; raise `SessionRecordUnreadable` if the machine gives no memory for it."""
        try:
            descriptor = os.memfd_create("taskvault session", os.MFD_CLOEXEC)
            os.ftruncate(descriptor, _TOTAL_BYTES)
            os.pwrite(descriptor, _HEADER.pack(_MAGIC, os.urandom(8), b""), 0)
        except OSError as exc:
            raise SessionRecordUnreadable(str(exc)) from exc
        record = SessionRecord(descriptor)
        record._words[_COMPLETE] = 1
        return record

    def close(self) -> None:
        """Let go of it; whoever else has it keeps it."""
        self._words.release()
        self._map.close()
        os.close(self.descriptor)

    # --- the session

    def mounted(self, device: str) -> None:
        """The session is mounted, as this device."""
        self.device = device
        _HEADER.pack_into(self._map, 0, _MAGIC, self.session, device.encode())

    @property
    def agreed(self) -> Agreed | None:
        """What was agreed on; None if the session had not begun."""
        words = self._words
        if not words[_AGREED]:
            return None
        return Agreed(words[_MINOR], words[_FLAGS], words[_READAHEAD], words[_BACKGROUND])

    def agree(self, agreed: Agreed) -> None:
        """Both sides have agreed."""
        words = self._words
        words[_MINOR], words[_FLAGS], words[_READAHEAD], words[_BACKGROUND] = agreed
        words[_AGREED] = 1

    @property
    def settled(self) -> bool:
        """Whether every request that was taken has been answered, because the last owner ended in order."""
        return bool(self._words[_SETTLED])

    def settle(self, settled: bool) -> None:
        """Say so, or that it is no longer so."""
        self._words[_SETTLED] = settled

    @property
    def complete(self) -> bool:
        """Whether there was always room for what had to be noted."""
        return bool(self._words[_COMPLETE])

    # --- open handles

    def opened(self, row: Opened) -> None:
        """A handle was opened, and the kernel is about to be told."""
        at = self._put(row)
        if at is not None:
            self._rows[row.number] = at
        if row.number > self._words[_HIGHEST]:
            self._words[_HIGHEST] = row.number

    @property
    def highest_handle(self) -> int:
        """The highest handle that was ever noted, closed or not: the kernel may still be about to close it."""
        return self._words[_HIGHEST]

    def is_open(self, handle: int) -> bool:
        """Whether the handle is noted."""
        return handle in self._rows

    def released(self, handle: int) -> None:
        """The handle is closed."""
        at = self._rows.pop(handle, None)
        if at is not None:
            self._clear(at)

    def read_past_us(self, ino: int) -> None:
        """An inode begins to be read past us; noted until the kernel has no reference to it, mappings included."""
        self._begun += 1
        at = self._direct.get(ino)
        if at is not None:
            self._words[at + 1] = self._begun
            return
        at = self._put(Opened(RowKind.DIRECT, self._begun, ino, 0, 0, 0))
        if at is not None:
            self._direct[ino] = at

    def handles(self) -> list[Opened]:
        """Return the handles to files that were open when this object was made: of a session that is taken over."""
        return [row for row in self._inherited if row.kind not in (RowKind.DIRECT, RowKind.DIRECTORY)]

    def inodes_read_past_us(self) -> list[int]:
        """Return the inodes that were read past us, those that began last at the end."""
        return sorted(self._direct, key=lambda ino: self._words[self._direct[ino] + 1])

    # --- inodes that the kernel knows

    def known(self, ino: int) -> None:
        """The kernel gets its first reference to an inode."""
        if ino >= INO_END:
            self._words[_COMPLETE] = 0
            return
        at = _KNOWN_AT + (ino >> 3)
        self._map[at] |= 1 << (ino & 7)
        page = ino // _PAGE_INODES
        self._held[page] = self._held.get(page, 0) + 1

    def forgotten(self, ino: int) -> None:
        """The kernel has given its last reference back."""
        direct = self._direct.pop(ino, None)
        if direct is not None:
            self._clear(direct)
        if ino >= INO_END:
            return
        at = _KNOWN_AT + (ino >> 3)
        self._map[at] &= ~(1 << (ino & 7))
        page = ino // _PAGE_INODES
        self._held[page] -= 1
        if not self._held[page]:
            del self._held[page]
            self._empty.append(page)
            if len(self._empty) > _EMPTY_PAGES_MAX:
                self._give_pages_back()

    def known_inodes(self) -> Iterator[int]:
        """Yield what the kernel refers to, in order; for whoever takes over, once, before anything is noted."""
        end = _KNOWN_AT
        while True:
            try:
                start = os.lseek(self.descriptor, end, os.SEEK_DATA)
            except OSError:
                return
            end = os.lseek(self.descriptor, start, os.SEEK_HOLE)
            for at in range(start, end, mmap.PAGESIZE):
                yield from self._known_in_page(at)

    def _known_in_page(self, at: int) -> Iterator[int]:
        bits = int.from_bytes(self._map[at : at + mmap.PAGESIZE], "little")
        first = 8 * (at - _KNOWN_AT)
        if bits:
            self._held[first // _PAGE_INODES] = bits.bit_count()
        while bits:
            # By 32 bits, or each step would copy the page.
            word = bits & _LOW
            while word:
                lowest = word & -word
                yield first + lowest.bit_length() - 1
                word ^= lowest
            bits >>= 32
            first += 32

    def _give_pages_back(self) -> None:
        for page in self._empty:
            if page not in self._held:
                with suppress(OSError):
                    self._map.madvise(mmap.MADV_REMOVE, _KNOWN_AT + page * mmap.PAGESIZE, mmap.PAGESIZE)
        self._empty.clear()

    # --- rows

    def _put(self, row: Opened) -> int | None:
        words = self._words
        if self._free:
            at = self._free.pop()
        else:
            used = words[_ROWS]
            if used >= ROWS_MAX:
                words[_COMPLETE] = 0
                return None
            at = _ROWS_AT + used * _ROW_WORDS
            words[_ROWS] = used + 1
        words[at + 1] = row.number
        words[at + 2] = row.ino
        words[at + 3] = row.flags | (row.backing_id & _LOW) << 32
        words[at + 4] = row.request
        words[at] = row.kind
        return at

    def _clear(self, at: int) -> None:
        self._words[at] = 0
        self._free.append(at)

    def _read(self) -> Iterator[Opened]:
        words = self._words
        for at in range(_ROWS_AT, _ROWS_AT + words[_ROWS] * _ROW_WORDS, _ROW_WORDS):
            kind, number, ino, flags, request = words[at : at + _ROW_WORDS]
            if not kind:
                self._free.append(at)
                continue
            row = Opened(RowKind(kind), number, ino, flags & _LOW, flags >> 32, request)
            if row.kind is RowKind.DIRECT:
                self._direct[ino] = at
                self._begun = max(self._begun, number)
            else:
                self._rows[number] = at
            yield row
