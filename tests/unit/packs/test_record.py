from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvfs.digest import ChunkId
from tvfs.errors import FormatTooNew
from tvfs.packs.record import (
    MAX_CHUNK_BYTES,
    PACK_HEADER_BYTES,
    RECORD_HEADER_BYTES,
    PackDamaged,
    PackHeader,
    RecordHeader,
    decode_pack_header,
    decode_record_header,
    encode_pack_header,
    encode_record_header,
)

UUID = bytes(range(16))
HEADER = RecordHeader(ChunkId(bytes(range(32))), codec=1, raw_bytes=1000, stored_bytes=500, payload_crc=0xDEADBEEF)

headers = st.builds(
    RecordHeader,
    st.binary(min_size=32, max_size=32).map(ChunkId),
    st.integers(0, 255),
    st.integers(0, MAX_CHUNK_BYTES),
    st.integers(0, MAX_CHUNK_BYTES),
    st.integers(0, 2**32 - 1),
)


def test_a_pack_header_has_the_bytes_of_the_format() -> None:
    encoded = encode_pack_header(PackHeader(0x1122334455667788, UUID))
    assert encoded == b"TVPACK\r\n\x01" + bytes(7) + bytes.fromhex("1122334455667788") + UUID
    assert len(encoded) == PACK_HEADER_BYTES == 40
    assert decode_pack_header(encoded) == PackHeader(0x1122334455667788, UUID)


def test_a_record_header_has_the_bytes_of_the_format() -> None:
    encoded = encode_record_header(HEADER)
    assert encoded.hex() == (
        "54566331" "01" "01" "0000" "000003e8" "000001f4" "deadbeef" "629be6f4"
        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
    )  # fmt: skip
    assert len(encoded) == RECORD_HEADER_BYTES == 56
    assert zlib.crc32(encoded[:20] + bytes(4) + encoded[24:]) == int.from_bytes(encoded[20:24], "big")


@given(header=headers)
def test_a_record_header_comes_back_exactly(header: RecordHeader) -> None:
    encoded = encode_record_header(header)
    assert decode_record_header(encoded) == header
    assert decode_record_header(memoryview(encoded + b"payload")) == header


@given(header=headers, bit=st.integers(0, RECORD_HEADER_BYTES * 8 - 1))
def test_a_flipped_bit_is_noticed(header: RecordHeader, bit: int) -> None:
    encoded = bytearray(encode_record_header(header))
    encoded[bit // 8] ^= 1 << bit % 8
    assert decode_record_header(encoded) is None


@given(length=st.integers(0, RECORD_HEADER_BYTES - 1))
def test_half_a_record_header_is_none(length: int) -> None:
    assert decode_record_header(encode_record_header(HEADER)[:length]) is None


def test_a_record_of_a_later_version_is_refused_not_taken_for_damage() -> None:
    later = bytearray(encode_record_header(HEADER))
    later[4] = 2
    later[20:24] = bytes(4)
    later[20:24] = zlib.crc32(later).to_bytes(4, "big")
    with pytest.raises(FormatTooNew):
        decode_record_header(later)


def test_a_pack_of_a_later_version_is_refused() -> None:
    later = bytearray(encode_pack_header(PackHeader(1, UUID)))
    later[8] = 2
    with pytest.raises(FormatTooNew, match="use a newer TaskVault"):
        decode_pack_header(bytes(later))


@pytest.mark.parametrize("head", [b"", b"TVPACK\r\n", b"TVPACK\n\n" + bytes(32), bytes(40)])
def test_what_is_not_a_pack_is_damaged(head: bytes) -> None:
    with pytest.raises(PackDamaged):
        decode_pack_header(head)
