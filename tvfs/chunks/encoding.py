"""From a chunk to its payload and back: compression where it pays, and the proof that what comes back is the chunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tvfs.chunks.store import ChunkDamaged
from tvfs.digest import FUNCTION_CODES, ChunkId
from tvfs.errors import TaskVaultError
from tvfs.packs.location import Location
from tvfs.packs.record import MAX_CHUNK_BYTES
from tvfs.plugin_api.buffer import Buffer
from tvfs.plugin_api.compression import FIRST_FOREIGN_ID, BatchCodec, Codec, CodecFailed
from tvfs.plugin_api.hash import HashFunction

RAW_CODEC = 0
"""Number of the payload that is the chunk; read without any plugin."""

LEAST_SAVING = 0.04
"""A payload that saves less of the chunk is not worth decompressing: the chunk is stored raw."""


class CodecUnknown(TaskVaultError):
    """A chunk was compressed by a codec that is not installed; the chunk itself may be perfectly good."""

    def __init__(self, codec_id: int) -> None:
        super().__init__(
            f"No installed compression plugin has the number {codec_id}; install the one that wrote the chunk."
        )
        self.codec_id = codec_id


@dataclass(frozen=True, slots=True)
class ChunkFormat:
    """How one vault names and packs its chunks."""

    hash_function: HashFunction
    codec: Codec
    """For new chunks."""
    codecs: Mapping[int, Codec]
    """For reading: every one that the data needs, by number."""
    check_plugins: Callable[[], None] = lambda: None
    """Called from any thread when content is bad though its record is whole; raises if a plugin is to blame."""

    def may_run_inline(self, codec_id: int = RAW_CODEC) -> bool:
        """Whether the plugins that this needs are built in: others may hang, and are called in threads only."""
        return codec_id < FIRST_FOREIGN_ID and self.hash_function.name in FUNCTION_CODES

    def chunk_id(self, raw: Buffer) -> ChunkId:
        """Return the id of a chunk."""
        return ChunkId(self.hash_function.digest(raw))

    def open(self, chunk_id: ChunkId, location: Location, payload: Buffer) -> bytes:
        """Return the chunk, its hash verified; raise `ChunkDamaged` or `CodecUnknown`."""
        try:
            raw = decode_chunk(payload, location, self.codecs)
        except CodecFailed as exc:
            raise ChunkDamaged(chunk_id, str(exc)) from exc
        if self.hash_function.digest(raw) != chunk_id:
            raise ChunkDamaged(chunk_id, "its bytes do not have its hash")
        return raw


def encode_chunk(raw: Buffer, codec: Codec) -> tuple[int, Buffer]:
    """Return the number of the codec and the payload: `raw` itself under `RAW_CODEC` where compression does not pay."""
    if codec.codec_id == RAW_CODEC:
        return RAW_CODEC, raw
    return _smaller(raw, codec.compress(raw), codec)


def encode_chunks(chunks: Sequence[Buffer], codec: Codec) -> list[tuple[int, Buffer]]:
    """Return what `encode_chunk` returns for each; where the codec can, in one call that other threads run beside."""
    if codec.codec_id == RAW_CODEC or not isinstance(codec, BatchCodec):
        return [encode_chunk(raw, codec) for raw in chunks]
    return [_smaller(raw, payload, codec) for raw, payload in zip(chunks, codec.compress_many(chunks), strict=True)]


def _smaller(raw: Buffer, payload: bytes, codec: Codec) -> tuple[int, Buffer]:
    return (RAW_CODEC, raw) if len(payload) > len(raw) * (1 - LEAST_SAVING) else (codec.codec_id, payload)


def decode_chunk(payload: Buffer, location: Location, codecs: Mapping[int, Codec]) -> bytes:
    """Return the bytes that a payload stands for, unverified; raise `CodecFailed` or `CodecUnknown`."""
    if location.raw_bytes > MAX_CHUNK_BYTES:
        # Codecs allocate what they are told: rows and records come from disks and clients.
        raise CodecFailed(f"the chunk is said to have {location.raw_bytes} bytes, more than any has")
    if location.codec == RAW_CODEC:
        if len(payload) != location.raw_bytes:
            raise CodecFailed(f"the raw payload has {len(payload)} bytes instead of {location.raw_bytes}")
        return bytes(payload)
    codec = codecs.get(location.codec)
    if codec is None:
        raise CodecUnknown(location.codec)
    return codec.decompress(payload, location.raw_bytes)
