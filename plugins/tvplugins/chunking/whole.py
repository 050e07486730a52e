"""Whole files as one chunk each, for contents that change as a whole or not at all (archives, images, objects).

Parameter: `max_bytes`, default and at most 16 MiB, the longest chunk there is: a longer content is cut there, and each
change in it costs up to as much again.
"""

from __future__ import annotations

from collections.abc import Mapping

from tvfs.plugin_api.buffer import Buffer
from tvplugins.parameters import read_numbers

MAX_BYTES = 16 << 20
MIN_BYTES = 64 << 10


class Whole:
    """Cuts only where it must."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes

    @property
    def name(self) -> str:
        """The entry-point name."""
        return "whole"

    @property
    def parameters(self) -> Mapping[str, int | str]:
        """`max_bytes`, as used."""
        return {"max_bytes": self._max_bytes}

    @property
    def max_chunk_bytes(self) -> int:
        """The parameter `max_bytes`."""
        return self._max_bytes

    def cut(self, content: Buffer, /) -> list[int]:
        """Return the length of the content, or of its pieces of `max_bytes` and of what is left."""
        pieces, rest = divmod(len(content), self._max_bytes)
        return [self._max_bytes] * pieces + ([rest] if rest else [])


def make(parameters: Mapping[str, int | str], /) -> Whole:
    """Return the chunker; raise `ValueError` for unknown parameters and lengths out of range."""
    max_bytes = read_numbers("whole", parameters, {"max_bytes": MAX_BYTES})["max_bytes"]
    if not MIN_BYTES <= max_bytes <= MAX_BYTES:
        raise ValueError(f"max_bytes of whole must be from {MIN_BYTES} to {MAX_BYTES}, not {max_bytes}.")
    return Whole(max_bytes)
