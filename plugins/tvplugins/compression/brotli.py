"""Brotli: smaller than zstd for text, slower. Parameter: `quality`, 0 to 11 (default 4, about 250 MB/s a core)."""

from __future__ import annotations

from collections.abc import Mapping

import brotli

from tvfs.plugin_api.buffer import Buffer
from tvfs.plugin_api.compression import CodecFailed
from tvplugins.parameters import read_numbers

DEFAULT_QUALITY = 4
MAX_QUALITY = 11


class Brotli:
    """One stream a chunk.  Streams do not say how long they are, so they are unpacked in steps and never beyond."""

    def __init__(self, quality: int) -> None:
        self._quality = quality

    @property
    def name(self) -> str:
        """The entry-point name."""
        return "brotli"

    @property
    def codec_id(self) -> int:
        """2."""
        return 2

    def compress(self, chunk: Buffer, /) -> bytes:
        """Return one stream."""
        stream: bytes = brotli.compress(chunk, quality=self._quality)
        return stream

    def decompress(self, payload: Buffer, raw_bytes: int, /) -> bytes:
        """Return the chunk; raise `CodecFailed` for anything but exactly one stream of exactly `raw_bytes` bytes."""
        decompressor = brotli.Decompressor()
        parts: list[bytes] = []
        length = 0
        try:
            waiting: Buffer = payload
            while not decompressor.is_finished() and length <= raw_bytes:
                # One byte more than wanted shows that there is more; the library rounds up to its 32 KiB block.
                part = decompressor.process(waiting, output_buffer_limit=raw_bytes - length + 1)
                if not part and not decompressor.is_finished():
                    raise CodecFailed("the brotli stream ends in the middle")
                waiting = b""
                parts.append(part)
                length += len(part)
        except brotli.error as exc:
            raise CodecFailed(f"the payload is not a brotli stream: {exc}") from exc
        if length != raw_bytes:
            raise CodecFailed(f"the brotli stream holds other than {raw_bytes} bytes")
        return parts[0] if len(parts) == 1 else b"".join(parts)


def make(parameters: Mapping[str, int | str], /) -> Brotli:
    """Return the codec; raise `ValueError` for unknown parameters and qualities out of range."""
    quality = read_numbers("brotli", parameters, {"quality": DEFAULT_QUALITY})["quality"]
    if not 0 <= quality <= MAX_QUALITY:
        raise ValueError(f"The quality of brotli must be from 0 to {MAX_QUALITY}, not {quality}.")
    return Brotli(quality)
