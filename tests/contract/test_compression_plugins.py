"""The built-in codecs keep the contract."""

from __future__ import annotations

import random
import tracemalloc
from types import ModuleType

import pytest
import zstandard
from tvplugins.compression import brotli, lz4, none, zstd

from tvfs.plugin_api import Codec, CodecFailed
from tvfs.testing.compression_contract import CompressionContract


class TestZstd(CompressionContract):
    golden = {  # noqa: RUF012
        "28b52ffd60f4008d0000505461736b5661756c74200100e7550b12": b"TaskVault " * 50,
        "28b52ffd2000010000": b"",
    }

    def make_codec(self) -> Codec:
        return zstd.make({})


class TestZstdOfHighestLevel(TestZstd):
    def make_codec(self) -> Codec:
        return zstd.make({"level": 19})


class TestBrotli(CompressionContract):
    golden = {  # noqa: RUF012
        "1bf30100c45396aa1a4c9769fe20301448e945fe1e00": b"TaskVault " * 50,
        "3b": b"",
    }

    def make_codec(self) -> Codec:
        return brotli.make({})


@pytest.mark.slow
class TestBrotliOfHighestQuality(TestBrotli):
    def make_codec(self) -> Codec:
        return brotli.make({"quality": 11})


class TestLz4(CompressionContract):
    golden = {  # noqa: RUF012
        "af5461736b5661756c74200a00ffd35061756c7420": b"TaskVault " * 50,
        "00": b"",
    }

    def make_codec(self) -> Codec:
        return lz4.make({})


class TestLz4OfHighestLevel(TestLz4):
    def make_codec(self) -> Codec:
        return lz4.make({"level": 12})


class TestNone(CompressionContract):
    golden = {"00ff": b"\x00\xff"}  # noqa: RUF012

    def make_codec(self) -> Codec:
        return none.make({})


def test_ids_are_those_of_the_format() -> None:
    made = [module.make({}) for module in (none, zstd, brotli, lz4)]
    assert {codec.name: codec.codec_id for codec in made} == {"none": 0, "zstd": 1, "brotli": 2, "lz4": 3}


@pytest.mark.parametrize("plugin", [brotli, lz4], ids=["brotli", "lz4"])
def test_a_bomb_that_does_not_say_its_length_is_unpacked_no_further_than_asked(plugin: ModuleType) -> None:
    codec: Codec = plugin.make({})
    bomb = codec.compress(bytes(256 << 20))
    tracemalloc.start()
    with pytest.raises(CodecFailed):
        codec.decompress(bomb, 1000)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(256 << 20))
    tracemalloc.start()
    with pytest.raises(CodecFailed, match="announces 268435456 bytes instead of 1000"):
        zstd.make({}).decompress(bomb, 1000)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_bomb_that_announces_nothing_is_refused() -> None:
    bomb = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 20))
    with pytest.raises(CodecFailed):
        zstd.make({}).decompress(bomb, 1000)


def test_a_bomb_that_lies_about_its_size_is_refused() -> None:
    honest = bytearray(zstandard.ZstdCompressor().compress(bytes(70_000)))
    at = honest.index((70_000).to_bytes(4, "little"))
    honest[at : at + 4] = (66_000).to_bytes(4, "little")
    assert zstandard.frame_content_size(honest) == 66_000
    with pytest.raises(CodecFailed):
        zstd.make({}).decompress(honest, 66_000)


def test_a_higher_level_compresses_more() -> None:
    words = [b"pack", b"chunk", b"blob", b"tree", b"inode", b"staging", b"seal", b"attach", b"snapshot", b"entry"]
    text = b" ".join(random.Random(1).choices(words, k=20_000))
    assert len(zstd.make({"level": 19}).compress(text)) < len(zstd.make({}).compress(text))


@pytest.mark.parametrize(
    "parameters", [{"level": 0}, {"level": 20}, {"level": "1"}, {"level": True}, {"no_such_parameter": 1}]
)
def test_zstd_refuses_parameters_that_it_cannot_keep(parameters: dict[str, int | str]) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        zstd.make(parameters)


@pytest.mark.parametrize(
    ("plugin", "parameters"),
    [
        (brotli, {"quality": 12}),
        (brotli, {"quality": -1}),
        (brotli, {"level": 1}),
        (lz4, {"level": 13}),
        (lz4, {"level": -1}),
        (lz4, {"quality": 1}),
    ],
)
def test_parameters_out_of_range_are_refused(plugin: ModuleType, parameters: dict[str, int | str]) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        plugin.make(parameters)


def test_none_has_no_parameters() -> None:
    with pytest.raises(ValueError, match="none has no parameter 'level'"):
        none.make({"level": 1})
