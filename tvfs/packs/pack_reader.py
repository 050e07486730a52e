"""Reads records of a pack by location, from any thread or process that has a descriptor.

What comes back is a payload whose record header agrees with the location; whether it is the chunk, only its hash says.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence

from tvfs.digest import ChunkId
from tvfs.packs.location import Location
from tvfs.packs.record import RECORD_HEADER_BYTES, PackDamaged, decode_record_header, payload_crc

RUN_GAP_BYTES = 32 << 10
"""Unwanted bytes between two records that are cheaper to read than to skip: about what a system call costs."""
RUN_MAX_BYTES = 4 << 20
"""Longest single read, so that a long request does not need twice its memory."""


def read_payload(fd: int, location: Location, chunk_id: ChunkId) -> memoryview:
    """Return the payload of one record; raise `PackDamaged`."""
    return payload_of(read_run(fd, [location])[0], location, chunk_id)


def read_payload_nowait(fd: int, location: Location, chunk_id: ChunkId) -> memoryview:
    """Return the payload if it is in the page cache; raise `BlockingIOError` if not, `PackDamaged` if it is bad."""
    record = bytearray(record_bytes(location))
    try:
        length = os.preadv(fd, [record], location.offset, os.RWF_NOWAIT)
    except OSError as exc:
        if exc.errno == errno.EOPNOTSUPP:  # a filesystem that cannot tell: as good as never cached
            raise BlockingIOError(errno.EAGAIN, "this filesystem has no reads that do not wait") from exc
        raise
    if length < len(record):  # partly cached, or the file ends: the reader that may wait finds out which
        raise BlockingIOError(errno.EAGAIN, "only a part of the record is cached")
    return payload_of(memoryview(record), location, chunk_id)


def read_run(fd: int, locations: Sequence[Location]) -> list[memoryview]:
    """Return the records at `locations`, which lie in ascending order near each other in one pack, with one read.

    A record may be short where the file ends: `payload_of` checks.  Raises `PackDamaged` if the disk cannot read.
    """
    start = locations[0].offset
    length = locations[-1].offset + record_bytes(locations[-1]) - start
    try:
        run = memoryview(os.pread(fd, length, start))
    except OSError as exc:
        if exc.errno == errno.EIO:
            raise PackDamaged(locations[0].pack, start, "the disk cannot read it") from exc
        raise
    return [run[at.offset - start : at.offset - start + record_bytes(at)] for at in locations]


def payload_of(record: memoryview, location: Location, chunk_id: ChunkId) -> memoryview:
    """Return a record's payload; raise `PackDamaged` unless its header says what the location does."""
    if len(record) < record_bytes(location):
        raise PackDamaged(location.pack, location.offset, "the pack ends before the record does")
    header = decode_record_header(record)
    if header is None:
        raise PackDamaged(location.pack, location.offset, "there is no record header")
    if header.chunk_id != chunk_id:
        raise PackDamaged(location.pack, location.offset, "the record is another chunk's")
    found = (header.codec, header.raw_bytes, header.stored_bytes)
    if found != (location.codec, location.raw_bytes, location.stored_bytes):
        raise PackDamaged(location.pack, location.offset, "the record's codec or lengths are not those in the index")
    return record[RECORD_HEADER_BYTES:]


def payload_is_whole(record: memoryview) -> bool:
    """Whether a record whose header was checked by `payload_of` has the payload that was written."""
    header = decode_record_header(record)
    return header is not None and header.payload_crc == payload_crc(record[RECORD_HEADER_BYTES:])


def record_bytes(location: Location) -> int:
    """Return the length of a record, header included."""
    return RECORD_HEADER_BYTES + location.stored_bytes


def neighbouring(
    wanted: Iterable[tuple[ChunkId, Location]],
    *,
    gap_bytes: int = RUN_GAP_BYTES,
    max_bytes: int = RUN_MAX_BYTES,
) -> Iterator[list[tuple[ChunkId, Location]]]:
    """Yield what is wanted, sorted, in runs that are worth one read each."""
    run: list[tuple[ChunkId, Location]] = []
    for chunk_id, location in sorted(wanted, key=lambda item: (item[1].pack, item[1].offset)):
        if run:
            first, last = run[0][1], run[-1][1]
            gap = location.offset - (last.offset + record_bytes(last))
            length = location.offset + record_bytes(location) - first.offset
            if location.pack != first.pack or gap > gap_bytes or length > max_bytes:
                yield run
                run = []
        run.append((chunk_id, location))
    if run:
        yield run
