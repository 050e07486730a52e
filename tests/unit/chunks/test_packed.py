from __future__ import annotations

import errno
import os
import random
from dataclasses import replace
from functools import partial

import pytest
import trio
from tvplugins.compression import none

from tvfs import failpoints
from tvfs.catalog.catalog import Batch, Family
from tvfs.chunks.chunk_row import ChunkRow, ChunkState, encode_chunk_row
from tvfs.chunks.encoding import CodecUnknown
from tvfs.chunks.packed import PackedChunkStore, PackedStoreSettings
from tvfs.chunks.store import ChunkDamaged, ChunkMissing
from tvfs.digest import ChunkId
from tvfs.packs.pack_reader import record_bytes
from tvfs.packs.pack_writer import DiskFull, PackSyncFailed
from tvfs.packs.record import RECORD_HEADER_BYTES

from .conftest import PackedVault

TEXT = b"some text that compresses " * 100


def noise(number: int, length: int = 3000) -> bytes:
    return random.Random(number).randbytes(length)


async def flushed(store: PackedChunkStore, *chunks: bytes) -> list[ChunkId]:
    ids = [await store.put(chunk) for chunk in chunks]
    await store.flush()
    return ids


@pytest.mark.parametrize("at", [0, 8, 25, RECORD_HEADER_BYTES, RECORD_HEADER_BYTES + 30])
@pytest.mark.parametrize("chunk", [TEXT, noise(1)], ids=["compressed", "raw"])
async def test_a_flipped_bit_is_never_read(vault: PackedVault, at: int, chunk: bytes) -> None:
    store = vault.store()
    [chunk_id, other] = await flushed(store, chunk, noise(2))
    vault.overwrite(chunk_id, at, lambda byte: byte ^ 1)
    assert store.get_nowait(chunk_id) is None
    with pytest.raises(ChunkDamaged):
        await store.get(chunk_id)
    assert [damaged for damaged, _ in vault.damage] == [chunk_id]
    assert await store.get(other) == noise(2)


async def test_a_damaged_chunk_is_quarantined_and_put_afresh(vault: PackedVault) -> None:
    store = vault.store()
    [chunk_id] = await flushed(store, TEXT)
    vault.overwrite(chunk_id, RECORD_HEADER_BYTES + 9, lambda byte: byte + 1)
    for _ in range(2):
        with pytest.raises(ChunkDamaged):
            await store.get_many([chunk_id])
    with pytest.raises(ChunkDamaged, match="quarantine"):
        store.get_nowait(chunk_id)
    assert not store.has(chunk_id)
    assert list(store.scan()) == []
    assert len(vault.damage) == 1
    assert vault.index.pack(1).live_bytes == 0
    assert await flushed(store, TEXT) == [chunk_id]
    assert await store.get(chunk_id) == TEXT
    row = vault.index.find(chunk_id)
    assert row is not None
    assert vault.index.pack(1).live_bytes == record_bytes(row.location)


async def test_one_damaged_chunk_does_not_condemn_its_neighbours(vault: PackedVault) -> None:
    store = vault.store()
    ids = await flushed(store, *(noise(number) for number in range(9)))
    vault.overwrite(ids[4], 100, lambda byte: byte ^ 255)
    with pytest.raises(ChunkDamaged) as raised:
        await store.get_many(ids)
    assert raised.value.chunk_id == ids[4]
    assert [store.has(chunk_id) for chunk_id in ids] == [number != 4 for number in range(9)]
    del ids[4]
    assert len(await store.get_many(ids)) == 8


async def test_a_bad_sector_does_not_condemn_what_is_read_with_it(
    vault: PackedVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = vault.store()
    ids = await flushed(store, *(noise(number) for number in range(9)))
    row = vault.index.find(ids[4])
    assert row is not None
    bad = row.location.offset + 2000
    pread = os.pread

    def pread_with_a_bad_sector(fd: int, length: int, offset: int) -> bytes:
        if offset <= bad < offset + length:
            raise OSError(errno.EIO, "Input/output error")
        return pread(fd, length, offset)

    monkeypatch.setattr(os, "pread", pread_with_a_bad_sector)
    with pytest.raises(ChunkDamaged, match="the disk cannot read it") as raised:
        await store.get_many(ids)
    assert raised.value.chunk_id == ids[4]
    assert [damaged for damaged, _ in vault.damage] == [ids[4]]
    del ids[4]
    assert len(await store.get_many(ids)) == 8


async def test_a_truncated_pack_is_damage_for_what_was_cut_off(vault: PackedVault) -> None:
    store = vault.store()
    ids = await flushed(store, *(noise(number) for number in range(3)))
    vault.packs.truncate(1, vault.packs.size(1) - 1)
    assert await store.get_many(ids[:2]) == [noise(0), noise(1)]
    with pytest.raises(ChunkDamaged, match="ends before"):
        await store.get(ids[2])
    assert await store.get_many(ids[:2]) == [noise(0), noise(1)]


async def test_a_pack_that_is_gone_is_damage(vault: PackedVault) -> None:
    store = vault.store()
    ids = await flushed(store, noise(1), noise(2))
    vault.packs.remove(1)
    assert store.get_nowait(ids[0]) is None
    for chunk_id in ids:
        with pytest.raises(ChunkDamaged, match="is not there"):
            await store.get(chunk_id)


async def test_a_reader_whose_location_has_gone_asks_again(vault: PackedVault) -> None:
    store = vault.store()
    [chunk_id] = await flushed(store, noise(1))
    row = vault.index.find(chunk_id)
    assert row is not None
    truth = encode_chunk_row(row)
    _write_row(vault, chunk_id, encode_chunk_row(ChunkRow(replace(row.location, pack=99))))
    find_many = vault.catalog.get_many
    looks: list[Family] = []

    def move_after_first_look(family: Family, keys: list[bytes]) -> list[bytes | None]:
        looks.append(family)
        answer = find_many(family, keys)
        _write_row(vault, chunk_id, truth)
        return answer

    vault.catalog.get_many = move_after_first_look  # type: ignore[method-assign, assignment]
    assert await store.get(chunk_id) == noise(1)
    assert vault.damage == []
    assert len(looks) == 2


def _write_row(vault: PackedVault, chunk_id: ChunkId, value: bytes) -> None:
    batch = Batch()
    batch.put(Family.CHUNK, chunk_id, value)
    vault.catalog.write(batch)


async def test_a_codec_that_is_not_installed_quarantines_nothing(vault: PackedVault) -> None:
    store = vault.store()
    [chunk_id] = await flushed(store, TEXT)
    vault.format = replace(vault.format, codecs={}, codec=none.make({}))
    poorer = vault.store()
    with pytest.raises(CodecUnknown):
        await poorer.get(chunk_id)
    assert vault.damage == []
    assert await store.get(chunk_id) == TEXT


async def test_small_cached_chunks_are_served_without_waiting(vault: PackedVault) -> None:
    store = vault.store(PackedStoreSettings(inline_max_bytes=5000))
    small, large = await flushed(store, noise(1, 5000), noise(2, 5001))
    assert store.get_nowait(small) is None, "the pack is not open yet"
    assert await store.get(small) == noise(1, 5000)
    assert store.get_nowait(small) == noise(1, 5000)
    assert store.get_nowait(large) is None


async def test_a_dead_chunk_comes_back_without_being_written_again(vault: PackedVault) -> None:
    store = vault.store()
    [chunk_id] = await flushed(store, noise(1))
    length, figures = vault.packs.size(1), vault.index.pack(1)
    await store.delete(chunk_id)
    row = vault.index.find(chunk_id)
    assert row is not None
    assert row.state is ChunkState.DEAD
    assert vault.index.pack(1).live_bytes == 0
    assert await flushed(store, noise(1)) == [chunk_id]
    assert vault.packs.size(1) == length
    assert vault.index.pack(1) == figures


async def test_packs_are_rotated_and_keep_their_limit(vault: PackedVault) -> None:
    store = vault.store(PackedStoreSettings(pack_max_bytes=10_000))
    ids = await flushed(store, *(noise(number) for number in range(10)))
    assert vault.packs.numbers() == [1, 2, 3, 4]
    assert all(vault.packs.size(number) <= 10_000 for number in vault.packs.numbers())
    assert vault.packs.allocated_bytes() == sum(path.stat().st_blocks * 512 for path in vault.path.iterdir())
    assert await store.get_many(ids) == [noise(number) for number in range(10)]
    assert [vault.index.pack(number).committed_bytes for number in (1, 2, 3, 4)] == [
        vault.packs.size(number) for number in (1, 2, 3, 4)
    ]


async def test_the_commit_order_is_kept(vault: PackedVault) -> None:
    store = vault.store()
    reached: list[tuple[str, bool]] = []
    chunk_id = await store.put(noise(1))

    def note(point: str) -> None:
        reached.append((point, vault.index.find(chunk_id) is not None))

    for point in failpoints.POINTS[:5]:
        failpoints.arm(point, partial(note, point))
    await store.flush()
    assert reached == [
        ("commit.before_append", False),
        ("commit.after_append", False),
        ("commit.after_pack_sync", False),
        ("commit.after_batch", True),
        ("commit.after_wal_sync", True),
    ]


async def test_a_full_disk_loses_nothing_and_flushing_again_works(vault: PackedVault) -> None:
    store = vault.store()
    chunk_id = await store.put(noise(1))
    failpoints.arm("commit.before_append", failpoints.ACTIONS["enospc"])
    with pytest.raises(DiskFull):
        await store.flush()
    assert vault.index.find(chunk_id) is None
    assert await store.get(chunk_id) == noise(1)
    failpoints.disarm_all()
    await store.flush()
    assert vault.index.find(chunk_id) is not None
    assert await store.get(chunk_id) == noise(1)


async def test_after_a_failed_sync_nothing_unsure_is_committed_and_another_pack_is_used(vault: PackedVault) -> None:
    store = vault.store()
    [safe] = await flushed(store, noise(1))
    unsure = await store.put(noise(2))
    failpoints.arm("commit.after_append", failpoints.ACTIONS["eio"])
    with pytest.raises(PackSyncFailed):
        await store.flush()
    failpoints.disarm_all()
    assert not store.has(unsure)
    assert await store.get(safe) == noise(1)
    await store.flush()
    assert vault.index.find(unsure) is None
    assert await flushed(store, noise(2)) == [unsure]
    row = vault.index.find(unsure)
    assert row is not None
    assert row.location.pack == 2
    assert await store.get_many([safe, unsure]) == [noise(1), noise(2)]


async def test_every_flush_that_covered_a_lost_chunk_fails(vault: PackedVault) -> None:
    store = vault.store()
    await store.put(noise(1))
    failpoints.arm("commit.after_append", failpoints._at_nth(failpoints.ACTIONS["eio"], 1))
    outcomes: list[str] = []

    async def flush() -> None:
        try:
            await store.flush()
            outcomes.append("done")
        except PackSyncFailed:
            outcomes.append("failed")

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(flush)
    assert outcomes == ["failed"] * 4
    assert list(store.scan()) == []


async def test_what_is_deleted_during_a_flush_is_not_committed(vault: PackedVault) -> None:
    store = vault.store()
    kept, deleted = await store.put(noise(1)), await store.put(noise(2))
    failpoints.arm("commit.after_pack_sync", lambda: trio.from_thread.run(store.delete, deleted))
    await store.flush()
    assert list(store.scan()) == [kept]
    assert vault.index.find(deleted) is None


async def test_a_large_flush_is_written_in_slices(vault: PackedVault) -> None:
    store = vault.store()
    batches: list[int] = []
    write = vault.catalog.write

    def note(batch: Batch) -> None:
        batches.append(len(batch))
        write(batch)

    vault.catalog.write = note  # type: ignore[method-assign]
    ids = await flushed(store, *(b"%d" % number for number in range(600)))
    assert batches == [257, 257, 89]
    assert len(set(store.scan())) == len(ids) == 600


async def test_closing_flushes(vault: PackedVault) -> None:
    store = vault.store()
    chunk_id = await store.put(noise(1))
    await store.aclose()
    assert await vault.store().get(chunk_id) == noise(1)


async def test_a_cancelled_read_harms_nobody(vault: PackedVault) -> None:
    store = vault.store()
    [chunk_id] = await flushed(store, noise(1))
    with trio.CancelScope() as scope:
        scope.cancel()
        await store.get(chunk_id)
    assert scope.cancelled_caught
    assert await store.get(chunk_id) == noise(1)


async def test_a_missing_chunk_among_many_is_named(vault: PackedVault) -> None:
    store = vault.store()
    [chunk_id] = await flushed(store, noise(1))
    absent = ChunkId(bytes(32))
    with pytest.raises(ChunkMissing) as raised:
        await store.get_many([chunk_id, absent])
    assert raised.value.chunk_id == absent
