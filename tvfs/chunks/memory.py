"""Chunks in memory: the model that tests compare other stores with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import trio

from tvfs.chunks.store import ChunkMissing
from tvfs.digest import ChunkId
from tvfs.plugin_api.buffer import Buffer
from tvfs.plugin_api.hash import HashFunction


class MemoryChunkStore:
    """Keeps every promise of `ChunkStore` except that it ends with the process."""

    def __init__(self, hash_function: HashFunction, chunks: Iterable[bytes] = ()) -> None:
        self._hash_function = hash_function
        self._chunks = {ChunkId(hash_function.digest(chunk)): chunk for chunk in chunks}
        self._durable = dict(self._chunks)

    async def get(self, chunk_id: ChunkId, /) -> bytes:
        """Return the chunk; raise `ChunkMissing`."""
        await trio.lowlevel.checkpoint()
        return self._find(chunk_id)

    async def get_many(self, chunk_ids: Sequence[ChunkId], /) -> list[bytes]:
        """Return the chunks in the order asked for; raise `ChunkMissing` if one is not there."""
        await trio.lowlevel.checkpoint()
        return [self._find(chunk_id) for chunk_id in chunk_ids]

    def get_nowait(self, chunk_id: ChunkId, /) -> bytes | None:
        """Return the chunk; raise `ChunkMissing`."""
        return self._find(chunk_id)

    def get_kept(self, chunk_id: ChunkId, /) -> bytes | None:
        """Return the chunk, if it is there."""
        return self._chunks.get(chunk_id)

    async def put(self, raw: Buffer, /) -> ChunkId:
        """Keep a chunk and return its id."""
        await trio.lowlevel.checkpoint()
        chunk_id = ChunkId(self._hash_function.digest(raw))
        self._chunks.setdefault(chunk_id, bytes(raw))
        return chunk_id

    def has(self, chunk_id: ChunkId, /) -> bool:
        """Say whether the chunk is there."""
        return chunk_id in self._chunks

    async def delete(self, chunk_id: ChunkId, /) -> None:
        """Let go of a chunk, if it is there."""
        await trio.lowlevel.checkpoint()
        self._chunks.pop(chunk_id, None)

    def scan(self) -> Iterator[ChunkId]:
        """Yield the ids of the chunks that are there."""
        return iter(list(self._chunks))

    async def flush(self) -> None:
        """Let everything put before the call survive a power loss."""
        covered = dict(self._chunks)
        await trio.lowlevel.checkpoint()
        self._durable = covered

    def after_power_loss(self) -> MemoryChunkStore:
        """Return the store that the next start would find."""
        return MemoryChunkStore(self._hash_function, self._durable.values())

    def _find(self, chunk_id: ChunkId) -> bytes:
        chunk = self._chunks.get(chunk_id)
        if chunk is None:
            raise ChunkMissing(chunk_id)
        return chunk
