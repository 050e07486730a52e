"""Zstandard: the default codec. Parameter: `level`, 1 (fastest) to 19; default 3."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import zstandard

from tvfs.plugin_api.buffer import Buffer
from tvfs.plugin_api.compression import CodecFailed
from tvplugins.parameters import read_numbers

DEFAULT_LEVEL = 3
MAX_LEVEL = 19
"""Higher ones need hundreds of MiB for each thread."""


class Zstd:
    """One frame a chunk, with its content size and without a checksum: chunks are verified by their hash."""

    def __init__(self, level: int) -> None:
        self._level = level
        self._threads = _PerThread()

    @property
    def name(self) -> str:
        """The entry-point name."""
        return "zstd"

    @property
    def codec_id(self) -> int:
        """1."""
        return 1

    def compress(self, chunk: Buffer, /) -> bytes:
        """Return one frame."""
        return self._compressor().compress(chunk)

    def compress_many(self, chunks: Sequence[Buffer], /) -> list[bytes]:
        """Return one frame a chunk, all made without the interpreter lock."""
        if not any(chunks):  # the library refuses to compress nothing at all
            return [self.compress(chunk) for chunk in chunks]
        # threads=1 is this thread; the caller decides how many there are.
        frames = self._compressor().multi_compress_to_buffer(list(chunks), threads=1)
        return [frames[number].tobytes() for number in range(len(frames))]

    def _compressor(self) -> zstandard.ZstdCompressor:
        compressor = self._threads.compressor
        if compressor is None:
            compressor = zstandard.ZstdCompressor(level=self._level, write_content_size=True, write_checksum=False)
            self._threads.compressor = compressor
        return compressor

    def decompress(self, payload: Buffer, raw_bytes: int, /) -> bytes:
        """Return the chunk; raise `CodecFailed` for anything but exactly one frame of exactly `raw_bytes` bytes."""
        decompressor = self._threads.decompressor
        if decompressor is None:
            decompressor = self._threads.decompressor = zstandard.ZstdDecompressor()
        try:
            # The library allocates what the frame announces, whatever limit it is given: so look first.
            announced = zstandard.frame_content_size(payload)
            if announced != raw_bytes:
                raise CodecFailed(f"the zstd frame announces {announced} bytes instead of {raw_bytes}")
            chunk = decompressor.decompress(payload, max_output_size=raw_bytes, allow_extra_data=False)
        except zstandard.ZstdError as exc:
            raise CodecFailed(f"the payload is not a zstd frame: {exc}") from exc
        if len(chunk) != raw_bytes:
            raise CodecFailed(f"the zstd frame held {len(chunk)} bytes instead of {raw_bytes}")
        return chunk


class _PerThread(threading.local):
    """The library's objects must not be used by two threads at once."""

    compressor: zstandard.ZstdCompressor | None = None
    decompressor: zstandard.ZstdDecompressor | None = None


def make(parameters: Mapping[str, int | str], /) -> Zstd:
    """Return the codec; raise `ValueError` for unknown parameters and levels out of range."""
    level = read_numbers("zstd", parameters, {"level": DEFAULT_LEVEL})["level"]
    if not 1 <= level <= MAX_LEVEL:
        raise ValueError(f"The level of zstd must be from 1 to {MAX_LEVEL}, not {level}.")
    return Zstd(level)
