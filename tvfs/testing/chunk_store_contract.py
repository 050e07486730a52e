"""What every store of chunks promises.  Subclass it and say how one is made."""

from __future__ import annotations

from abc import ABC, abstractmethod

import pytest
import trio

from tvfs.chunks.store import ChunkMissing, ChunkStore
from tvfs.digest import HASH_BYTES, ChunkId

ABSENT = ChunkId(b"\x07" * HASH_BYTES)
"""An id that no test puts."""


def sample(number: int, length: int = 2000) -> bytes:
    """Return a chunk that compresses a little and differs for each number."""
    return (b"%d|" % number + number.to_bytes(8, "big") * (length // 8 + 1))[:length]


class ChunkStoreContract(ABC):
    """The promises of `ChunkStore`."""

    @abstractmethod
    def make_store(self) -> ChunkStore:
        """Return a new, empty store."""

    @abstractmethod
    def after_power_loss(self, store: ChunkStore) -> ChunkStore:
        """Return the store that the next start finds when the machine stops now, having kept only what must last."""

    async def test_a_chunk_comes_back_exactly(self) -> None:
        """Of any length, however well it compresses, from any kind of buffer."""
        store = self.make_store()
        for chunk in (b"", b"\0", b"x" * 500_000, bytes(range(256)) * 9, sample(1), memoryview(bytearray(b"view"))):
            chunk_id = await store.put(chunk)
            assert len(chunk_id) == HASH_BYTES
            assert await store.get(chunk_id) == chunk
            assert isinstance(await store.get(chunk_id), bytes)

    async def test_what_was_put_is_seen_before_and_after_a_flush(self) -> None:
        """By every call."""
        store = self.make_store()
        chunk_id = await store.put(sample(1))
        for _ in range(2):
            assert store.has(chunk_id)
            assert await store.get(chunk_id) == sample(1)
            assert store.get_nowait(chunk_id) in (None, sample(1))
            assert store.get_kept(chunk_id) in (None, sample(1))
            assert list(store.scan()) == [chunk_id]
            await store.flush()

    async def test_an_absent_chunk_is_missing(self) -> None:
        """And the error says which."""
        store = self.make_store()
        present = await store.put(b"present")
        assert not store.has(ABSENT)
        for call in (lambda: store.get(ABSENT), lambda: store.get_many([present, ABSENT])):
            with pytest.raises(ChunkMissing) as raised:
                await call()
            assert raised.value.chunk_id == ABSENT
        with pytest.raises(ChunkMissing):
            store.get_nowait(ABSENT)
        assert store.get_kept(ABSENT) is None

    async def test_many_come_in_the_order_asked_for(self) -> None:
        """Also when some are asked for twice, and when some are flushed and some not."""
        store = self.make_store()
        ids = [await store.put(sample(number)) for number in range(30)]
        await store.flush()
        ids += [await store.put(sample(number)) for number in range(30, 40)]
        order = [*reversed(range(40)), 3, 3, 35]
        assert await store.get_many([ids[number] for number in order]) == [sample(number) for number in order]
        assert await store.get_many([]) == []

    async def test_the_same_bytes_are_one_chunk(self) -> None:
        """Put one after another or at the same time."""
        store = self.make_store()
        ids: list[ChunkId] = []

        async def put() -> None:
            ids.append(await store.put(sample(5, 100_000)))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(put)
        await store.flush()
        ids.append(await store.put(sample(5, 100_000)))
        assert set(ids) == set(store.scan())
        assert len(set(ids)) == 1
        assert await store.get(ids[0]) == sample(5, 100_000)

    async def test_a_deleted_chunk_is_gone(self) -> None:
        """Before and after it was flushed; deleting what is not there is nothing."""
        store = self.make_store()
        for flushed in (False, True):
            chunk_id = await store.put(sample(int(flushed)))
            kept = await store.put(b"kept")
            if flushed:
                await store.flush()
                assert await store.get(chunk_id) == sample(1)
            await store.delete(chunk_id)
            await store.delete(ABSENT)
            assert not store.has(chunk_id)
            assert list(store.scan()) == [kept]
            with pytest.raises(ChunkMissing):
                await store.get(chunk_id)
            with pytest.raises(ChunkMissing):
                store.get_nowait(chunk_id)
            assert store.get_kept(chunk_id) is None

    async def test_a_deleted_chunk_can_be_put_again(self) -> None:
        """And lasts then like any other."""
        store = self.make_store()
        chunk_id = await store.put(sample(1))
        await store.flush()
        await store.delete(chunk_id)
        assert await store.put(sample(1)) == chunk_id
        await store.flush()
        assert await store.get(chunk_id) == sample(1)
        assert await self.after_power_loss(store).get(chunk_id) == sample(1)

    async def test_what_was_flushed_survives_a_power_loss(self) -> None:
        """What was not may be gone; what is there reads right."""
        store = self.make_store()
        flushed = [await store.put(sample(number)) for number in range(20)]
        await store.flush()
        unflushed = [await store.put(sample(number)) for number in range(20, 40)]
        survivor = self.after_power_loss(store)
        assert await survivor.get_many(flushed) == [sample(number) for number in range(20)]
        for number, chunk_id in enumerate(unflushed, start=20):
            if survivor.has(chunk_id):
                assert await survivor.get(chunk_id) == sample(number)
        assert await survivor.put(sample(25)) == unflushed[5]
        assert await survivor.get(unflushed[5]) == sample(25)

    async def test_flushes_and_puts_at_the_same_time_lose_nothing(self) -> None:
        """Each put that came before a flush began is covered by it."""
        store = self.make_store()
        ids: dict[int, ChunkId] = {}

        async def put_and_flush(first: int) -> None:
            for number in range(first, first + 10):
                ids[number] = await store.put(sample(number))
                if number % 3 == 0:
                    await store.flush()
            await store.flush()

        async with trio.open_nursery() as nursery:
            for first in range(0, 50, 10):
                nursery.start_soon(put_and_flush, first)
        survivor = self.after_power_loss(store)
        assert set(survivor.scan()) == set(ids.values())
        assert await survivor.get_many([ids[number] for number in range(50)]) == [sample(n) for n in range(50)]
