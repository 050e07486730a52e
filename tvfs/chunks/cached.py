"""Keeps decoded chunks in memory, the last used ones, around a store that has to fetch and decompress them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

import trio

from tvfs.chunks.store import ChunkStore
from tvfs.digest import ChunkId
from tvfs.plugin_api.buffer import Buffer

DEFAULT_CAPACITY_BYTES = 64 << 20

ENTRY_BYTES = 256
"""What the interpreter needs for an entry beside the chunk's bytes; counted, so that small chunks stay in bounds."""


class CachedChunkStore:
    """Serves hits without waiting.  Chunks never change, so nothing here can be out of date, only gone."""

    def __init__(self, inner: ChunkStore, *, capacity_bytes: int = DEFAULT_CAPACITY_BYTES) -> None:
        self._inner = inner
        self._capacity_bytes = capacity_bytes
        self._used_bytes = 0
        self._chunks: OrderedDict[ChunkId, bytes] = OrderedDict()
        self._deletions = 0

    @property
    def used_bytes(self) -> int:
        """What the cache holds; never more than its capacity."""
        return self._used_bytes

    async def get(self, chunk_id: ChunkId, /) -> bytes:
        """Return the chunk from memory or from the store; raise as the store does."""
        chunk = self._hit(chunk_id)
        if chunk is not None:
            await trio.lowlevel.checkpoint()
            return chunk
        deletions = self._deletions
        chunk = await self._inner.get(chunk_id)
        self._keep(chunk_id, chunk, deletions)
        return chunk

    async def get_many(self, chunk_ids: Sequence[ChunkId], /) -> list[bytes]:
        """Return the chunks in the order asked for, the missing ones fetched together."""
        chunks: dict[ChunkId, bytes] = {}
        absent: list[ChunkId] = []
        for chunk_id in dict.fromkeys(chunk_ids):
            chunk = self._hit(chunk_id)
            if chunk is None:
                absent.append(chunk_id)
            else:
                chunks[chunk_id] = chunk
        if absent:
            deletions = self._deletions
            for chunk_id, chunk in zip(absent, await self._inner.get_many(absent), strict=True):
                self._keep(chunk_id, chunk, deletions)
                chunks[chunk_id] = chunk
        else:
            await trio.lowlevel.checkpoint()
        return [chunks[chunk_id] for chunk_id in chunk_ids]

    def get_nowait(self, chunk_id: ChunkId, /) -> bytes | None:
        """Return the chunk from memory, or what the store gives without waiting."""
        chunk = self._hit(chunk_id)
        if chunk is None:
            chunk = self._inner.get_nowait(chunk_id)
            if chunk is not None:
                self._keep(chunk_id, chunk, self._deletions)
        return chunk

    def get_kept(self, chunk_id: ChunkId, /) -> bytes | None:
        """Return the chunk from memory."""
        return self._hit(chunk_id)

    async def put(self, raw: Buffer, /) -> ChunkId:
        """Keep a chunk in the store; not in memory, which is for what is read."""
        return await self._inner.put(raw)

    def has(self, chunk_id: ChunkId, /) -> bool:
        """Say whether the store has the chunk."""
        return self._inner.has(chunk_id)

    async def delete(self, chunk_id: ChunkId, /) -> None:
        """Let go of a chunk here and in the store."""
        self._deletions += 1
        await self._inner.delete(chunk_id)
        # Again, for what was asked for meanwhile.
        self._deletions += 1
        self._forget(chunk_id)

    def scan(self) -> Iterator[ChunkId]:
        """Yield the ids of the store's chunks."""
        return self._inner.scan()

    async def flush(self) -> None:
        """Return when the store has flushed."""
        await self._inner.flush()

    def _hit(self, chunk_id: ChunkId) -> bytes | None:
        chunk = self._chunks.get(chunk_id)
        if chunk is not None:
            self._chunks.move_to_end(chunk_id)
        return chunk

    def _keep(self, chunk_id: ChunkId, chunk: bytes, deletions: int) -> None:
        size = len(chunk) + ENTRY_BYTES
        # A chunk that was deleted while it was being read must not stay readable; the store is asked only if one was.
        if size > self._capacity_bytes or chunk_id in self._chunks:
            return
        if deletions != self._deletions and not self._inner.has(chunk_id):
            return
        self._chunks[chunk_id] = chunk
        self._used_bytes += size
        while self._used_bytes > self._capacity_bytes:
            self._forget(next(iter(self._chunks)))

    def _forget(self, chunk_id: ChunkId) -> None:
        chunk = self._chunks.pop(chunk_id, None)
        if chunk is not None:
            self._used_bytes -= len(chunk) + ENTRY_BYTES
