"""Rows of the catalog's family `chunk`: where a chunk lies and whether it counts.

Key: chunk id.  Value: `>BBBxIQII`, version, codec, state, pack, offset, stored_bytes, raw_bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from tvfs.errors import FormatTooNew, RowDamaged
from tvfs.packs.location import Location

_ROW = struct.Struct(">BBBxIQII")
FORMAT_VERSION = 1


class ChunkState(IntEnum):
    """The numbers are stored."""

    LIVE = 0
    DEAD = 1
    """Nothing refers to it; swept later, live again when the same bytes are put before that."""
    QUARANTINED = 2
    """Its record is bad: never read, never deduplicated against, replaced when the same bytes are put."""


_STATES = tuple(ChunkState)
"""By number: half the time of calling the class, and a check of a vault decodes every row."""


@dataclass(frozen=True, slots=True)
class ChunkRow:
    """What the index knows of one chunk."""

    location: Location
    state: ChunkState = ChunkState.LIVE


def encode_chunk_row(row: ChunkRow) -> bytes:
    """Return the row's value."""
    at = row.location
    return _ROW.pack(FORMAT_VERSION, at.codec, row.state, at.pack, at.offset, at.stored_bytes, at.raw_bytes)


def with_state(row: bytes, state: ChunkState) -> bytes:
    """Return an encoded row with another state."""
    return row[:2] + bytes([state]) + row[3:]


def decode_chunk_row(value: bytes) -> ChunkRow:
    """Return the row; raise `FormatTooNew` for one of a later version, `RowDamaged` for one that cannot be."""
    if value and value[0] > FORMAT_VERSION:
        raise FormatTooNew("A chunk's row in the catalog", value[0], FORMAT_VERSION)
    if len(value) != _ROW.size or value[2] > ChunkState.QUARANTINED:
        raise RowDamaged("A chunk's row in the catalog")
    _, codec, state, pack, offset, stored_bytes, raw_bytes = _ROW.unpack(value)
    return ChunkRow(Location(pack, offset, stored_bytes, raw_bytes, codec), _STATES[state])
