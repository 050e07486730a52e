"""Walks through a pack that may be damaged anywhere: what is not a record is skipped, and the next one looked for."""

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
    RecordHeader,
    decode_record_header,
    payload_crc,
)

_MAGIC = b"TVc1"
_WINDOW_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class FoundRecord:
    """A record whose header is good."""

    chunk_id: ChunkId
    location: Location
    intact: bool
    """Whether its payload has the checksum that the header tells, if it was read."""

    @property
    def end(self) -> int:
        """Offset of the first byte after it."""
        return self.location.offset + RECORD_HEADER_BYTES + self.location.stored_bytes


def records_in(fd: int, number: int, *, check_payloads: bool) -> Iterator[FoundRecord]:
    """Yield the records of a pack in order, whatever lies between them; the pack's own header is not looked at."""
    length = os.fstat(fd).st_size
    offset = PACK_HEADER_BYTES
    while offset < length:
        header = header_at(fd, offset, length)
        if header is None:
            offset = _next_record(fd, offset + 1, length)
            continue
        intact = not check_payloads or _payload_is_intact(fd, offset, header)
        location = Location(number, offset, header.stored_bytes, header.raw_bytes, header.codec)
        found = FoundRecord(header.chunk_id, location, intact)
        yield found
        offset = found.end


def header_at(fd: int, offset: int, length: int) -> RecordHeader | None:
    """Return the header of the record at an offset, if there is a whole one in a pack of this length."""
    header = decode_record_header(_read(fd, RECORD_HEADER_BYTES, offset))
    if header is None or max(header.stored_bytes, header.raw_bytes) > MAX_CHUNK_BYTES:
        return None
    return header if offset + RECORD_HEADER_BYTES + header.stored_bytes <= length else None


def _payload_is_intact(fd: int, offset: int, header: RecordHeader) -> bool:
    payload = _read(fd, header.stored_bytes, offset + RECORD_HEADER_BYTES)
    return len(payload) == header.stored_bytes and payload_crc(payload) == header.payload_crc


def _next_record(fd: int, start: int, length: int) -> int:
    """Return where the next good header is, from `start` on; `length` if there is none."""
    while start < length:
        window = _read(fd, _WINDOW_BYTES, start)
        at = window.find(_MAGIC)
        while at >= 0:
            if header_at(fd, start + at, length) is not None:
                return start + at
            at = window.find(_MAGIC, at + 1)
        # What begins at the end of a window is found in the next; what the disk cannot read is passed over.
        start += max(len(window) - len(_MAGIC) + 1, 4096 if not window else 1)
    return length


def _read(fd: int, length: int, offset: int) -> bytes:
    try:
        return os.pread(fd, length, offset)
    except OSError:  # the disk cannot read it: as good as zeros
        return b""
