from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from tvplugins.hash.sha256 import make

from tvfs.catalog.catalog import Batch, Family
from tvfs.catalog.memory import MemoryCatalog
from tvfs.chunks.chunk_row import ChunkRow, ChunkState, encode_chunk_row
from tvfs.chunks.memory import MemoryChunkStore
from tvfs.chunks.store import ChunkMissing
from tvfs.content.manifest import ManifestInvalid, build_manifest
from tvfs.content.reader import INLINE_EXTENTS, PIECE_BYTES, PIECES_AHEAD, ContentMissing, ContentReader, ReadHint
from tvfs.content.reference import EMPTY, Content, ContentKind
from tvfs.digest import HOLE, ChunkId, Digest
from tvfs.packs.location import Location

HASH = make({})


class CountingStore(MemoryChunkStore):
    """Counts calls; has nothing at once unless told so."""

    def __init__(self, chunks: Sequence[bytes], *, at_once: bool) -> None:
        super().__init__(HASH, chunks)
        self.asked: list[list[ChunkId]] = []
        self.at_once = at_once

    async def get_many(self, chunk_ids: Sequence[ChunkId], /) -> list[bytes]:
        self.asked.append(list(chunk_ids))
        return await super().get_many(chunk_ids)

    def get_nowait(self, chunk_id: ChunkId, /) -> bytes | None:
        return super().get_nowait(chunk_id) if self.at_once else None

    def get_kept(self, chunk_id: ChunkId, /) -> bytes | None:
        """Return the chunk if it has been asked for before."""
        return super().get_kept(chunk_id) if any(chunk_id in ask for ask in self.asked) else None


class CountingCatalog(MemoryCatalog):
    """Counts reads."""

    reads = 0

    def get(self, family: Family, key: bytes) -> bytes | None:
        self.reads += 1
        return super().get(family, key)


class Shelf:
    """One content made of parts, each a chunk, or a hole if it is a number."""

    def __init__(self, parts: Sequence[bytes | int], *, at_once: bool = False) -> None:
        self.whole = b"".join(bytes(part) if isinstance(part, int) else part for part in parts)
        self.content = Content(ContentKind.MANIFEST, HASH.digest(self.whole), len(self.whole))
        chunks = [part for part in parts if isinstance(part, bytes)]
        self.store = CountingStore(chunks, at_once=at_once)
        self.catalog = CountingCatalog()
        items = [(part, HOLE) if isinstance(part, int) else (len(part), HASH.digest(part)) for part in parts]
        built = build_manifest(items, HASH.digest)
        batch = Batch()
        batch.put(Family.BLOB, b"\x01" + self.content.hash, built.root)
        for key, page in built.pages:
            batch.put(Family.PAGE, key, page)
        for chunk in chunks:
            row = ChunkRow(Location(1, 40, len(chunk), len(chunk), 0))
            batch.put(Family.CHUNK, HASH.digest(chunk), encode_chunk_row(row))
        self.catalog.write(batch)
        self.reader = ContentReader(self.catalog, self.store, HASH)


def noise(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


parts = st.lists(st.one_of(st.builds(noise, st.integers(1, 60), st.integers(0, 3)), st.integers(1, 60)), max_size=8)
ranges = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), max_size=5)


@settings(max_examples=60)
@given(parts, ranges, st.booleans())
def test_any_ranges_read_through_one_hint_are_right(
    parts: list[bytes | int], ranges: list[tuple[int, int]], at_once: bool
) -> None:
    shelf = Shelf(parts, at_once=at_once)

    async def check() -> None:
        hint = ReadHint()
        for offset, length in ranges:
            wanted = shelf.whole[offset : offset + length]
            now = shelf.reader.read_nowait(shelf.content, offset, length, hint)
            assert now == wanted or (now is None and not (at_once and len(parts) <= INLINE_EXTENTS))
            assert await shelf.reader.read(shelf.content, offset, length, hint) == wanted
            assert await shelf.reader.read(shelf.content, offset, length) == wanted

    trio.run(check)


async def test_a_range_of_several_chunks_is_fetched_in_one_step() -> None:
    shelf = Shelf([noise(100, n) for n in range(10)])
    assert await shelf.reader.read(shelf.content, 250, 300) == shelf.whole[250:550]
    assert len(shelf.store.asked) == 1
    assert len(shelf.store.asked[0]) == 4


async def test_a_chunk_that_occurs_often_is_fetched_once() -> None:
    shelf = Shelf([noise(100, 1)] * 5)
    assert await shelf.reader.read(shelf.content, 0, 500) == shelf.whole
    assert len(shelf.store.asked[0]) == 1


async def test_a_single_chunk_needs_no_row() -> None:
    shelf = Shelf([noise(100, 1)])
    content = Content(ContentKind.CHUNK, HASH.digest(noise(100, 1)), 100)
    assert await shelf.reader.read(content, 0, 1000) == noise(100, 1)
    assert shelf.catalog.reads == 0
    assert await shelf.reader.read(EMPTY, 0, 10) == b""


async def test_holes_are_zeros_without_a_chunk() -> None:
    shelf = Shelf([1 << 20, b"x"])
    assert await shelf.reader.read(shelf.content, 0, 100) == bytes(100)
    assert shelf.reader.read_nowait(shelf.content, 5, 100) == bytes(100)
    assert not shelf.store.asked


async def test_a_sequential_reader_looks_into_the_catalog_once_a_page() -> None:
    shelf = Shelf([noise(20, n) for n in range(3000)])
    hint = ReadHint()
    got = b""
    while part := await shelf.reader.read(shelf.content, len(got), 7, hint):
        got += part
    assert got == shelf.whole
    assert shelf.catalog.reads < 40


async def test_more_than_a_few_chunks_are_never_decoded_at_once() -> None:
    shelf = Shelf([noise(100, n) for n in range(INLINE_EXTENTS + 1)], at_once=True)
    assert shelf.reader.read_nowait(shelf.content, 0, 100 * INLINE_EXTENTS) == shelf.whole[: 100 * INLINE_EXTENTS]
    assert shelf.reader.read_nowait(shelf.content, 0, 100 * INLINE_EXTENTS + 1) is None


async def test_what_was_fetched_before_is_answered_at_once_however_much_it_is() -> None:
    shelf = Shelf([noise(100_000, n) for n in range(5)])
    assert shelf.reader.read_nowait(shelf.content, 1, 450_000) is None
    await shelf.reader.read(shelf.content, 0, 400_000)
    assert shelf.reader.read_nowait(shelf.content, 1, 399_000) == shelf.whole[1:399_001]
    assert shelf.reader.read_nowait(shelf.content, 1, 450_000) is None


QUARTER = PIECE_BYTES // 4


async def test_a_steady_reader_has_ever_more_fetched_ahead_and_each_piece_once() -> None:
    shelf = Shelf([noise(QUARTER, n) for n in range(48)])
    async with trio.open_nursery() as nursery:
        await nursery.start(shelf.reader.fetch_ahead)
        hint = ReadHint()
        for offset in range(0, 32 * QUARTER, 4 * QUARTER):
            await shelf.reader.read(shelf.content, offset, 4 * QUARTER, hint)
            await trio.testing.wait_all_tasks_blocked()
        asked_for = [chunk for ask in shelf.store.asked for chunk in ask]
        own = {HASH.digest(noise(QUARTER, n)) for n in range(32)}
        ahead = {HASH.digest(noise(QUARTER, n)) for n in range(32, 32 + 4 * PIECES_AHEAD)}
        assert set(asked_for) == own | ahead
        first = HASH.digest(noise(QUARTER, 0))
        assert asked_for.count(first) == 1
        assert all(asked_for.count(chunk) == 1 for chunk in ahead)
        nursery.cancel_scope.cancel()


async def test_a_reader_that_jumps_has_nothing_fetched_ahead() -> None:
    shelf = Shelf([noise(QUARTER, n) for n in range(48)])
    async with trio.open_nursery() as nursery:
        await nursery.start(shelf.reader.fetch_ahead)
        hint = ReadHint()
        for number in (20, 5, 40, 11):
            await shelf.reader.read(shelf.content, number * QUARTER, QUARTER, hint)
            await trio.testing.wait_all_tasks_blocked()
        assert len(shelf.store.asked) == 4
        nursery.cancel_scope.cancel()


async def test_a_prefetch_that_fails_disturbs_nobody() -> None:
    shelf = Shelf([noise(QUARTER, n) for n in range(40)])
    await shelf.store.delete(ChunkId(HASH.digest(noise(QUARTER, 10))))
    async with trio.open_nursery() as nursery:
        await nursery.start(shelf.reader.fetch_ahead)
        hint = ReadHint()
        for offset in range(0, 10 * QUARTER, QUARTER):
            await shelf.reader.read(shelf.content, offset, QUARTER, hint)
            await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ChunkMissing):
            await shelf.reader.read(shelf.content, 10 * QUARTER, QUARTER, hint)
        nursery.cancel_scope.cancel()


def test_contents_are_found_by_digest() -> None:
    shelf = Shelf([noise(50, 1), noise(60, 2)])
    reader = shelf.reader
    assert reader.content_of(Digest("sha256", shelf.content.hash, 110)) == shelf.content
    chunk = HASH.digest(noise(50, 1))
    assert reader.content_of(Digest("sha256", chunk, 50)) == Content(ContentKind.CHUNK, chunk, 50)
    assert reader.content_of(Digest("sha256", bytes(32), 0)) == EMPTY
    assert reader.content_of(Digest("blake3", hashlib.sha256(b"?").digest(), 0)) == EMPTY
    for absent in (
        Digest("sha256", bytes(32), 5),
        Digest("sha256", chunk, 51),
        Digest("sha256", shelf.content.hash, 111),
        Digest("blake3", chunk, 50),
    ):
        assert reader.content_of(absent) is None
    for content in (shelf.content, EMPTY, Content(ContentKind.CHUNK, chunk, 50)):
        assert reader.content_of(reader.digest_of(content)) == content


@pytest.mark.parametrize("state", [ChunkState.DEAD, ChunkState.QUARANTINED])
def test_a_chunk_that_is_dead_or_bad_is_no_content(state: ChunkState) -> None:
    shelf = Shelf([noise(50, 1), noise(60, 2)])
    chunk = HASH.digest(noise(50, 1))
    batch = Batch()
    batch.put(Family.CHUNK, chunk, encode_chunk_row(ChunkRow(Location(1, 40, 50, 50, 0), state)))
    shelf.catalog.write(batch)
    assert shelf.reader.content_of(Digest("sha256", chunk, 50)) is None


async def test_a_content_known_by_a_foreign_digest_is_read_through_it() -> None:
    shelf = Shelf([noise(50, 1), noise(60, 2)])
    foreign = hashlib.blake2s(shelf.whole).digest()
    row = shelf.catalog.get(Family.BLOB, b"\x01" + shelf.content.hash)
    assert row is not None
    batch = Batch()
    batch.put(Family.BLOB, b"\x09" + foreign, row)
    shelf.catalog.write(batch)
    content = shelf.reader.content_of(Digest("blake3", foreign, 110))
    assert content is not None
    assert await shelf.reader.read(content, 0, 110) == shelf.whole


async def test_a_missing_manifest_and_one_of_another_size_are_said() -> None:
    shelf = Shelf([noise(50, 1), noise(60, 2)])
    with pytest.raises(ContentMissing):
        await shelf.reader.read(Content(ContentKind.MANIFEST, b"?" * 32, 10), 0, 10)
    with pytest.raises(ManifestInvalid):
        await shelf.reader.read(Content(ContentKind.MANIFEST, shelf.content.hash, 111), 0, 10)
