"""What every hash function promises.  Subclass it and say how one is made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tvfs.digest import HASH_BYTES
from tvfs.plugin_api import HashFunction

_INHERITED = settings(deadline=None, suppress_health_check=[HealthCheck.differing_executors])
"""Each subclass runs the same test functions, which Hypothesis takes for a mistake."""


class HashContract(ABC):
    """The promises of `HashFunction`."""

    golden: dict[bytes, str] = {}  # noqa: RUF012  a subclass replaces it
    """Contents and their hashes in hexadecimal: the function must never change."""

    @abstractmethod
    def make_hash(self) -> HashFunction:
        """Return the function under test."""

    def test_the_hashes_are_what_they_always_were(self) -> None:
        """Hashes are stored for ever."""
        assert self.golden, "name at least one content and its hash"
        hash_function = self.make_hash()
        for content, expected in self.golden.items():
            assert hash_function.digest(content).hex() == expected

    @_INHERITED
    @given(content=st.binary(max_size=5000), cut=st.integers(0, 5000))
    def test_a_hash_has_32_bytes_however_the_content_comes(self, content: bytes, cut: int) -> None:
        """Every kind of buffer, whole or in pieces."""
        hash_function = self.make_hash()
        expected = hash_function.digest(content)
        assert isinstance(expected, bytes)
        assert len(expected) == HASH_BYTES
        assert hash_function.digest(bytearray(content)) == expected
        assert hash_function.digest(memoryview(content)) == expected
        hasher = hash_function.hasher()
        hasher.update(content[:cut])
        hasher.digest()
        hasher.update(memoryview(content)[cut:])
        assert hasher.digest() == expected

    def test_different_contents_have_different_hashes(self) -> None:
        """One bit, one more byte, nothing at all."""
        contents = [b"", b"\0", b"\0\0", b"\1", bytes(1 << 20), bytes((1 << 20) - 1) + b"\1"]
        assert len({self.make_hash().digest(content) for content in contents}) == len(contents)

    def test_threads_do_not_disturb_each_other(self) -> None:
        """One function, several threads at once."""
        hash_function = self.make_hash()
        contents = [bytes([number]) * 300_000 for number in range(32)]
        expected = [hash_function.digest(content) for content in contents]
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(hash_function.digest, contents)) == expected


def refuses_unknown_parameters(make: object) -> None:
    """Assert that a factory says which parameter it does not know."""
    assert callable(make)
    with pytest.raises(ValueError, match="no_such_parameter"):
        make({"no_such_parameter": 1})
