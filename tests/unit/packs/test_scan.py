from __future__ import annotations

import os
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvfs.digest import ChunkId
from tvfs.errors import FormatTooNew
from tvfs.packs.location import Location
from tvfs.packs.pack_directory import PackDirectory
from tvfs.packs.pack_writer import PackWriter
from tvfs.packs.record import PACK_HEADER_BYTES, RECORD_HEADER_BYTES, PackDamaged, PackHeader, encode_pack_header
from tvfs.packs.scan import read_pack_header, scan_pack, valid_length

UUID = bytes(range(16))
IDS = [ChunkId(bytes([number]) * 32) for number in range(4)]


def fill(fd: int, number: int) -> list[Location]:
    writer = PackWriter(os.dup(fd), number, UUID)
    places = [writer.append(chunk_id, 1000, 1, bytes(100 + at)) for at, chunk_id in enumerate(IDS)]
    writer.close()
    return places


@pytest.fixture
def pack(packs: PackDirectory) -> Iterator[tuple[int, list[Location]]]:
    fd = packs.create(9)
    yield fd, fill(fd, 9)
    os.close(fd)


def test_a_scan_finds_what_was_written(pack: tuple[int, list[Location]]) -> None:
    fd, places = pack
    assert read_pack_header(fd) == PackHeader(9, UUID)
    for check_payloads in (False, True):
        found = list(scan_pack(fd, check_payloads=check_payloads))
        assert [(record.chunk_id, record.location, record.intact) for record in found] == [
            (chunk_id, place, True) for chunk_id, place in zip(IDS, places, strict=True)
        ]
    assert valid_length(fd) == os.fstat(fd).st_size


def test_an_empty_pack_has_no_records(packs: PackDirectory) -> None:
    fd = packs.create(1)
    assert list(scan_pack(fd)) == []
    assert valid_length(fd) == PACK_HEADER_BYTES
    os.close(fd)


@given(cut=st.integers(0, 600))
def test_a_pack_cut_anywhere_has_the_records_before_the_cut(cut: int) -> None:
    fd = os.memfd_create("pack")
    try:
        os.pwrite(fd, encode_pack_header(PackHeader(9, UUID)), 0)
        places = fill(fd, 9)
        ends = [PACK_HEADER_BYTES, *(at.offset + RECORD_HEADER_BYTES + at.stored_bytes for at in places)]
        length = min(PACK_HEADER_BYTES + cut, ends[-1])
        os.ftruncate(fd, length)
        assert valid_length(fd) == max(end for end in ends if end <= length)
        os.pwrite(fd, b"what a power loss may leave" * 20, length)
        intact = [record.chunk_id for record in scan_pack(fd, check_payloads=True) if record.intact]
        assert intact == IDS[: sum(end <= length for end in ends[1:])]
    finally:
        os.close(fd)


def test_a_bad_header_ends_the_pack(pack: tuple[int, list[Location]]) -> None:
    fd, places = pack
    os.pwrite(fd, b"?", places[2].offset + 7)
    assert [record.chunk_id for record in scan_pack(fd)] == IDS[:2]
    assert valid_length(fd) == places[2].offset


def test_a_bad_payload_is_reported_and_passed(pack: tuple[int, list[Location]]) -> None:
    fd, places = pack
    os.pwrite(fd, b"?", places[1].offset + RECORD_HEADER_BYTES + 5)
    assert [record.intact for record in scan_pack(fd, check_payloads=True)] == [True, False, True, True]
    assert [record.intact for record in scan_pack(fd)] == [True] * 4


def test_a_file_that_is_no_pack_is_damage(pack: tuple[int, list[Location]]) -> None:
    fd, _ = pack
    os.pwrite(fd, b"?", 0)
    with pytest.raises(PackDamaged):
        list(scan_pack(fd))


def test_a_record_of_a_later_version_is_no_torn_tail(pack: tuple[int, list[Location]]) -> None:
    fd, places = pack
    header = bytearray(os.pread(fd, RECORD_HEADER_BYTES, places[2].offset))
    header[4], header[20:24] = 2, bytes(4)
    header[20:24] = zlib.crc32(header).to_bytes(4, "big")
    os.pwrite(fd, header, places[2].offset)
    with pytest.raises(FormatTooNew):
        valid_length(fd)
