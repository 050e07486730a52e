"""The built-in chunkers keep the contract."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping

import pytest
from tvplugins.chunking import fastcdc, fixed, whole

from tvfs.plugin_api import Chunker
from tvfs.testing.chunking_contract import ChunkingContract

KIB = 1024
SMALL: dict[str, int | str] = {"min_bytes": 16 * KIB, "avg_bytes": 64 * KIB, "max_bytes": 256 * KIB}


class TestFastCdc(ChunkingContract):
    # fmt: off
    golden = [  # noqa: RUF012
        154101, 233313, 87476, 88231, 167773, 167533, 163425, 89654, 49405, 162477, 142723, 205520, 204167,
        181354,
    ]
    # fmt: on

    def make_chunker(self) -> Chunker:
        return fastcdc.make({})

    def make_with(self, parameters: Mapping[str, int | str]) -> Chunker:
        return fastcdc.make(parameters)


class TestFastCdcWithSmallChunks(ChunkingContract):
    # fmt: off
    golden = [  # noqa: RUF012
        101506, 52595, 109002, 151989, 59798, 72134, 79398, 102035, 164925, 86539, 81931, 69478, 20176, 49405, 87191,
        35566, 39720, 70380, 131888, 70999, 72666, 121527, 73243, 28098, 97553, 67410,
    ]
    # fmt: on

    def make_chunker(self) -> Chunker:
        return fastcdc.make(SMALL)

    def make_with(self, parameters: Mapping[str, int | str]) -> Chunker:
        return fastcdc.make(parameters)


class TestFastCdcWithASeed(ChunkingContract):
    # fmt: off
    golden = [  # noqa: RUF012
        50038, 17050, 85939, 83136, 48332, 87621, 49406, 88042, 77138, 62772, 100428, 82881, 117203, 47825, 72767,
        131155, 33656, 21232, 66977, 23635, 73819, 87237, 70703, 123013, 67513, 123344, 62344, 85138, 56808,
    ]
    # fmt: on

    def make_chunker(self) -> Chunker:
        return fastcdc.make({**SMALL, "seed": 7})

    def make_with(self, parameters: Mapping[str, int | str]) -> Chunker:
        return fastcdc.make(parameters)


class TestFastCdcOfOddLengths(ChunkingContract):
    """Small and odd, so that windows end near every kind of place."""

    def test_the_cuts_are_where_they_always_were(self) -> None:
        lengths = self.make_chunker().cut(self.golden_content())
        assert (
            hashlib.sha256(repr(lengths).encode()).hexdigest()
            == "1d1f0d27da6c20002d0c030522d1cb7504d2ee38059b5d0b6976a7ee9345611d"
        )

    def make_chunker(self) -> Chunker:
        return fastcdc.make({"min_bytes": 333, "avg_bytes": 1001, "max_bytes": 5003})

    def make_with(self, parameters: Mapping[str, int | str]) -> Chunker:
        return fastcdc.make(parameters)


class TestFixed(ChunkingContract):
    golden = [128 * KIB] * 16

    def make_chunker(self) -> Chunker:
        return fixed.make({})

    def make_with(self, parameters: Mapping[str, int | str]) -> Chunker:
        return fixed.make(parameters)


class TestWhole(ChunkingContract):
    golden = [2048 * KIB]  # noqa: RUF012

    def make_chunker(self) -> Chunker:
        return whole.make({})

    def make_with(self, parameters: Mapping[str, int | str]) -> Chunker:
        return whole.make(parameters)


class TestWholeWithAShortestLimit(ChunkingContract):
    golden = [64 * KIB] * 32

    def make_chunker(self) -> Chunker:
        return whole.make({"max_bytes": 64 * KIB})

    def make_with(self, parameters: Mapping[str, int | str]) -> Chunker:
        return whole.make(parameters)


def test_a_whole_file_beyond_the_longest_chunk_is_cut_there() -> None:
    longest = 16 << 20
    assert whole.make({}).cut(bytes(longest)) == [longest]
    assert whole.make({}).cut(bytes(2 * longest + 1)) == [longest, longest, 1]


@pytest.mark.parametrize("parameters", [{"max_bytes": 1}, {"max_bytes": (16 << 20) + 1}, {"no_such_parameter": 1}])
def test_whole_refuses_parameters_that_it_cannot_keep(parameters: dict[str, int | str]) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        whole.make(parameters)


def test_the_golden_content_is_what_it_was() -> None:
    expected = "45f33bf1fa53393100c8ba2628541ed2323c32a6b22f0f8c685629b4762d5b6f"
    assert hashlib.sha256(ChunkingContract.golden_content()).hexdigest() == expected


def test_a_small_content_is_one_chunk() -> None:
    content = random.Random(1).randbytes(64 * KIB)
    assert fastcdc.make({}).cut(content) == [64 * KIB]
    assert len(fastcdc.make({"min_bytes": 1024, "avg_bytes": 4096, "max_bytes": 16384}).cut(content)) > 5


def test_an_insertion_changes_only_the_chunks_around_it() -> None:
    content = random.Random(2).randbytes(8 << 20)
    changed = content[: 4 << 20] + b"inserted" + content[4 << 20 :]
    chunker = fastcdc.make({})
    before, after = (_pieces(chunker, each) for each in (content, changed))
    assert len(before - after) <= 3


def _pieces(chunker: Chunker, content: bytes) -> set[bytes]:
    pieces, start = set(), 0
    for length in chunker.cut(content):
        pieces.add(content[start : start + length])
        start += length
    return pieces


def test_fastcdc_cuts_with_the_c_extension() -> None:
    cutter = fastcdc.make({})._cutter()
    assert type(cutter).__module__.startswith("pyfastcdc.cy")


def test_a_missing_c_extension_is_said_when_the_chunker_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyfastcdc.cy", None)
    with pytest.raises(ImportError, match="without its C extension"):
        fastcdc.make({})


@pytest.mark.parametrize(
    "parameters",
    [
        {"min_bytes": 200_000},
        {"max_bytes": 1000},
        {"avg_bytes": 8 << 20},
        {"seed": -1},
        {"seed": 1 << 63},
        {"avg_bytes": "64K"},
        {"no_such_parameter": 1},
    ],
)
def test_fastcdc_refuses_parameters_that_it_cannot_keep(parameters: dict[str, int | str]) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        fastcdc.make(parameters)


@pytest.mark.parametrize("parameters", [{"chunk_bytes": 1}, {"chunk_bytes": 17 << 20}, {"no_such_parameter": 1}])
def test_fixed_refuses_parameters_that_it_cannot_keep(parameters: dict[str, int | str]) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        fixed.make(parameters)


def test_the_largest_seed_works() -> None:
    assert sum(fastcdc.make({"seed": (1 << 63) - 1}).cut(bytes(300_000))) == 300_000
