from __future__ import annotations

import pytest
import trio
import trio.testing
from tvplugins.hash import blake3

from tvfs.chunks.coalescing import CoalescingChunkStore
from tvfs.chunks.memory import MemoryChunkStore
from tvfs.chunks.store import ChunkMissing
from tvfs.digest import ChunkId
from tvfs.testing.faulty import FaultyChunkStore

HASH = blake3.make({})
CHUNKS = [bytes([number]) * 100 for number in range(5)]
IDS = list(MemoryChunkStore(HASH, CHUNKS).scan())


@pytest.fixture
def inner() -> FaultyChunkStore:
    inner = FaultyChunkStore(MemoryChunkStore(HASH, CHUNKS))
    inner.gate = trio.Event()
    return inner


class Readers:
    """Tasks that read, and what became of each, in the order of asking."""

    def __init__(self, store: CoalescingChunkStore, nursery: trio.Nursery) -> None:
        self.store = store
        self.nursery = nursery
        self.outcomes: list[object] = []

    async def start(self, *numbers: int) -> trio.CancelScope:
        place = len(self.outcomes)
        self.outcomes.append(None)
        scope = trio.CancelScope()

        async def read() -> None:
            with scope:
                try:
                    self.outcomes[place] = await self.store.get_many([IDS[number] for number in numbers])
                except (OSError, ChunkMissing) as exc:
                    self.outcomes[place] = type(exc)

        self.nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        return scope


async def test_readers_at_the_same_time_share_one_read(inner: FaultyChunkStore) -> None:
    async with trio.open_nursery() as nursery:
        readers = Readers(CoalescingChunkStore(inner), nursery)
        for _ in range(5):
            await readers.start(0)
        assert inner.gate is not None
        inner.gate.set()
    assert readers.outcomes == [[CHUNKS[0]]] * 5
    assert inner.reads == [IDS[0]]


async def test_readers_one_after_another_read_each(inner: FaultyChunkStore) -> None:
    inner.gate = None
    store = CoalescingChunkStore(inner)
    await store.get(IDS[0])
    await store.get(IDS[0])
    assert inner.reads == [IDS[0], IDS[0]]


async def test_overlapping_requests_read_each_chunk_once(inner: FaultyChunkStore) -> None:
    async with trio.open_nursery() as nursery:
        readers = Readers(CoalescingChunkStore(inner), nursery)
        await readers.start(0, 1)
        await readers.start(1, 2)
        await readers.start(2, 0, 3)
        assert inner.gate is not None
        inner.gate.set()
    assert readers.outcomes == [
        [CHUNKS[0], CHUNKS[1]],
        [CHUNKS[1], CHUNKS[2]],
        [CHUNKS[2], CHUNKS[0], CHUNKS[3]],
    ]
    assert sorted(inner.reads) == sorted(IDS[:4])


async def test_a_cancelled_leader_fails_nobody(inner: FaultyChunkStore) -> None:
    async with trio.open_nursery() as nursery:
        readers = Readers(CoalescingChunkStore(inner), nursery)
        leader = await readers.start(0)
        await readers.start(0)
        await readers.start(0)
        leader.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert inner.gate is not None
        inner.gate.set()
    assert readers.outcomes == [None, [CHUNKS[0]], [CHUNKS[0]]]
    assert len(inner.reads) == 2


async def test_a_failing_leader_fails_nobody(inner: FaultyChunkStore) -> None:
    async with trio.open_nursery() as nursery:
        store = CoalescingChunkStore(inner)
        readers = Readers(store, nursery)
        absent = ChunkId(bytes(32))

        async def lead() -> None:
            with pytest.raises(ChunkMissing):
                await store.get_many([IDS[0], absent])

        nursery.start_soon(lead)
        await trio.testing.wait_all_tasks_blocked()
        await readers.start(0)
        assert inner.gate is not None
        inner.gate.set()
    assert readers.outcomes == [[CHUNKS[0]]]


async def test_an_error_reaches_every_reader_when_it_stays(inner: FaultyChunkStore) -> None:
    async with trio.open_nursery() as nursery:
        readers = Readers(CoalescingChunkStore(inner), nursery)
        await readers.start(0)
        await readers.start(0)
        inner.get_error = OSError()
        assert inner.gate is not None
        inner.gate.set()
    assert readers.outcomes == [OSError, OSError]
