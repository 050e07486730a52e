"""What every compression codec promises.  Subclass it and say how one is made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tvfs.plugin_api import BatchCodec, Codec, CodecFailed

_INHERITED = settings(deadline=None, suppress_health_check=[HealthCheck.differing_executors])
"""Each subclass runs the same test functions, which Hypothesis takes for a mistake."""

_TEXT = b"".join(b"line %d of a file that compresses\n" % number for number in range(3000))


class CompressionContract(ABC):
    """The promises of `Codec`."""

    golden: dict[str, bytes] = {}  # noqa: RUF012  a subclass replaces it
    """Payloads in hexadecimal, once written, and the chunks they must give for ever."""

    @abstractmethod
    def make_codec(self) -> Codec:
        """Return the codec under test."""

    def test_old_payloads_are_readable(self) -> None:
        """What was written under an id must be readable for ever."""
        assert self.golden, "name at least one payload and its chunk"
        for payload, chunk in self.golden.items():
            assert self.make_codec().decompress(bytes.fromhex(payload), len(chunk)) == chunk

    def test_the_codec_id_fits_a_record(self) -> None:
        """One byte."""
        assert 0 <= self.make_codec().codec_id <= 255

    @_INHERITED
    @given(chunk=st.one_of(st.binary(max_size=3000), st.integers(0, len(_TEXT)).map(lambda length: _TEXT[:length])))
    def test_a_chunk_comes_back_exactly(self, chunk: bytes) -> None:
        """Empty ones, random ones, text; every kind of buffer."""
        codec = self.make_codec()
        payload = codec.compress(chunk)
        assert codec.compress(memoryview(bytearray(chunk))) == payload
        for given_as in (payload, bytearray(payload), memoryview(payload)):
            back = codec.decompress(given_as, len(chunk))
            assert isinstance(back, bytes)
            assert back == chunk

    @_INHERITED
    @given(chunk=st.binary(max_size=2000), claim=st.integers(0, 4000))
    def test_a_wrong_length_is_refused(self, chunk: bytes, claim: int) -> None:
        """Exactly the raw bytes that were asked for, or nothing."""
        codec = self.make_codec()
        payload = codec.compress(chunk)
        if claim != len(chunk):
            with pytest.raises(CodecFailed):
                codec.decompress(payload, claim)

    @_INHERITED
    @given(payload=st.binary(max_size=300), raw_bytes=st.integers(0, 1 << 20))
    def test_foreign_bytes_are_refused_or_have_the_length(self, payload: bytes, raw_bytes: int) -> None:
        """Never another exception, never another length."""
        try:
            chunk = self.make_codec().decompress(payload, raw_bytes)
        except CodecFailed:
            return
        assert len(chunk) == raw_bytes

    def test_a_damaged_payload_is_refused_or_has_the_length(self) -> None:
        """Cut short, with bytes after it, or with a bit flipped."""
        codec = self.make_codec()
        payload = codec.compress(_TEXT)
        for damaged in (payload[:-1], payload[: len(payload) // 2], payload + b"\0", payload + payload):
            with pytest.raises(CodecFailed):
                codec.decompress(damaged, len(_TEXT))
        for place in range(0, len(payload), max(1, len(payload) // 200)):
            flipped = bytearray(payload)
            flipped[place] ^= 1
            try:
                assert len(codec.decompress(flipped, len(_TEXT))) == len(_TEXT)
            except CodecFailed:
                continue

    @_INHERITED
    @given(chunks=st.lists(st.binary(max_size=500), max_size=8))
    def test_many_chunks_are_what_each_would_be(self, chunks: list[bytes]) -> None:
        """For codecs that offer `compress_many`."""
        codec = self.make_codec()
        if isinstance(codec, BatchCodec):
            expected = [codec.compress(chunk) for chunk in chunks]
            assert codec.compress_many(chunks) == expected
            assert codec.compress_many([memoryview(bytearray(chunk)) for chunk in chunks]) == expected

    def test_threads_do_not_disturb_each_other(self) -> None:
        """One codec, several threads at once."""
        codec = self.make_codec()

        def there_and_back(number: int) -> bool:
            chunk = _TEXT[number * 100 :]
            return codec.decompress(codec.compress(chunk), len(chunk)) == chunk

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(there_and_back, range(100)))
