"""LZ4: the fastest codec, and the one that saves least. Parameter: `level`, 0 (default, fastest) to 12."""

from __future__ import annotations

from collections.abc import Mapping

import lz4.block

from tvfs.plugin_api.buffer import Buffer
from tvfs.plugin_api.compression import CodecFailed
from tvplugins.parameters import read_numbers

DEFAULT_LEVEL = 0
MAX_LEVEL = 12


class Lz4:
    """One raw block a chunk: its length is in the record, so the block need not say it."""

    def __init__(self, level: int) -> None:
        self._level = level

    @property
    def name(self) -> str:
        """The entry-point name."""
        return "lz4"

    @property
    def codec_id(self) -> int:
        """3."""
        return 3

    def compress(self, chunk: Buffer, /) -> bytes:
        """Return one block."""
        if not self._level:
            block: bytes = lz4.block.compress(chunk, store_size=False)
        else:
            block = lz4.block.compress(chunk, mode="high_compression", compression=self._level, store_size=False)
        return block

    def decompress(self, payload: Buffer, raw_bytes: int, /) -> bytes:
        """Return the chunk; raise `CodecFailed` for anything but exactly one block of exactly `raw_bytes` bytes."""
        try:
            chunk: bytes = lz4.block.decompress(payload, uncompressed_size=raw_bytes)
        except lz4.block.LZ4BlockError as exc:
            raise CodecFailed(f"the payload is not an lz4 block of {raw_bytes} bytes") from exc
        if len(chunk) != raw_bytes:
            raise CodecFailed(f"the lz4 block held {len(chunk)} bytes instead of {raw_bytes}")
        return chunk


def make(parameters: Mapping[str, int | str], /) -> Lz4:
    """Return the codec; raise `ValueError` for unknown parameters and levels out of range."""
    level = read_numbers("lz4", parameters, {"level": DEFAULT_LEVEL})["level"]
    if not 0 <= level <= MAX_LEVEL:
        raise ValueError(f"The level of lz4 must be from 0 to {MAX_LEVEL}, not {level}.")
    return Lz4(level)
