from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tvplugins.compression import none, zstd
from tvplugins.hash import blake3

from tvfs.chunks.encoding import ChunkFormat, CodecUnknown, decode_chunk, encode_chunk
from tvfs.chunks.store import ChunkDamaged
from tvfs.digest import ChunkId
from tvfs.packs.location import Location
from tvfs.plugin_api import CodecFailed
from tvfs.plugin_api.buffer import Buffer

ZSTD = zstd.make({})
FORMAT = ChunkFormat(blake3.make({}), ZSTD, {1: ZSTD})


class Saves:
    """A codec whose payloads have a length that the test says."""

    name = "saves"
    codec_id = 200

    def __init__(self, payload_bytes: int) -> None:
        self.payload_bytes = payload_bytes

    def compress(self, chunk: Buffer, /) -> bytes:
        return bytes(self.payload_bytes)

    def decompress(self, payload: Buffer, raw_bytes: int, /) -> bytes:
        raise CodecFailed("never asked")


def located(raw: bytes, codec_id: int, payload: Buffer) -> Location:
    return Location(1, 40, len(payload), len(raw), codec_id)


@given(raw=st.one_of(st.binary(max_size=2000), st.integers(0, 100_000).map(bytes)))
def test_a_chunk_comes_back_exactly(raw: bytes) -> None:
    codec_id, payload = encode_chunk(raw, ZSTD)
    assert len(payload) <= len(raw)
    assert decode_chunk(payload, located(raw, codec_id, payload), {1: ZSTD}) == raw
    assert FORMAT.open(FORMAT.chunk_id(raw), located(raw, codec_id, payload), payload) == raw


@pytest.mark.parametrize(("payload_bytes", "kept"), [(960, True), (961, False), (1000, False), (1200, False)])
def test_a_chunk_stays_raw_where_compression_does_not_pay(payload_bytes: int, kept: bool) -> None:
    raw = bytes(1000)
    codec_id, payload = encode_chunk(raw, Saves(payload_bytes))
    assert (codec_id, payload) == ((200, bytes(payload_bytes)) if kept else (0, raw))


def test_random_bytes_stay_raw_and_text_does_not() -> None:
    assert encode_chunk(random.Random(1).randbytes(10_000), ZSTD)[0] == 0
    assert encode_chunk(b"text " * 2000, ZSTD)[0] == 1
    assert encode_chunk(b"text " * 2000, none.make({})) == (0, b"text " * 2000)


def test_a_raw_payload_needs_no_plugin_and_has_its_length() -> None:
    assert decode_chunk(memoryview(b"raw"), Location(1, 40, 3, 3, 0), {}) == b"raw"
    with pytest.raises(CodecFailed):
        decode_chunk(b"raw", Location(1, 40, 3, 4, 0), {})


def test_a_codec_that_is_not_installed_is_not_damage() -> None:
    with pytest.raises(CodecUnknown, match="number 77"):
        FORMAT.open(ChunkId(bytes(32)), Location(1, 40, 3, 4, 77), b"raw")


def test_bytes_without_the_hash_are_damage() -> None:
    with pytest.raises(ChunkDamaged, match="do not have its hash"):
        FORMAT.open(FORMAT.chunk_id(b"right"), Location(1, 40, 5, 5, 0), b"wrong")
    with pytest.raises(ChunkDamaged, match="not a zstd frame"):
        FORMAT.open(FORMAT.chunk_id(b"right"), Location(1, 40, 5, 5, 1), b"wrong")
