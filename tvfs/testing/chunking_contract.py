"""What every chunker promises.  Subclass it and say how one is made."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tvfs.plugin_api import Chunker

LARGEST_CHUNK_BYTES = 16 << 20

_INHERITED = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
"""Each subclass runs the same test functions, which Hypothesis takes for a mistake."""


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """Random and repetitive pieces, up to some hundred KiB."""
    pieces = draw(st.lists(st.tuples(st.integers(0, 2**32), st.integers(0, 150_000), st.booleans()), max_size=4))
    return b"".join(
        random.Random(seed).randbytes(length) if varied else bytes([seed % 256]) * length  # noqa: S311
        for seed, length, varied in pieces
    )


class ChunkingContract(ABC):
    """The promises of `Chunker`."""

    golden: list[int] = []  # noqa: RUF012  a subclass replaces it
    """Lengths of the chunks of `golden_content()`: cuts must never change, or deduplication is lost."""

    @abstractmethod
    def make_chunker(self) -> Chunker:
        """Return the chunker under test."""

    @abstractmethod
    def make_with(self, parameters: Mapping[str, int | str]) -> Chunker:
        """Return what the plugin's factory makes of parameters."""

    def test_its_parameters_make_it_again(self) -> None:
        """They are all there, whatever was given, and are enough."""
        chunker = self.make_chunker()
        again = self.make_with(chunker.parameters)
        assert again.parameters == chunker.parameters
        assert set(chunker.parameters) == set(self.make_with({}).parameters)
        assert again.cut(self.golden_content()) == chunker.cut(self.golden_content())

    @staticmethod
    def golden_content() -> bytes:
        """Return 2 MiB that are the same on every machine and in every version."""
        state, words = 1, bytearray()
        for _ in range(1 << 18):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            words += state.to_bytes(8, "big")
        return bytes(words)

    def test_the_cuts_are_where_they_always_were(self) -> None:
        """The same bytes are cut at the same places for ever."""
        assert self.golden, "name the lengths of the chunks of golden_content()"
        assert self.make_chunker().cut(self.golden_content()) == self.golden

    def test_nothing_has_no_chunks(self) -> None:
        """No chunk is empty."""
        assert self.make_chunker().cut(b"") == []

    @_INHERITED
    @given(content=contents())
    def test_the_chunks_cover_the_content(self, content: bytes) -> None:
        """Their sum is its length, none is empty, none is too long; every kind of buffer."""
        chunker = self.make_chunker()
        lengths = chunker.cut(content)
        assert sum(lengths) == len(content)
        assert all(0 < length <= chunker.max_chunk_bytes <= LARGEST_CHUNK_BYTES for length in lengths)
        assert chunker.cut(bytearray(content)) == lengths
        assert chunker.cut(memoryview(content)) == lengths

    @_INHERITED
    @given(content=contents())
    def test_cutting_restarts_at_every_boundary(self, content: bytes) -> None:
        """The chunks of what follows a boundary are the remaining chunks."""
        chunker = self.make_chunker()
        lengths = chunker.cut(content)
        start = 0
        for done, length in enumerate(lengths):
            assert chunker.cut(memoryview(content)[start:]) == lengths[done:]
            start += length

    @_INHERITED
    @given(content=contents(), window=st.integers(1, 400_000))
    def test_windows_give_the_same_cuts(self, content: bytes, window: int) -> None:
        """Carrying the last chunk of each window over to the next gives the cuts of the whole."""
        chunker = self.make_chunker()
        lengths: list[int] = []
        carried = b""
        for start in range(0, len(content), window):
            carried += content[start : start + window]
            finished = chunker.cut(carried)[:-1]
            lengths += finished
            carried = carried[sum(finished) :]
        assert lengths + chunker.cut(carried) == chunker.cut(content)

    def test_threads_do_not_disturb_each_other(self) -> None:
        """One chunker, several threads at once."""
        chunker = self.make_chunker()
        pieces = [random.Random(number).randbytes(700_000) for number in range(8)]  # noqa: S311
        expected = [chunker.cut(piece) for piece in pieces]
        with ThreadPoolExecutor(4) as pool:
            for _ in range(4):
                assert list(pool.map(chunker.cut, pieces)) == expected
