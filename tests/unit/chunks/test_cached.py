from __future__ import annotations

import pytest
import trio
from tvplugins.hash import blake3

from tvfs.chunks.cached import ENTRY_BYTES, CachedChunkStore
from tvfs.chunks.memory import MemoryChunkStore
from tvfs.chunks.store import ChunkMissing
from tvfs.digest import ChunkId
from tvfs.testing.faulty import FaultyChunkStore

HASH = blake3.make({})
CHUNKS = [bytes([number]) * 1000 for number in range(10)]
ONE = 1000 + ENTRY_BYTES


def stores(capacity_bytes: int) -> tuple[CachedChunkStore, FaultyChunkStore]:
    inner = FaultyChunkStore(MemoryChunkStore(HASH, CHUNKS))
    return CachedChunkStore(inner, capacity_bytes=capacity_bytes), inner


IDS = list(MemoryChunkStore(HASH, CHUNKS).scan())


async def test_a_second_read_is_served_without_the_store() -> None:
    store, inner = stores(10 * ONE)
    assert await store.get(IDS[0]) == CHUNKS[0]
    inner.get_error = OSError()
    assert await store.get(IDS[0]) == CHUNKS[0]
    assert store.get_nowait(IDS[0]) == CHUNKS[0]
    assert store.get_nowait(IDS[1]) is None
    assert inner.reads == [IDS[0]]


async def test_the_last_used_stay_within_the_bound() -> None:
    store, inner = stores(3 * ONE)
    for number in (0, 1, 2, 0, 3):
        await store.get(IDS[number])
        assert store.used_bytes <= 3 * ONE
    inner.get_error = OSError()
    assert [store.get_nowait(chunk_id) is not None for chunk_id in IDS[:4]] == [True, False, True, True]


async def test_a_chunk_larger_than_the_cache_is_passed_through() -> None:
    store, inner = stores(ONE - 1)
    assert await store.get(IDS[0]) == CHUNKS[0]
    assert await store.get(IDS[0]) == CHUNKS[0]
    assert store.used_bytes == 0
    assert len(inner.reads) == 2


async def test_many_fetch_only_what_is_not_there() -> None:
    store, inner = stores(10 * ONE)
    await store.get(IDS[1])
    assert await store.get_many([IDS[2], IDS[1], IDS[2], IDS[3]]) == [CHUNKS[number] for number in (2, 1, 2, 3)]
    assert inner.reads == [IDS[1], IDS[2], IDS[3]]


class AnswersLate(FaultyChunkStore):
    """Has read the chunk when it is told to wait, and answers afterwards."""

    async def get(self, chunk_id: ChunkId, /) -> bytes:
        chunk = await super().get(chunk_id)
        self.answering.set()
        await self.answer.wait()
        return chunk

    answering: trio.Event
    answer: trio.Event


async def test_a_chunk_deleted_while_it_is_read_does_not_stay_readable() -> None:
    inner = AnswersLate(MemoryChunkStore(HASH, CHUNKS))
    inner.answering, inner.answer = trio.Event(), trio.Event()
    store = CachedChunkStore(inner)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.get, IDS[0])
        await inner.answering.wait()
        await store.delete(IDS[0])
        inner.answer.set()
    with pytest.raises(ChunkMissing):
        await store.get(IDS[0])
    assert store.used_bytes == 0


class DeletesLate(AnswersLate):
    """Also tells when it is about to delete, and waits."""

    async def delete(self, chunk_id: ChunkId, /) -> None:
        self.deleting.set()
        await self.answering.wait()
        await super().delete(chunk_id)

    deleting: trio.Event


async def test_a_chunk_asked_for_while_it_is_being_deleted_does_not_stay_readable() -> None:
    inner = DeletesLate(MemoryChunkStore(HASH, CHUNKS))
    inner.answering, inner.answer, inner.deleting = trio.Event(), trio.Event(), trio.Event()
    store = CachedChunkStore(inner)
    async with trio.open_nursery() as reading:
        async with trio.open_nursery() as deleting:
            deleting.start_soon(store.delete, IDS[0])
            await inner.deleting.wait()
            reading.start_soon(store.get, IDS[0])
        inner.answer.set()
    with pytest.raises(ChunkMissing):
        await store.get(IDS[0])
    assert store.used_bytes == 0
