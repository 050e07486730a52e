"""LZMA: small and slow. Parameter: `preset`, 0 to 9 (default 1)."""

from __future__ import annotations

import lzma
from collections.abc import Mapping

from tvfs.plugin_api import CodecFailed


class Lzma:
    """One .xz stream a chunk, without a checksum: chunks are verified by their hash."""

    api_version = 1
    name = "lzma"
    codec_id = 130

    def __init__(self, preset: int) -> None:
        self._preset = preset

    def compress(self, chunk: bytes | bytearray | memoryview, /) -> bytes:
        """Return one stream."""
        return lzma.compress(chunk, check=lzma.CHECK_NONE, preset=self._preset)

    def decompress(self, payload: bytes | bytearray | memoryview, raw_bytes: int, /) -> bytes:
        """Return the chunk; a bomb is unpacked one byte further than asked, and no more."""
        unpacker = lzma.LZMADecompressor(format=lzma.FORMAT_XZ)
        try:
            chunk = unpacker.decompress(payload, max_length=raw_bytes + 1)
            if not unpacker.eof and len(chunk) == raw_bytes:
                # Everything is there; what follows it in the stream has not been looked at yet.
                chunk += unpacker.decompress(b"", max_length=1)
        except (lzma.LZMAError, EOFError) as exc:
            raise CodecFailed(f"the payload is not an xz stream: {exc}") from exc
        if not unpacker.eof or unpacker.unused_data or len(chunk) != raw_bytes:
            raise CodecFailed(f"the xz stream holds other than {raw_bytes} bytes")
        return chunk


def make(parameters: Mapping[str, int | str], /) -> Lzma:
    """Return the codec; raise `ValueError` for unknown parameters and presets out of range."""
    if unknown := set(parameters) - {"preset"}:
        raise ValueError(f"lzma has no parameter {', '.join(sorted(unknown))} (known: preset).")
    preset = parameters.get("preset", 1)
    if not isinstance(preset, int) or not 0 <= preset <= 9:
        raise ValueError(f"The preset of lzma must be from 0 to 9, not {preset!r}.")
    return Lzma(preset)
