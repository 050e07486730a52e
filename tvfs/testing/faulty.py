"""A store that fails when told to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import trio

from tvfs.chunks.store import ChunkStore
from tvfs.digest import ChunkId
from tvfs.plugin_api.buffer import Buffer


class FaultyChunkStore:
    """Passes every call on to a store, unless an error is set for it; counts and can delay the reads.

    The errors are attributes: set one to raise it from then on, None to go on as if nothing had been.
    """

    def __init__(
        self,
        inner: ChunkStore,
        *,
        get: Exception | None = None,
        put: Exception | None = None,
        flush: Exception | None = None,
    ) -> None:
        self._inner = inner
        self.get_error = get
        self.put_error = put
        self.flush_error = flush
        self.gate: trio.Event | None = None
        """Reads wait for it, if there is one."""
        self.reads: list[ChunkId] = []
        """Every chunk that was read with `get` or `get_many`, in order."""

    async def get(self, chunk_id: ChunkId, /) -> bytes:
        """Return the chunk, or raise."""
        return (await self.get_many([chunk_id]))[0]

    async def get_many(self, chunk_ids: Sequence[ChunkId], /) -> list[bytes]:
        """Return the chunks, or raise."""
        self.reads += chunk_ids
        if self.gate is not None:
            await self.gate.wait()
        if self.get_error is not None:
            await trio.lowlevel.checkpoint()
            raise self.get_error
        return await self._inner.get_many(chunk_ids)

    def get_nowait(self, chunk_id: ChunkId, /) -> bytes | None:
        """Return the chunk, or None while reads fail or wait."""
        if self.get_error is not None or self.gate is not None:
            return None
        return self._inner.get_nowait(chunk_id)

    def get_kept(self, chunk_id: ChunkId, /) -> bytes | None:
        """Return what the store has in memory."""
        return self._inner.get_kept(chunk_id)

    async def put(self, raw: Buffer, /) -> ChunkId:
        """Keep a chunk, or raise."""
        if self.put_error is not None:
            await trio.lowlevel.checkpoint()
            raise self.put_error
        return await self._inner.put(raw)

    def has(self, chunk_id: ChunkId, /) -> bool:
        """Say whether the chunk is there."""
        return self._inner.has(chunk_id)

    async def delete(self, chunk_id: ChunkId, /) -> None:
        """Let go of a chunk."""
        await self._inner.delete(chunk_id)

    def scan(self) -> Iterator[ChunkId]:
        """Yield the ids of the chunks."""
        return self._inner.scan()

    async def flush(self) -> None:
        """Flush, or raise."""
        if self.flush_error is not None:
            await trio.lowlevel.checkpoint()
            raise self.flush_error
        await self._inner.flush()
