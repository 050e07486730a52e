"""Chunks that end where lines end, for logs and tables that grow. Parameters: `min_bytes` and `max_bytes`."""

from __future__ import annotations

from collections.abc import Mapping

DEFAULTS = {"min_bytes": 64 << 10, "max_bytes": 256 << 10}


class Lines:
    """A chunk ends with the first line that ends at `min_bytes` or later, and at `max_bytes` at the latest."""

    api_version = 1
    name = "lines"

    def __init__(self, min_bytes: int, max_bytes: int) -> None:
        self.parameters: Mapping[str, int | str] = {"min_bytes": min_bytes, "max_bytes": max_bytes}
        self.max_chunk_bytes = max_bytes
        self._min_bytes = min_bytes

    def cut(self, content: bytes | bytearray | memoryview, /) -> list[int]:
        """Return the lengths of the chunks; where one ends depends only on what follows its start."""
        text = bytes(content)
        lengths: list[int] = []
        start = 0
        while start < len(text):
            newline = text.find(b"\n", start + self._min_bytes - 1, start + self.max_chunk_bytes)
            end = newline + 1 if newline >= 0 else min(start + self.max_chunk_bytes, len(text))
            lengths.append(end - start)
            start = end
        return lengths


def make(parameters: Mapping[str, int | str], /) -> Lines:
    """Return the chunker; raise `ValueError` for parameters that it does not know or cannot keep."""
    numbers = DEFAULTS | dict(parameters)
    if unknown := set(numbers) - set(DEFAULTS):
        raise ValueError(f"lines has no parameter {', '.join(sorted(unknown))} (known: {', '.join(DEFAULTS)}).")
    min_bytes, max_bytes = numbers["min_bytes"], numbers["max_bytes"]
    if not isinstance(min_bytes, int) or not isinstance(max_bytes, int) or not 1 <= min_bytes <= max_bytes <= 16 << 20:
        raise ValueError("lines needs 1 <= min_bytes <= max_bytes <= 16777216.")
    return Lines(min_bytes, max_bytes)
