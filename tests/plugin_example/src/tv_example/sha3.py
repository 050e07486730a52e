"""SHA3-256, for those who must use it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from tvfs.plugin_api import Hasher


class Sha3:
    """The standard library's."""

    api_version = 1
    name = "sha3"

    def digest(self, content: bytes | bytearray | memoryview, /) -> bytes:
        """Return the 32-byte hash of `content`."""
        return hashlib.sha3_256(content).digest()

    def hasher(self) -> Hasher:
        """Start a hash that is computed piece by piece."""
        return hashlib.sha3_256()


def make(parameters: Mapping[str, int | str], /) -> Sha3:
    """Return the function; it has no parameters."""
    if parameters:
        raise ValueError(f"sha3 has no parameters ({', '.join(parameters)}).")
    return Sha3()
