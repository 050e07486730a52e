"""The bytes of packs: pack headers and record headers, written and read.

Pure functions; the layout is in docs/design/on-disk-format.md §2.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from tvfs.digest import HASH_BYTES, ChunkId
from tvfs.errors import FormatTooNew, TaskVaultError
from tvfs.plugin_api.buffer import Buffer

MAX_CHUNK_BYTES = 16 << 20
"""No chunk is longer, so no payload is: what compression makes longer is stored raw."""

FORMAT_VERSION = 1

_PACK_HEADER = struct.Struct(">8sB7xQ16s")
_PACK_MAGIC = b"TVPACK\r\n"
PACK_HEADER_BYTES = _PACK_HEADER.size
"""Where the first record of a pack begins."""

_RECORD_HEADER = struct.Struct(">4sBBHIIII32s")
_RECORD_MAGIC = b"TVc1"
RECORD_HEADER_BYTES = _RECORD_HEADER.size
"""What a record has beside its payload."""

_CRC_START, _CRC_END = 20, 24
"""Where a record header's own checksum lies; it counts as zero when the checksum is computed."""


class PackDamaged(TaskVaultError):
    """A pack does not hold what it should at some place."""

    def __init__(self, pack: int | None, offset: int, reason: str) -> None:
        name = "A pack" if pack is None else f"Pack {pack:016x}"
        super().__init__(f"{name} is damaged at byte {offset}: {reason}; save again what was in it.")
        self.pack = pack
        """Number of the pack; None where only a descriptor is known."""
        self.offset = offset
        self.reason = reason


@dataclass(frozen=True, slots=True)
class PackHeader:
    """Which pack of which vault a file is."""

    number: int
    vault_uuid: bytes
    """16 bytes."""


@dataclass(frozen=True, slots=True)
class RecordHeader:
    """What a record says about its payload."""

    chunk_id: ChunkId
    codec: int
    raw_bytes: int
    stored_bytes: int
    payload_crc: int


def encode_pack_header(header: PackHeader) -> bytes:
    """Return the first `PACK_HEADER_BYTES` of a pack."""
    assert len(header.vault_uuid) == 16
    return _PACK_HEADER.pack(_PACK_MAGIC, FORMAT_VERSION, header.number, header.vault_uuid)


def decode_pack_header(head: Buffer) -> PackHeader:
    """Return what a pack begins with; raise `PackDamaged`, or `FormatTooNew` for a later version."""
    if len(head) < PACK_HEADER_BYTES:
        raise PackDamaged(None, 0, f"it has only {len(head)} bytes")
    magic, version, number, vault_uuid = _PACK_HEADER.unpack_from(head)
    if magic != _PACK_MAGIC:
        raise PackDamaged(None, 0, "it does not begin as packs do")
    if version > FORMAT_VERSION:
        raise FormatTooNew(f"Pack {number:016x}", version, FORMAT_VERSION)
    return PackHeader(number, vault_uuid)


def encode_record_header(header: RecordHeader) -> bytes:
    """Return the `RECORD_HEADER_BYTES` that precede a payload."""
    assert len(header.chunk_id) == HASH_BYTES
    assert header.raw_bytes <= MAX_CHUNK_BYTES
    assert header.stored_bytes <= MAX_CHUNK_BYTES
    fields = (_RECORD_MAGIC, FORMAT_VERSION, header.codec, 0, header.raw_bytes, header.stored_bytes, header.payload_crc)
    crc = zlib.crc32(_RECORD_HEADER.pack(*fields, 0, header.chunk_id))
    return _RECORD_HEADER.pack(*fields, crc, header.chunk_id)


def decode_record_header(head: Buffer) -> RecordHeader | None:
    """Return the header; None if these bytes are none; raise `FormatTooNew` for one of a later version.

    None is an ordinary answer: it is how a scan finds the end of a pack.
    """
    if len(head) < RECORD_HEADER_BYTES:
        return None
    magic, version, codec, _flags, raw_bytes, stored_bytes, payload_crc, crc, chunk_id = _RECORD_HEADER.unpack_from(
        head
    )
    if magic != _RECORD_MAGIC or crc != _header_crc(head):
        return None
    if version > FORMAT_VERSION:
        raise FormatTooNew("A record of a pack", version, FORMAT_VERSION)
    return RecordHeader(ChunkId(chunk_id), codec, raw_bytes, stored_bytes, payload_crc)


def payload_crc(payload: Buffer) -> int:
    """Return the checksum that a record header holds of its payload."""
    return zlib.crc32(payload)


def _header_crc(head: Buffer) -> int:
    crc = zlib.crc32(head[:_CRC_START])
    crc = zlib.crc32(bytes(_CRC_END - _CRC_START), crc)
    return zlib.crc32(head[_CRC_END:RECORD_HEADER_BYTES], crc)
