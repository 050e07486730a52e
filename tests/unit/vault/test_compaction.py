"""Compaction: what lives is moved whole, what is dead goes, and nothing that anybody may still want is lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from tests.pack_sender import PackSender
from tests.unit.vault.test_usage import du
from tvfs import failpoints
from tvfs.catalog.catalog import Batch, Family
from tvfs.chunks.chunk_index import ChunkIndex
from tvfs.chunks.chunk_row import ChunkState
from tvfs.chunks.store import ChunkDamaged
from tvfs.digest import ChunkId
from tvfs.ingest.commit import IngestCommit
from tvfs.packs.location import Location
from tvfs.packs.pack_reader import record_bytes
from tvfs.packs.pack_row import decode_pack_row, pack_number
from tvfs.plugin_api import PluginRegistry
from tvfs.vault.compaction import SMALL_PACKS_MAX
from tvfs.vault.vault import Vault, open_vault


class Store:
    """Chunks of one vault, by pack."""

    def __init__(self, vault: Vault) -> None:
        self.vault = vault
        self.index = ChunkIndex(vault.catalog)
        self.raws: dict[ChunkId, bytes] = {}

    async def pack(self, *raws: bytes) -> list[ChunkId]:
        """Commit a pack with these chunks and end its writer."""
        sender = PackSender(self.vault, "client", reserve_bytes=8 << 20)
        assert await sender.store(*raws) == []
        sender.end()
        ids = [ChunkId(self.vault.hash_function.digest(raw)) for raw in raws]
        self.raws.update(zip(ids, raws, strict=True))
        return ids

    async def kill(self, *ids: ChunkId) -> None:
        for chunk_id in ids:
            await self.vault.chunks.delete(chunk_id)

    def state(self, chunk_id: ChunkId) -> ChunkState | None:
        row = self.index.find(chunk_id)
        return None if row is None else row.state

    def place(self, chunk_id: ChunkId) -> int:
        row = self.index.find(chunk_id)
        assert row is not None
        return row.location.pack

    async def check(self, *ids: ChunkId) -> None:
        """These are there, whatever is cached, and the accounts are right."""
        for chunk_id in ids:
            assert await self.vault.check_chunk(chunk_id)
            assert await self.vault.chunks.get(chunk_id) == self.raws[chunk_id]
        check_accounts(self.vault)


def check_accounts(vault: Vault) -> None:
    index = ChunkIndex(vault.catalog)
    live: dict[int, int] = {}
    for chunk_id in index.live():
        row = index.find(chunk_id)
        assert row is not None
        live[row.location.pack] = live.get(row.location.pack, 0) + record_bytes(row.location)
    rows = {pack_number(key): decode_pack_row(value) for key, value in vault.catalog.scan(Family.PACK)}
    assert {number: each.live_bytes for number, each in rows.items() if each.live_bytes} == live
    for number, figures in rows.items():
        if number not in vault.grants.being_written():
            assert vault.packs.size(number) == figures.committed_bytes
    assert vault.usage.measure().total == du(vault.layout.home)


@pytest.fixture
def store(vault: Vault) -> Store:
    return Store(vault)


def noise(count: int, length: int = 20_000) -> list[bytes]:
    return [os.urandom(length) for _ in range(count)]


async def compact(vault: Vault, least: float = 0.1) -> None:
    while (await vault.compactor.compact(least_dead_fraction=least)).removed_packs:
        pass


async def test_what_lives_is_moved_together_and_the_old_packs_are_gone(store: Store, vault: Vault) -> None:
    one = await store.pack(*noise(10))
    two = await store.pack(*noise(10))
    before = [store.place(one[0]), store.place(two[0])]
    await store.kill(*one[:8], *two[2:6])
    used = vault.packs.allocated_bytes()
    done = await vault.compactor.compact(least_dead_fraction=0.1)
    kept = [*one[8:], *two[:2], *two[6:]]
    assert done.removed_packs == 2
    assert done.moved_bytes == 8 * 20_056
    assert done.freed_bytes == used - vault.packs.allocated_bytes() > 200_000
    assert vault.packs.numbers() == [store.place(kept[0])]
    assert not set(before) & set(vault.packs.numbers())
    await store.check(*kept)
    assert [store.state(chunk_id) for chunk_id in one[:8]] == [None] * 8
    assert (await vault.compactor.survey()).dead_bytes == 0
    assert vault.reservations.reserved_bytes == 0


async def test_a_pack_without_live_records_is_only_removed(store: Store, vault: Vault) -> None:
    dead = await store.pack(*noise(3))
    await store.kill(*dead)
    number = vault.counters.take("next_pack")
    done = await vault.compactor.compact(least_dead_fraction=0.1)
    assert (done.removed_packs, done.moved_bytes) == (1, 0)
    assert vault.counters.take("next_pack") == number + 1, "no pack was made for nothing"
    assert vault.packs.numbers() == []
    check_accounts(vault)


async def test_packs_with_the_smallest_live_share_are_taken_first_and_no_more_than_fill_one(
    store: Store, vault: Vault
) -> None:
    limit = vault.superblock.pack_max_bytes
    assert limit == 16 << 20
    full = await store.pack(*noise(5, 1 << 20))
    large = [await store.pack(*noise(7, 1 << 20)) for _ in range(4)]
    for number, ids in enumerate(large):
        await store.kill(*ids[: number + 1])
    done = await vault.compactor.compact(least_dead_fraction=0.1)
    assert done.removed_packs == 3, "3 + 4 + 5 MiB fit, 6 more do not"
    assert store.place(large[0][-1]) == store.place(large[0][-2]) == 2
    await compact(vault)
    assert store.place(full[0]) == 1, "nothing in it is dead"
    await store.check(*full, *(chunk_id for number, ids in enumerate(large) for chunk_id in ids[number + 1 :]))


async def test_a_pack_that_is_being_written_is_left_alone(store: Store, vault: Vault) -> None:
    sender = PackSender(vault, "client")
    await sender.store(*noise(2))
    for chunk_id in list(ChunkIndex(vault.catalog).live()):
        await vault.chunks.delete(chunk_id)
    put = await vault.chunks.put(b"own" * 100)
    await vault.chunks.flush()
    await vault.chunks.delete(put)
    await vault.chunks.put(b"waits for its row" * 100)
    assert (await vault.compactor.compact(least_dead_fraction=0.0)).removed_packs == 0
    assert len(vault.packs.numbers()) == 2
    sender.end()
    assert (await vault.compactor.compact(least_dead_fraction=0.0)).removed_packs == 1
    await vault.chunks.flush()
    assert await vault.chunks.get(ChunkId(vault.hash_function.digest(b"waits for its row" * 100)))


async def test_a_chunk_that_comes_back_while_its_pack_is_compacted_is_not_lost(store: Store, vault: Vault) -> None:
    ids = await store.pack(*noise(4))
    await store.kill(*ids[:3])

    def resurrect() -> None:
        sender = PackSender(vault, "late")
        commit = IngestCommit(uses=[ids[0]])
        # What a commit does in one step, in the middle of the compaction.
        assert vault.committer._resurrect([ids[0]]) == []
        assert commit.uses
        sender.end()

    failpoints.arm("compact.after_rows", resurrect)
    try:
        await vault.compactor.compact(least_dead_fraction=0.1)
    finally:
        failpoints.disarm_all()
    await store.check(ids[0], ids[3])
    await compact(vault)
    assert store.place(ids[0]) != 1
    await store.check(ids[0], ids[3])
    assert store.state(ids[1]) is None
    assert len(vault.packs.numbers()) == 2


async def test_a_chunk_that_was_stored_afresh_while_it_was_copied_stays_where_it_is(store: Store, vault: Vault) -> None:
    ids = await store.pack(*noise(3))
    await store.kill(ids[0])
    sender = PackSender(vault, "afresh")
    record = sender.append(store.raws[ids[1]])
    sender.writer.sync()
    fresh = Location(record.pack, record.offset, record.stored_bytes, record.raw_bytes, record.codec)

    def store_afresh() -> None:
        batch = Batch()
        store.index.set_state(batch, {ids[1]: ChunkState.QUARANTINED})
        vault.catalog.write(batch)
        batch = Batch()
        store.index.add(batch, {ids[1]: fresh})
        vault.catalog.write(batch)

    failpoints.arm("compact.after_sync", store_afresh)
    try:
        await vault.compactor.compact(least_dead_fraction=0.1)
    finally:
        failpoints.disarm_all()
    row = store.index.find(ids[1])
    assert row is not None
    assert row.location == fresh
    sender.end()
    await store.check(ids[1], ids[2])


async def test_a_dead_chunk_that_was_promised_is_moved_and_can_be_used(store: Store, vault: Vault) -> None:
    ids = await store.pack(*noise(4))
    await store.kill(*ids[:3])
    assert await vault.committer.find_missing([ids[0], ids[1]], "client") == []
    vault.leases.release("client")
    assert await vault.committer.find_missing([ids[0]], "client") == []
    await compact(vault)
    assert store.state(ids[0]) is ChunkState.DEAD
    assert store.state(ids[1]) is None
    assert await vault.committer.commit(IngestCommit(uses=[ids[0]]), "client") == []
    await store.check(ids[0], ids[3])


async def test_a_chunk_that_dies_while_it_is_copied_stays_dead(store: Store, vault: Vault) -> None:
    ids = await store.pack(*noise(3))
    await store.kill(ids[0])

    async def kill() -> None:
        await vault.chunks.delete(ids[1])

    async with trio.open_nursery() as nursery:
        failpoints.arm("compact.after_copy", lambda: nursery.start_soon(kill))
        try:
            await vault.compactor.compact(least_dead_fraction=0.1)
        finally:
            failpoints.disarm_all()
    assert not vault.chunks.has(ids[1])
    await store.check(ids[2])
    await compact(vault)
    assert store.state(ids[1]) is None
    await store.check(ids[2])


def damage(vault: Vault, store: Store, chunk_id: ChunkId, at: int) -> None:
    row = store.index.find(chunk_id)
    assert row is not None
    with open(vault.layout.pack(row.location.pack), "r+b") as pack:
        pack.seek(row.location.offset + at)
        byte = pack.read(1)
        pack.seek(-1, 1)
        pack.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("at", [10, 60], ids=["header", "payload"])
async def test_a_bad_record_is_quarantined_and_keeps_its_row(store: Store, vault: Vault, at: int) -> None:
    ids = await store.pack(*noise(4))
    await store.kill(ids[0])
    damage(vault, store, ids[2], at)
    await compact(vault)
    assert 1 not in vault.packs.numbers()
    assert store.state(ids[2]) is ChunkState.QUARANTINED
    with pytest.raises(ChunkDamaged):
        await vault.chunks.get(ids[2])
    await store.check(ids[1], ids[3])
    assert [record.action for record in vault.audit.latest(1)] == ["quarantine"]
    # The same content again heals it.
    assert await store.pack(store.raws[ids[2]]) == [ids[2]]
    await store.check(ids[2])


async def test_a_pack_whose_file_is_gone_is_left_for_its_readers(store: Store, vault: Vault) -> None:
    ids = await store.pack(*noise(2))
    other = await store.pack(*noise(2))
    await store.kill(ids[0], other[0])
    vault.packs.remove(1)
    await compact(vault)
    assert store.state(ids[1]) is ChunkState.LIVE, "nobody looked whether it comes back"
    assert not await vault.check_chunk(ids[1])
    assert await vault.chunks.get(other[1]) == store.raws[other[1]]
    await compact(vault)
    assert [pack_number(key) for key, _ in vault.catalog.scan(Family.PACK)] == [store.place(other[1])]


async def test_many_small_packs_become_one(store: Store, vault: Vault) -> None:
    ids = [(await store.pack(*noise(1, 500)))[0] for _ in range(SMALL_PACKS_MAX + 1)]
    assert (await vault.compactor.compact(least_dead_fraction=0.1)).removed_packs == 0
    done = await vault.compactor.compact(least_dead_fraction=0.1, merge_small=True)
    assert done.removed_packs == SMALL_PACKS_MAX
    assert len(vault.packs.numbers()) == 2
    assert (await vault.compactor.compact(least_dead_fraction=0.1, merge_small=True)).removed_packs == 0
    await store.check(*ids)


async def test_compaction_takes_what_is_kept_and_gives_way_when_that_is_taken(store: Store, vault: Vault) -> None:
    ids = await store.pack(*noise(4, 1 << 20))
    await store.kill(*ids[:2])
    vault.reservations.reserve("everything", vault.reservations.free_bytes)
    vault.reservations.reserve("sealer", vault.superblock.pack_max_bytes, from_kept=True)
    vault.reservations.reserve("names", vault.reservations.free_with_kept_bytes, from_kept=True)
    assert (await vault.compactor.compact(least_dead_fraction=0.1)).busy
    vault.reservations.release("sealer")
    assert (await vault.compactor.compact(least_dead_fraction=0.1)).removed_packs == 1
    await store.check(*ids[2:])


async def test_cancelled_it_leaves_everything_whole(store: Store, vault: Vault) -> None:
    ids = await store.pack(*noise(4))
    await store.kill(*ids[:2])
    for point in ("compact.after_copy", "compact.after_sync", "compact.after_rows", "compact.after_wal"):
        with trio.CancelScope() as scope:
            failpoints.arm(point, scope.cancel)
            try:
                await vault.compactor.compact(least_dead_fraction=0.1)
            finally:
                failpoints.disarm_all()
        await store.check(*ids[2:])
        assert vault.reservations.reserved_bytes == 0
    await compact(vault)
    await store.check(*ids[2:])
    assert (await vault.compactor.survey()).dead_bytes == 0


async def test_readers_read_on_while_everything_is_compacted(store: Store, vault: Vault) -> None:
    packs = [await store.pack(*noise(20, 30_000)) for _ in range(6)]
    kept = [chunk_id for ids in packs for chunk_id in ids[::2]]
    await store.kill(*(chunk_id for ids in packs for chunk_id in ids[1::2]))
    small = vault._store  # below the cache: every read goes to the disk
    done = trio.Event()
    reads = 0

    async def read_for_ever(start: int) -> None:
        nonlocal reads
        position = start
        while not done.is_set():
            wanted = [kept[(position + step) % len(kept)] for step in range(7)]
            assert await small.get_many(wanted) == [store.raws[chunk_id] for chunk_id in wanted]
            position += 5
            reads += 1

    async with trio.open_nursery() as nursery:
        for reader in range(4):
            nursery.start_soon(read_for_ever, reader * 13)
        for _ in range(20):
            # Again and again, for one chunk each time.
            await compact(vault, 0.001)
            gone = kept[-1:]
            del kept[-1:]
            await store.kill(*gone)
        done.set()
    assert reads > 50
    assert vault.compactor.total.removed_packs >= 20
    await store.check(*kept)


async def test_the_next_start_finds_everything_after_compaction(home: Path, registry: PluginRegistry) -> None:
    async with open_vault(home, registry) as vault:
        store = Store(vault)
        ids = await store.pack(*noise(6))
        await store.kill(*ids[:3])
        await compact(vault)
    async with open_vault(home, registry) as vault:
        assert vault.recovery.clean
        assert not vault.recovery.removed_packs
        again = Store(vault)
        again.raws = store.raws
        await again.check(*ids[3:])
