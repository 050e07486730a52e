"""Chunks of equal length, for contents that are changed in place (disk images, databases).

Parameter: `chunk_bytes`, default 128 KiB.
"""

from __future__ import annotations

from collections.abc import Mapping

from tvfs.plugin_api.buffer import Buffer
from tvplugins.parameters import read_numbers

DEFAULT_CHUNK_BYTES = 128 << 10
MIN_CHUNK_BYTES = 4 << 10
MAX_CHUNK_BYTES = 16 << 20


class Fixed:
    """Every chunk but the last has `chunk_bytes`."""

    def __init__(self, chunk_bytes: int) -> None:
        self._chunk_bytes = chunk_bytes

    @property
    def name(self) -> str:
        """The entry-point name."""
        return "fixed"

    @property
    def parameters(self) -> Mapping[str, int | str]:
        """All of them, as used."""
        return {"chunk_bytes": self._chunk_bytes}

    @property
    def max_chunk_bytes(self) -> int:
        """The length of every chunk but the last."""
        return self._chunk_bytes

    def cut(self, content: Buffer, /) -> list[int]:
        """Return the lengths of the chunks of `content`, in order."""
        whole, rest = divmod(len(content), self._chunk_bytes)
        return [self._chunk_bytes] * whole + ([rest] if rest else [])


def make(parameters: Mapping[str, int | str], /) -> Fixed:
    """Return the chunker; raise `ValueError` for unknown parameters and lengths outside 4 KiB to 16 MiB."""
    chunk_bytes = read_numbers("fixed", parameters, {"chunk_bytes": DEFAULT_CHUNK_BYTES})["chunk_bytes"]
    if not MIN_CHUNK_BYTES <= chunk_bytes <= MAX_CHUNK_BYTES:
        raise ValueError(
            f"chunk_bytes of fixed must be from {MIN_CHUNK_BYTES} to {MAX_CHUNK_BYTES}, not {chunk_bytes}."
        )
    return Fixed(chunk_bytes)
