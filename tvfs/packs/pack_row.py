"""Rows of the catalog's family `pack`: how much of a pack is committed, and how much of that is still wanted.

Key: pack number, 8 bytes.  Value: `>BxxxQQ`, version, committed_bytes, live_bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from tvfs.errors import FormatTooNew, RowDamaged

_ROW = struct.Struct(">BxxxQQ")
_KEY = struct.Struct(">Q")
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class PackRow:
    """What recovery and compaction need to know of a pack."""

    committed_bytes: int
    """Length that is accounted for; what lies beyond is cut off at start."""
    live_bytes: int
    """Bytes of records (headers and payloads) whose chunk row is live and points here."""


def pack_key(number: int) -> bytes:
    """Return the key of a pack's row."""
    return _KEY.pack(number)


def pack_number(key: bytes) -> int:
    """Return the pack that a key is for."""
    number: int = _KEY.unpack(key)[0]
    return number


def encode_pack_row(row: PackRow) -> bytes:
    """Return the row's value."""
    return _ROW.pack(FORMAT_VERSION, row.committed_bytes, row.live_bytes)


def decode_pack_row(value: bytes) -> PackRow:
    """Return the row; raise `FormatTooNew` for one of a later version, `RowDamaged` for one that cannot be."""
    if value and value[0] > FORMAT_VERSION:
        raise FormatTooNew("A pack's row in the catalog", value[0], FORMAT_VERSION)
    if len(value) != _ROW.size:
        raise RowDamaged("A pack's row in the catalog")
    _, committed_bytes, live_bytes = _ROW.unpack(value)
    return PackRow(committed_bytes, live_bytes)
