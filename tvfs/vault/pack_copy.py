"""The part of compaction that runs in threads: which records a pack has, and copying those that are wanted.

A pack may have 100,000 records.  They are kept as encoded rows, because as many objects of our own would make each
collection of the interpreter's garbage hold the owner for 50 ms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from tvfs.catalog.catalog import Catalog, Family
from tvfs.chunks.chunk_row import ChunkRow, ChunkState, decode_chunk_row, encode_chunk_row, with_state
from tvfs.digest import ChunkId
from tvfs.packs.location import Location
from tvfs.packs.pack_directory import PackDirectory
from tvfs.packs.pack_reader import neighbouring, read_run, record_bytes
from tvfs.packs.pack_writer import PackWriter
from tvfs.packs.record import (
    PACK_HEADER_BYTES,
    RECORD_HEADER_BYTES,
    PackDamaged,
    decode_record_header,
    payload_crc,
)
from tvfs.packs.scan import scan_pack

PIECE_BYTES = 8 << 20
PIECE_RECORDS = 2048
"""Copied in one turn of a thread: what must be done before a cancelled compaction ends."""
_ROWS_AT_A_TIME = 512

Placed = tuple[ChunkId, Location]


class PackUnsettled(Exception):
    """A pack is longer than what is committed of it: rows may follow."""


@dataclass(slots=True)
class Records:
    """Records, each as the row that its chunk has if it is live and lies there."""

    ids: list[ChunkId] = field(default_factory=list)
    rows: list[bytes] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, chunk_id: ChunkId, row: bytes) -> None:
        """Take in one more."""
        self.ids.append(chunk_id)
        self.rows.append(row)

    def add_all(self, other: Records) -> None:
        """Take in others."""
        self.ids += other.ids
        self.rows += other.rows

    def slices(self, length: int) -> Iterator[Records]:
        """Yield them, so many at a time."""
        for start in range(0, len(self.ids), length):
            yield Records(self.ids[start : start + length], self.rows[start : start + length])


@dataclass(slots=True)
class Copied:
    """What became of records."""

    moves: dict[ChunkId, tuple[bytes, bytes]] = field(default_factory=dict)
    """Row at the old place and at the new one, both as of live chunks; not durable yet."""
    bad: list[ChunkId] = field(default_factory=list)
    """Not what was written; not copied."""
    moved_bytes: int = 0
    """Length of what was copied."""

    def add(self, other: Copied) -> None:
        """Take in what another turn did."""
        self.moves.update(other.moves)
        self.bad += other.bad
        self.moved_bytes += other.moved_bytes


def list_records(packs: PackDirectory, number: int, committed_bytes: int) -> Records | None:
    """Walk through the headers of a pack; None if they do not lead to the end of what is committed.

    Raises `PackMissing`, `FormatTooNew` or `PackUnsettled`.
    """
    if packs.size(number) > committed_bytes:
        raise PackUnsettled
    records = Records()
    end = PACK_HEADER_BYTES
    try:
        with packs.open_reader(number) as fd:
            for record in scan_pack(fd):
                records.add(record.chunk_id, encode_chunk_row(ChunkRow(record.location)))
                end = record.location.offset + record_bytes(record.location)
    except PackDamaged:
        return None
    return records if end == committed_bytes else None


def still_there(catalog: Catalog, records: Records) -> tuple[Records, Records]:
    """Return those that their chunk's row points to: of live chunks, and of dead ones."""
    live, dead = Records(), Records()
    for part in records.slices(_ROWS_AT_A_TIME):
        values = catalog.get_many(Family.CHUNK, part.ids)
        for chunk_id, row, value in zip(part.ids, part.rows, values, strict=True):
            if value == row:
                live.add(chunk_id, row)
            elif value is not None and value == with_state(row, ChunkState.DEAD):
                dead.add(chunk_id, row)
    return live, dead


def length_of(records: Records) -> int:
    """Return how many bytes they have."""
    return sum(record_bytes(decode_chunk_row(row).location) for row in records.rows)


def copy_records(packs: PackDirectory, records: Records, target: PackWriter) -> Copied:
    """Append records to `target`, each verified; raise `PackMissing` or `PackWriteFailed`."""
    copied = Copied()
    placed = ((key, decode_chunk_row(row).location) for key, row in zip(records.ids, records.rows, strict=True))
    for run in neighbouring(placed):
        _copy_run(packs, run, target, copied)
    return copied


def pieces(records: Records) -> list[Records]:
    """Split into parts that a thread copies in one turn."""
    found: list[Records] = []
    piece, piece_bytes = Records(), 0
    for chunk_id, row in zip(records.ids, records.rows, strict=True):
        piece.add(chunk_id, row)
        piece_bytes += record_bytes(decode_chunk_row(row).location)
        if piece_bytes >= PIECE_BYTES or len(piece) == PIECE_RECORDS:
            found.append(piece)
            piece, piece_bytes = Records(), 0
    return [*found, piece] if len(piece) else found


def _copy_run(packs: PackDirectory, run: Sequence[Placed], target: PackWriter, copied: Copied) -> None:
    try:
        with packs.open_reader(run[0][1].pack) as fd:
            records = read_run(fd, [location for _, location in run])
    except PackDamaged:
        if len(run) == 1:
            copied.bad.append(run[0][0])
        for item in run if len(run) > 1 else ():  # one bad sector must not condemn its neighbours
            _copy_run(packs, [item], target, copied)
        return
    good: list[tuple[Placed, memoryview]] = []
    for item, record in zip(run, records, strict=True):
        if _is_good(record, item):
            good.append((item, record))
        else:
            copied.bad.append(item[0])
    for stretch in _contiguous(good):
        _append(stretch, target, copied)


def _is_good(record: memoryview, placed: Placed) -> bool:
    # What `payload_of` checks and the payload beside, with the header decoded once.
    chunk_id, location = placed
    header = decode_record_header(record)
    return (
        header is not None
        and len(record) == record_bytes(location)
        and header.chunk_id == chunk_id
        and (header.codec, header.raw_bytes, header.stored_bytes)
        == (location.codec, location.raw_bytes, location.stored_bytes)
        and payload_crc(record[RECORD_HEADER_BYTES:]) == header.payload_crc
    )


def _contiguous(good: list[tuple[Placed, memoryview]]) -> Iterator[list[tuple[Placed, memoryview]]]:
    """Split where something between two records is not wanted."""
    gone_bytes = 0
    after = -1

    def gap_before(item: tuple[Placed, memoryview]) -> int:
        nonlocal gone_bytes, after
        location = item[0][1]
        if after >= 0:
            gone_bytes += location.offset - after
        after = location.offset + record_bytes(location)
        return gone_bytes

    for _, stretch in groupby(good, gap_before):
        yield list(stretch)


def _append(stretch: list[tuple[Placed, memoryview]], target: PackWriter, copied: Copied) -> None:
    """Write records that lie next to each other with one write."""
    records = b"".join(record for _, record in stretch)
    offset = target.append_records(records)
    copied.moved_bytes += len(records)
    for (chunk_id, old), _ in stretch:
        new = Location(target.number, offset, old.stored_bytes, old.raw_bytes, old.codec)
        copied.moves[chunk_id] = (encode_chunk_row(ChunkRow(old)), encode_chunk_row(ChunkRow(new)))
        offset += record_bytes(old)
