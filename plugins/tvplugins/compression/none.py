"""No compression: chunks are stored as they are."""

from __future__ import annotations

from collections.abc import Mapping

from tvfs.plugin_api.buffer import Buffer
from tvfs.plugin_api.compression import CodecFailed
from tvplugins.parameters import read_numbers


class NoCompression:
    """The payload is the chunk."""

    @property
    def name(self) -> str:
        """The entry-point name."""
        return "none"

    @property
    def codec_id(self) -> int:
        """0: raw."""
        return 0

    def compress(self, chunk: Buffer, /) -> bytes:
        """Return the chunk."""
        return bytes(chunk)

    def decompress(self, payload: Buffer, raw_bytes: int, /) -> bytes:
        """Return the payload; raise `CodecFailed` if it is not `raw_bytes` long."""
        if len(payload) != raw_bytes:
            raise CodecFailed(f"the raw payload has {len(payload)} bytes instead of {raw_bytes}")
        return bytes(payload)


def make(parameters: Mapping[str, int | str], /) -> NoCompression:
    """Return the codec; it has no parameters, and any raises `ValueError`."""
    read_numbers("none", parameters, {})
    return NoCompression()
