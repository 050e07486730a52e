"""Walks through the records of a pack: for checks, and for rebuilding the index."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from tvfs.digest import ChunkId
from tvfs.packs.location import Location
from tvfs.packs.record import (
    MAX_CHUNK_BYTES,
    PACK_HEADER_BYTES,
    RECORD_HEADER_BYTES,
    PackHeader,
    decode_pack_header,
    decode_record_header,
    payload_crc,
)


@dataclass(frozen=True, slots=True)
class ScannedRecord:
    """One record as the pack describes it."""

    chunk_id: ChunkId
    location: Location
    intact: bool
    """False if the payload was checked and its checksum is wrong."""


def read_pack_header(fd: int) -> PackHeader:
    """Return what the pack begins with; raise `PackDamaged` or `FormatTooNew`."""
    return decode_pack_header(os.pread(fd, PACK_HEADER_BYTES, 0))


def scan_pack(fd: int, *, check_payloads: bool = False) -> Iterator[ScannedRecord]:
    """Yield the records in order, up to the torn tail or the end.

    Raises `PackDamaged` if the pack's own header is bad, and `FormatTooNew` rather than take what a newer TaskVault
    wrote for a torn tail.
    """
    number = read_pack_header(fd).number
    end = os.fstat(fd).st_size
    offset = PACK_HEADER_BYTES
    while True:
        header = decode_record_header(os.pread(fd, RECORD_HEADER_BYTES, offset))
        if header is None or header.stored_bytes > MAX_CHUNK_BYTES:
            return
        payload_start = offset + RECORD_HEADER_BYTES
        if payload_start + header.stored_bytes > end:
            return
        intact = True
        if check_payloads:
            intact = payload_crc(os.pread(fd, header.stored_bytes, payload_start)) == header.payload_crc
        location = Location(number, offset, header.stored_bytes, header.raw_bytes, header.codec)
        yield ScannedRecord(header.chunk_id, location, intact)
        offset = payload_start + header.stored_bytes


def valid_length(fd: int) -> int:
    """Return where the torn tail begins, or the length of the pack if it has none; raises as `scan_pack` does."""
    length = PACK_HEADER_BYTES
    for record in scan_pack(fd):
        length = record.location.offset + RECORD_HEADER_BYTES + record.location.stored_bytes
    return length
