"""The address of a content: hash function, hash and size."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NewType

from tvfs.errors import TaskVaultError

ChunkId = NewType("ChunkId", bytes)
"""Hash of a chunk's raw bytes under the vault's hash function; always `HASH_BYTES` long."""

HASH_BYTES = 32
"""Length of a vault hash. A constant, so that index rows and pack records have fixed layouts."""

HOLE = ChunkId(bytes(HASH_BYTES))
"""Not the id of a chunk: a run of zero bytes for which nothing is stored."""

FUNCTION_CODES = {"sha256": 1, "blake3": 9}
"""Hash functions as numbered by `DigestFunction.Value` of the Remote Execution API v2."""

OWN_FUNCTION_CODE = 128
"""A vault's own hash function, where that has no number of its own."""

_FUNCTION_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*", re.ASCII)


class DigestInvalid(TaskVaultError):
    """A text that should name a digest does not."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r} is not a digest; write it as FUNCTION:HASH-SIZE, as `tv hash` prints it.")
        self.text = text


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """Names one content for ever: two contents with equal digests are the same bytes."""

    function: str
    hash: bytes
    size: int
    """Length of the content in bytes."""

    @property
    def hex(self) -> str:
        """The hash in lower-case hexadecimal, as the Remote Execution API writes it."""
        return self.hash.hex()

    def __str__(self) -> str:
        return f"{self.function}:{self.hex}-{self.size}"

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Return the digest that `str()` wrote; raise `DigestInvalid`."""
        function, colon, rest = text.partition(":")
        hash_hex, dash, size = rest.partition("-")
        if not (
            colon
            and dash
            and size.isascii()
            and size.isdigit()
            and len(size) < 20
            and _FUNCTION_NAME.fullmatch(function)
        ):
            raise DigestInvalid(text)
        try:
            hash_ = bytes.fromhex(hash_hex)
        except ValueError:
            raise DigestInvalid(text) from None
        if len(hash_) != HASH_BYTES or hash_.hex() != hash_hex:
            raise DigestInvalid(text)
        return cls(function, hash_, int(size))


def function_code(name: str) -> int:
    """Return the number under which blobs of a hash function are kept; another than the vault's must have its own."""
    return FUNCTION_CODES.get(name, OWN_FUNCTION_CODE)
