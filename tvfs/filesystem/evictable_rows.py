"""Rows of family `usage` about evictable directories and the files in them (docs/design/reclaim.md §4).

| key | value |
|---|---|
| 3 + rank (8 bytes, ordered float) + ino (8) | empty: a file that may be evicted; the lowest rank leaves first |
| 5 + ino (8) | msgpack array `FileUse`: a file in an evictable directory |
| 6 + ino (8) | a directory whose names are to be gone through: 0; 1: they were, and its range is to be dissolved |
| 7 + ino (8) | empty: a directory with the flag `EVICTABLE` |
"""

from __future__ import annotations

import msgspec

from tvfs.errors import RowDamaged
from tvfs.vault.entry_usage import FILES_BY_RANK, ordered, parse_rank_row

FILE, TO_GATHER, MARKED = b"\x05", b"\x06", b"\x07"
"""First byte of a row: what it is for."""
ABOUT_FILES = frozenset({FILES_BY_RANK, FILE, TO_GATHER, MARKED})
NAMES_FIRST, RANGE_NEXT = b"\x00", b"\x01"
"""Values of a row `TO_GATHER`."""
MOST_PLACES = 4
"""Names that are remembered of a file; it has one, mostly, or two for a moment."""
_LAST_INO = b"\xff" * 8
VERSION = 1


class FileUse(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a file's use.  Times in nanoseconds since 1970."""

    version: int
    places: list[tuple[int, bytes]]
    """Parent and name, the latest last; some may be names that it had before."""
    rank: float | None
    """None: it is not in the ranking, because it had several names when it was its turn."""
    by_use: bool
    """The rank is the time of its last use, because the policy failed."""
    created_ns: int
    used_ns: int
    uses: int = 0
    spared_uses: int = 0


_decoder = msgspec.msgpack.Decoder(FileUse)


def encode_use(use: FileUse) -> bytes:
    """Return the row's value."""
    return msgspec.msgpack.encode(use)


def decode_use(row: bytes) -> FileUse:
    """Return what was encoded; raise `RowDamaged`."""
    try:
        return _decoder.decode(row)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise RowDamaged("A file's use in the catalog") from exc


def file_row(kind: bytes, ino: int) -> bytes:
    """Return the key of a row that is about one inode."""
    return kind + ino.to_bytes(8, "big")


def last_of(kind: bytes) -> bytes:
    """Return the greatest key that a row about an inode may have."""
    return kind + _LAST_INO


def rank_row(rank: float, ino: int) -> bytes:
    """Return the key of the row of a file with this rank."""
    return FILES_BY_RANK + ordered(rank) + ino.to_bytes(8, "big")


def parse_file_rank(key: bytes) -> tuple[float, int]:
    """Return rank and inode; raise `RowDamaged`."""
    rank, ino = parse_rank_row(key)
    return rank, int.from_bytes(ino, "big")


def inode_of(key: bytes) -> int:
    """Return the inode that a row of one of the other kinds is about."""
    return int.from_bytes(key[1:9], "big")
