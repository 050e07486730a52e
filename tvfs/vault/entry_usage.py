"""Rows of family `usage`: entries in the order in which they leave, expire, and were saved.

| key | meaning |
|---|---|
| 1 + rank (8 bytes, ordered float) + scope, 0x00, key | an entry that may be evicted; the lowest rank leaves first |
| 2 + expires_ns (8) + scope, 0x00, key | an entry with a time to live |
| 3 + rank (8) + ino (8) | a file in an evictable directory; value: parent ino (8) + name |
| 4 + scope, 0x00, beginning, 0x00, 2^64 - 1 - created_ns (8), key | a saved entry by age, for beginnings of its key |

All but those of files are derived from the entry, and written in the batch that writes it.
"""

from __future__ import annotations

import struct

from tvfs.errors import RowDamaged
from tvfs.vault.stored_entry import SAVED, StoredEntry

BY_RANK, BY_EXPIRY, FILES_BY_RANK, BY_AGE = b"\x01", b"\x02", b"\x03", b"\x04"
"""First byte of a row: what it is for."""

INDEXED_BEGINNINGS = 4
"""How many beginnings of a key are indexed, beside the empty one."""

_LAST = (1 << 64) - 1
_SIGN = 1 << 63
_PLACE = slice(1, 9)


def usage_rows(entry: StoredEntry) -> set[bytes]:
    """Return the keys of the rows that an entry has; their values are empty."""
    row_key = entry.scope.encode() + b"\0" + entry.key.encode()
    rows = set()
    if entry.rank is not None:
        rows.add(rank_row(entry.rank, row_key))
    if entry.expires_ns:
        rows.add(expiry_row(entry.expires_ns, row_key))
    if entry.kind == SAVED:
        scope = entry.scope.encode()
        age = (_LAST - entry.created_ns).to_bytes(8, "big")
        rows.update(age_prefix(scope, start) + age + entry.key.encode() for start in beginnings(entry.key))
    return rows


def rank_row(rank: float, row_key: bytes) -> bytes:
    """Return the key of the row of an entry with this rank."""
    return BY_RANK + ordered(rank) + row_key


def parse_rank_row(usage_key: bytes) -> tuple[float, bytes]:
    """Return the rank and the key of the entry's row; raise `RowDamaged`."""
    if len(usage_key) < _PLACE.stop:
        raise RowDamaged("An entry's place in the ranking")
    return _from_ordered(usage_key[_PLACE]), usage_key[9:]


def expiry_row(expires_ns: int, row_key: bytes) -> bytes:
    """Return the key of the row of an entry whose life ends then."""
    return BY_EXPIRY + expires_ns.to_bytes(8, "big") + row_key


def parse_expiry_row(usage_key: bytes) -> tuple[int, bytes]:
    """Return the end of its life and the key of the entry's row."""
    return int.from_bytes(usage_key[_PLACE], "big"), usage_key[9:]


def age_prefix(scope: bytes, beginning: str) -> bytes:
    """Return what the rows of the entries of a scope that have a beginning of their key in common begin with."""
    return BY_AGE + scope + b"\0" + beginning.encode() + b"\0"


def beginnings(key: str) -> list[str]:
    """Return the beginnings of a key, the shortest first, that are indexed: those that end where a word ends.

    `deps-linux-1a2b` has ``, `deps-` and `deps-linux-`.
    """
    found = [""]
    for place, character in enumerate(key, 1):
        if not character.isalnum():
            found.append(key[:place])
            if len(found) > INDEXED_BEGINNINGS:
                break
    return found


def ordered(number: float) -> bytes:
    """Return 8 bytes that sort as the numbers do."""
    (bits,) = struct.unpack(">Q", struct.pack(">d", number + 0.0))  # -0.0 becomes 0.0
    return struct.pack(">Q", bits ^ _LAST if bits & _SIGN else bits | _SIGN)


def _from_ordered(key: bytes) -> float:
    (bits,) = struct.unpack(">Q", key)
    (number,) = struct.unpack(">d", struct.pack(">Q", bits & ~_SIGN if bits & _SIGN else bits ^ _LAST))
    return float(number)
