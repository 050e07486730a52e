"""Lets concurrent loads of one chunk share one read of the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import trio

from tvfs.chunks.store import ChunkStore
from tvfs.digest import ChunkId
from tvfs.plugin_api.buffer import Buffer


@dataclass(slots=True, eq=False)
class _Load:
    """One read under way. `chunks` stays empty if it failed or was cancelled: then each who waits tries again."""

    ended: trio.Event = field(default_factory=trio.Event)
    chunks: dict[ChunkId, bytes] = field(default_factory=dict)


class CoalescingChunkStore:
    """Whoever asks first loads, the others wait; the load is registered before the first `await`."""

    def __init__(self, inner: ChunkStore) -> None:
        self._inner = inner
        self._loading: dict[ChunkId, _Load] = {}

    async def get(self, chunk_id: ChunkId, /) -> bytes:
        """Return the chunk; raise as the store does."""
        return (await self.get_many([chunk_id]))[0]

    async def get_many(self, chunk_ids: Sequence[ChunkId], /) -> list[bytes]:
        """Return the chunks in the order asked for; those that nobody loads yet are fetched together."""
        chunks: dict[ChunkId, bytes] = {}
        unloaded = list(dict.fromkeys(chunk_ids))
        while unloaded:
            ours = [chunk_id for chunk_id in unloaded if chunk_id not in self._loading]
            others = {chunk_id: self._loading[chunk_id] for chunk_id in unloaded if chunk_id in self._loading}
            if ours:
                # Our own before we wait for others: two callers that need each other's chunks cannot block each other.
                chunks.update(await self._lead(ours))
            for chunk_id, load in others.items():
                await load.ended.wait()
                if chunk_id in load.chunks:
                    chunks[chunk_id] = load.chunks[chunk_id]
            unloaded = [chunk_id for chunk_id in others if chunk_id not in chunks]
        return [chunks[chunk_id] for chunk_id in chunk_ids]

    async def _lead(self, chunk_ids: list[ChunkId]) -> dict[ChunkId, bytes]:
        # One event for all: a large read has dozens of chunks.
        load = _Load()
        self._loading.update(dict.fromkeys(chunk_ids, load))
        try:
            load.chunks = dict(zip(chunk_ids, await self._inner.get_many(chunk_ids), strict=True))
            return load.chunks
        finally:
            for chunk_id in chunk_ids:
                del self._loading[chunk_id]
            load.ended.set()

    def get_nowait(self, chunk_id: ChunkId, /) -> bytes | None:
        """Return what the store gives without waiting."""
        return self._inner.get_nowait(chunk_id)

    def get_kept(self, chunk_id: ChunkId, /) -> bytes | None:
        """Return what the store has in memory."""
        return self._inner.get_kept(chunk_id)

    async def put(self, raw: Buffer, /) -> ChunkId:
        """Keep a chunk in the store."""
        return await self._inner.put(raw)

    def has(self, chunk_id: ChunkId, /) -> bool:
        """Say whether the store has the chunk."""
        return self._inner.has(chunk_id)

    async def delete(self, chunk_id: ChunkId, /) -> None:
        """Let go of a chunk in the store."""
        await self._inner.delete(chunk_id)

    def scan(self) -> Iterator[ChunkId]:
        """Yield the ids of the store's chunks."""
        return self._inner.scan()

    async def flush(self) -> None:
        """Return when the store has flushed."""
        await self._inner.flush()
