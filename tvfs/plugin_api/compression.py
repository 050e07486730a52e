"""Contract of a compression codec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from tvfs.plugin_api.buffer import Buffer

API_VERSION = 1
"""Of this contract. A plugin may declare the one it was written for as `api_version`, on factory or plugin."""

FIRST_FOREIGN_ID = 128
"""Codec ids below are for built-in codecs."""


class CodecFailed(Exception):
    """A payload is not what this codec wrote; the caller treats the chunk as damaged."""


class Codec(Protocol):
    """Makes chunks smaller and gives them back exactly.

    Threads: called from several threads at once; keep per-thread state in `threading.local`.
    Persistence: `codec_id` is stored in every record.  Whatever was written under an id must be readable for ever; an
    incompatible encoding needs another id and name.  0 is raw, 1-127 are built in, 128-255 are for others.
    """

    @property
    def name(self) -> str:
        """The entry-point name."""
        ...

    @property
    def codec_id(self) -> int:
        """The number stored in records."""
        ...

    def compress(self, chunk: Buffer, /) -> bytes:
        """Return the payload; it may be longer than the chunk, then the caller stores the chunk raw."""
        ...

    def decompress(self, payload: Buffer, raw_bytes: int, /) -> bytes:
        """Return the chunk of exactly `raw_bytes` bytes; raise `CodecFailed`, and never allocate more than that."""
        ...


@runtime_checkable
class BatchCodec(Protocol):
    """What a `Codec` may offer besides: many chunks in one call.

    Worth having where `compress` releases the interpreter lock: a batch of small chunks then does so once instead of
    hundreds of times, each of which may wait for another thread.
    """

    def compress_many(self, chunks: Sequence[Buffer], /) -> list[bytes]:
        """Return what `compress` returns for each chunk."""
        ...


class CodecFactory(Protocol):
    """What the entry point names."""

    def __call__(self, parameters: Mapping[str, int | str], /) -> Codec:
        """Return the codec; raise `ValueError` for parameters it does not know."""
        ...
