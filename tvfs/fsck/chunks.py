"""Chunk rows against records: each row leads to a record of its chunk, and the record is what was written.

Rows are read in order and their record's header looked at; then packs are read in order and payloads verified.  A chunk
whose record is bad is looked for in all packs: it may have been stored twice.  If there is no good record of it, it is
put in quarantine: never read, never deduplicated against, stored anew when it is saved again.  What holds the chunk
under a header that is bad gets its header back.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice

from tvfs.catalog.catalog import Batch, Family
from tvfs.chunks.chunk_row import ChunkRow, ChunkState, decode_chunk_row, encode_chunk_row
from tvfs.chunks.encoding import CodecUnknown
from tvfs.digest import HASH_BYTES, ChunkId
from tvfs.fsck.examination import Examination
from tvfs.fsck.finding import Finding, Step
from tvfs.fsck.pack_scan import FoundRecord, header_at, records_in
from tvfs.packs.location import Location
from tvfs.packs.pack_directory import PackMissing
from tvfs.packs.record import RECORD_HEADER_BYTES, RecordHeader, encode_record_header, payload_crc

CHECK = "chunks"
_ROW_BYTES = 24
_SLICE = 1024


def check_chunks(exam: Examination) -> Iterator[Step]:
    """Yield what makes chunk rows true."""
    yield from _check_shapes(exam)
    for suspects in _in_parts(_rows_without_record(exam), exam.objects_at_a_time):
        yield from _place_anew(exam, suspects)
    for suspects in _in_parts(_bad_records(exam), exam.objects_at_a_time):
        yield from _place_anew(exam, suspects)


def find_records(exam: Examination, wanted: set[bytes]) -> Iterator[tuple[ChunkId, Location]]:
    """Yield a good record, its chunk's hash verified, of each chunk that packs hold; empties `wanted` of them."""
    for number in exam.pack_numbers():
        if not wanted:
            return
        with exam.packs.open_reader(number) as descriptor:
            for record in records_in(descriptor, number, check_payloads=False):
                if record.chunk_id in wanted and _is_good(exam, record):
                    wanted.discard(record.chunk_id)
                    yield record.chunk_id, record.location


def index_unknown_records(exam: Examination, numbers: Iterable[int]) -> Iterator[Step]:
    """Yield rows of state dead for chunks in these packs that have none: live as soon as something refers to them."""
    for number in numbers:
        batch = Batch()
        with exam.packs.open_reader(number) as descriptor:
            for record in records_in(descriptor, number, check_payloads=True):
                if record.intact and exam.catalog.get(Family.CHUNK, record.chunk_id) is None:
                    row = ChunkRow(record.location, ChunkState.DEAD)
                    batch.put(Family.CHUNK, record.chunk_id, encode_chunk_row(row))
                if len(batch) == _SLICE:
                    yield Step(None, batch)
                    batch = Batch()
        yield Step(None, batch)


def _check_shapes(exam: Examination) -> Iterator[Step]:
    for key, row in exam.catalog.scan(Family.CHUNK):
        if len(key) == HASH_BYTES and len(row) == _ROW_BYTES and row[2] in set(ChunkState):
            continue
        batch = Batch()
        batch.delete(Family.CHUNK, key)
        yield Step(
            Finding(CHECK, f"chunk {key.hex()}", "its row cannot be read", "removed; looked for in packs"), batch
        )


def _rows_without_record(exam: Examination) -> Iterator[tuple[bytes, str]]:
    lengths: dict[int, int] = {}
    for key, value in exam.catalog.scan(Family.CHUNK):
        row = decode_chunk_row(value)
        if row.state is ChunkState.QUARANTINED:
            if exam.content and _is_whole(exam, key, value):
                yield key, "it is in quarantine and its record is good"
            continue
        reason = _reason_against(exam, ChunkId(key), row.location, lengths)
        if reason:
            yield key, reason


def _reason_against(exam: Examination, chunk_id: ChunkId, at: Location, lengths: dict[int, int]) -> str | None:
    """Return why a row cannot be true, as far as the header of its record tells."""
    if at.pack in exam.foreign_packs:
        return f"pack {at.pack:016x} is another vault's"
    try:
        with exam.packs.open_reader(at.pack) as descriptor:
            if at.pack not in lengths:
                lengths[at.pack] = os.fstat(descriptor).st_size
            header = header_at(descriptor, at.offset, lengths[at.pack])
    except PackMissing:
        return f"pack {at.pack:016x} is not there"
    place = f"at byte {at.offset} of pack {at.pack:016x}"
    if header is None:
        return f"there is no record {place}"
    if header.chunk_id != chunk_id:
        return f"the record {place} is another chunk's"
    if (header.codec, header.raw_bytes, header.stored_bytes) != (at.codec, at.raw_bytes, at.stored_bytes):
        return f"the record {place} has another codec or other lengths"
    return None


def _bad_records(exam: Examination) -> Iterator[tuple[bytes, str]]:
    for number in exam.pack_numbers():
        with exam.packs.open_reader(number) as descriptor:
            for record in records_in(descriptor, number, check_payloads=not exam.content):
                row = exam.catalog.get(Family.CHUNK, record.chunk_id)
                if row is None:
                    continue
                known = decode_chunk_row(row)
                if known.location != record.location or known.state is ChunkState.QUARANTINED:
                    continue
                if not record.intact or (exam.content and not _is_whole(exam, record.chunk_id, row)):
                    yield record.chunk_id, f"its bytes at {record.location.offset} of pack {number:016x} are damaged"


def _place_anew(exam: Examination, suspects: dict[bytes, str]) -> Iterator[Step]:
    wanted = set()
    for key, reason in suspects.items():
        row = exam.catalog.get(Family.CHUNK, key)
        assert row is not None, "only rows are suspected"
        at = decode_chunk_row(row).location
        if decode_chunk_row(row).state is not ChunkState.QUARANTINED and _is_whole(exam, key, row):
            finding = Finding(CHECK, f"chunk {key.hex()}", reason, "its bytes are good: the header is written anew")
            yield Step(finding, act=partial(_write_header, exam, ChunkId(key), at))
        else:
            wanted.add(key)
    for chunk_id, location in find_records(exam, wanted):
        reason = suspects[chunk_id]
        state = _state(exam, chunk_id)
        batch = Batch()
        batch.put(Family.CHUNK, chunk_id, encode_chunk_row(ChunkRow(location, state)))
        remedy = f"its good record at byte {location.offset} of pack {location.pack:016x} counts"
        yield Step(Finding(CHECK, f"chunk {chunk_id.hex()}", reason, remedy), batch)
    for key in sorted(wanted):
        yield _quarantined(exam, key, suspects[key])


def _write_header(exam: Examination, chunk_id: ChunkId, at: Location) -> None:
    descriptor = os.open(exam.layout.pack(at.pack), os.O_RDWR | os.O_CLOEXEC)
    try:
        payload = os.pread(descriptor, at.stored_bytes, at.offset + RECORD_HEADER_BYTES)
        header = RecordHeader(chunk_id, at.codec, at.raw_bytes, at.stored_bytes, payload_crc(payload))
        os.pwrite(descriptor, encode_record_header(header), at.offset)
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def _state(exam: Examination, chunk_id: bytes) -> ChunkState:
    row = exam.catalog.get(Family.CHUNK, chunk_id)
    assert row is not None, "only rows are suspected"
    state = decode_chunk_row(row).state
    return ChunkState.LIVE if state is ChunkState.QUARANTINED else state


def _quarantined(exam: Examination, key: bytes, reason: str) -> Step:
    row = exam.catalog.get(Family.CHUNK, key)
    assert row is not None, "only rows are suspected"
    known = decode_chunk_row(row)
    batch = Batch()
    if known.state is ChunkState.DEAD:
        batch.delete(Family.CHUNK, key)
        return Step(Finding(CHECK, f"chunk {key.hex()}", reason, "forgotten: nothing needs it"), batch)
    exam.damage.fresh = True
    batch.put(Family.CHUNK, key, encode_chunk_row(ChunkRow(known.location, ChunkState.QUARANTINED)))
    exam.note(batch, "quarantine", key=key.hex(), detail=reason)
    remedy = "put in quarantine; saving the same content again heals it"
    return Step(Finding(CHECK, f"chunk {key.hex()}", reason, remedy), batch)


def _is_good(exam: Examination, record: FoundRecord) -> bool:
    return _is_whole(exam, record.chunk_id, encode_chunk_row(ChunkRow(record.location)))


def _is_whole(exam: Examination, chunk_id: bytes, row: bytes) -> bool:
    try:
        return exam.chunk_of_record(ChunkId(chunk_id), row) is not None
    except CodecUnknown:  # nobody can tell; the next read by somebody who can will
        return decode_chunk_row(row).state is not ChunkState.QUARANTINED


def _in_parts(pairs: Iterator[tuple[bytes, str]], most: int) -> Iterator[dict[bytes, str]]:
    while part := dict(islice(pairs, most)):
        yield part
