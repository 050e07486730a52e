"""Contract of a hash function: what gives contents their addresses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from tvfs.plugin_api.buffer import Buffer

API_VERSION = 1
"""Of this contract. A plugin may declare the one it was written for as `api_version`, on factory or plugin."""


class Hasher(Protocol):
    """One hash being computed. Used by one thread."""

    def update(self, content: Buffer, /) -> object:
        """Take in the next bytes."""
        ...

    def digest(self) -> bytes:
        """Return the hash of everything taken in so far."""
        ...


class HashFunction(Protocol):
    """A collision-resistant hash with a digest of 32 bytes.

    Threads: called from several threads at once.  Should release the interpreter lock for long contents.
    Persistence: hashes are stored for ever.  If the function's output changes in any way, its name must change.
    """

    @property
    def name(self) -> str:
        """The entry-point name, stored in superblocks and digests."""
        ...

    def digest(self, content: Buffer, /) -> bytes:
        """Return the hash of `content`."""
        ...

    def hasher(self) -> Hasher:
        """Start a hash that is computed piece by piece."""
        ...


class HashFunctionFactory(Protocol):
    """What the entry point names."""

    def __call__(self, parameters: Mapping[str, int | str], /) -> HashFunction:
        """Return the function; raise `ValueError` for parameters it does not know."""
        ...
