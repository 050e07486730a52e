from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from tests.pack_sender import PackSender, blob_of, entry_of, store_tree
from tvfs.catalog.catalog import Batch, Family
from tvfs.catalog.memory import MemoryCatalog
from tvfs.catalog.rocks import CatalogFull
from tvfs.chunks.chunk_index import ChunkIndex
from tvfs.chunks.chunk_row import ChunkState
from tvfs.clock import ManualClock
from tvfs.content.attributes import OwnAttributes
from tvfs.content.tree_builder import TreeBuilder
from tvfs.content.tree_index import REGULAR, IndexEntry
from tvfs.digest import ChunkId
from tvfs.ingest.commit import IngestCommit, RowRecord
from tvfs.testing.memory_vault import memory_vault
from tvfs.vault import collector
from tvfs.vault.collector import INTERVAL_S, ITEMS_A_BATCH
from tvfs.vault.commit_references import CommitOutdated
from tvfs.vault.reachability import compare, compare_exactly
from tvfs.vault.references import manifest_count
from tvfs.vault.unwanted import EPOCH_S
from tvfs.vault.vault import Vault


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def vault(tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Vault]:
    # The clock stands still, so the length of a slice goes by steps: others have a turn after each.
    monkeypatch.setattr(collector, "STEPS_A_SLICE", 1)
    vault = memory_vault(tmp_path, MemoryCatalog(), clock)
    yield vault
    check(vault)
    await vault.aclose()


def check(vault: Vault) -> None:
    assert compare_exactly(vault.catalog, "blake3", vault.catalog.unwanted.newborn) == []


def chunk_of(vault: Vault, raw: bytes) -> ChunkId:
    return ChunkId(vault.hash_function.digest(raw))


def state(vault: Vault, raw: bytes) -> ChunkState | None:
    row = ChunkIndex(vault.catalog).find(chunk_of(vault, raw))
    return None if row is None else row.state


def rows_of(vault: Vault) -> dict[str, int]:
    families = (Family.REF, Family.DOOMED, Family.BLOB, Family.PAGE, Family.TREE, Family.TREEPAGE)
    return {family.value: len(list(vault.catalog.scan(family))) for family in families}


NOTHING = {"ref": 0, "doomed": 0, "blob": 0, "page": 0, "tree": 0, "treepage": 0}


async def test_what_nobody_refers_to_goes_once_its_sender_has_gone(vault: Vault, clock: ManualClock) -> None:
    sender = PackSender(vault, "a")
    await sender.store(b"one", b"two")
    clock.advance(10 * EPOCH_S)
    assert await vault.collector.collect() == 0
    assert vault.collector.left_leased == 2
    sender.end()
    assert await vault.collector.collect() == 2
    assert (state(vault, b"one"), state(vault, b"two")) == (ChunkState.DEAD, ChunkState.DEAD)
    assert not vault.chunks.has(chunk_of(vault, b"one"))
    assert rows_of(vault) == NOTHING


async def test_nothing_younger_than_an_epoch_goes(vault: Vault, clock: ManualClock) -> None:
    sender = PackSender(vault, "a")
    snapshot = await store_tree(sender, 3)
    await vault.entries.put(entry_of(snapshot), who="test")
    sender.end()
    clock.advance(100)
    assert await vault.collector.collect() == 0
    await vault.entries.remove("main", "k", who="test")
    clock.advance(EPOCH_S - 0.1)
    assert await vault.collector.collect() == 0
    assert vault.collector.left_young == 1
    clock.advance(0.1)
    # What it referred to has been unwanted as long: all of it goes at once.
    assert await vault.collector.collect() == 1 + 3 + 2
    assert rows_of(vault) == NOTHING


async def test_a_save_that_ends_half_way_is_let_go_wholly(vault: Vault, clock: ManualClock) -> None:
    sender = PackSender(vault, "a")
    chunks = [b"%d" % number for number in range(2000)]
    await sender.store(*chunks)
    blob, pages = blob_of(vault, chunks)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sender.commit, IngestCommit(blobs=[blob], rows=pages))
            while not list(vault.catalog.scan(Family.PAGE)):
                await trio.lowlevel.checkpoint()
            scope.cancel()
    assert 0 < len(list(vault.catalog.scan(Family.PAGE))) <= len(pages)
    check(vault)
    sender.end()
    clock.advance(EPOCH_S)
    await vault.collector.collect()
    assert rows_of(vault) == NOTHING
    assert list(vault.chunks.scan()) == []


async def test_a_dead_chunk_is_resurrected_by_a_dedup_hit_before_its_record_is_gone(
    vault: Vault, clock: ManualClock
) -> None:
    sender = PackSender(vault, "a")
    await sender.store(b"one")
    sender.end()
    clock.advance(EPOCH_S)
    assert await vault.collector.collect() == 1
    assert state(vault, b"one") is ChunkState.DEAD
    other = PackSender(vault, "b")
    assert await vault.committer.find_missing([chunk_of(vault, b"one")], "b") == []
    assert await other.commit(IngestCommit(uses=[chunk_of(vault, b"one")])) == []
    clock.advance(10 * EPOCH_S)
    assert await vault.collector.collect() == 0
    assert await vault.chunks.get(chunk_of(vault, b"one")) == b"one"
    other.end()
    assert await vault.collector.collect() == 1


async def test_a_bad_chunk_that_nobody_wants_is_forgotten_and_never_resurrected(
    vault: Vault, clock: ManualClock
) -> None:
    sender = PackSender(vault, "a")
    await sender.store(b"one")
    batch = Batch()
    ChunkIndex(vault.catalog).set_state(batch, {chunk_of(vault, b"one"): ChunkState.QUARANTINED})
    vault.catalog.write(batch)
    sender.end()
    clock.advance(EPOCH_S)
    await vault.collector.collect()
    assert state(vault, b"one") is None


@pytest.mark.parametrize("items", [1, ITEMS_A_BATCH, ITEMS_A_BATCH + 1, 1000, 5000])
async def test_a_manifest_of_any_length_goes_a_few_references_a_batch(
    vault: Vault, clock: ManualClock, items: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender = PackSender(vault, "a")
    chunks = [b"%d" % number for number in range(items)]
    await sender.store(*chunks)
    blob, pages = blob_of(vault, chunks)
    counted: list[int] = []
    write = vault.catalog._inner.write

    def watched(batch: Batch) -> None:
        counted.append(sum(change.family is Family.REF for change in batch.changes))
        write(batch)

    monkeypatch.setattr(vault.catalog._inner, "write", watched)
    assert await sender.commit(IngestCommit(blobs=[blob], rows=pages)) == []
    assert vault.catalog.count(b"\x01" + chunk_of(vault, chunks[-1])) == 1
    sender.end()
    clock.advance(EPOCH_S)
    assert await vault.collector.collect() == 1 + len(pages) + items
    assert max(counted) <= ITEMS_A_BATCH
    assert rows_of(vault) == NOTHING


async def test_a_manifest_that_comes_back_while_it_is_let_go_is_whole(vault: Vault, clock: ManualClock) -> None:
    sender = PackSender(vault, "a")
    chunks = [b"%d" % number for number in range(1000)]
    await sender.store(*chunks)
    blob, _ = blob_of(vault, chunks)
    await sender.commit(IngestCommit(blobs=[blob]))
    key = b"\x02\x09" + blob.hash
    sender.end()
    clock.advance(EPOCH_S)
    await collect_until(vault, lambda: 0 < manifest_count(vault.catalog.get(Family.DOOMED, key) or bytes(16)) < 1000)
    again = PackSender(vault, "b")
    missing = set(await vault.committer.find_missing([chunk_of(vault, raw) for raw in chunks], "b"))
    records = [again.append(raw) for raw in chunks if chunk_of(vault, raw) in missing]
    assert await again.commit(IngestCommit(chunks=records, blobs=[blob])) == []
    check(vault)
    clock.advance(EPOCH_S)
    await vault.collector.collect()
    assert vault.catalog.get(Family.BLOB, key[1:]) == blob.manifest
    for raw in chunks:
        assert await vault.chunks.get(chunk_of(vault, raw)) == raw
    again.end()
    clock.advance(EPOCH_S)
    for _ in range(2):
        await vault.collector.collect()
    assert rows_of(vault) == NOTHING


async def collect_until(vault: Vault, enough: Callable[[], bool]) -> None:
    """Stop the collector at the end of the first slice after which that is so."""
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(vault.collector.collect)
            while not enough():
                await trio.lowlevel.checkpoint()
            scope.cancel()
    assert enough()


async def test_a_tree_that_is_saved_again_while_it_is_let_go_is_whole(vault: Vault, clock: ManualClock) -> None:
    sender = PackSender(vault, "a")
    snapshot = await store_tree(sender, 3000)
    sender.end()
    clock.advance(EPOCH_S)
    pages = len(list(vault.catalog.scan(Family.TREEPAGE)))
    await collect_until(vault, lambda: len(list(vault.catalog.scan(Family.TREEPAGE))) < pages // 2)
    assert vault.catalog.get(Family.TREE, snapshot.index) is None
    again = PackSender(vault, "b")
    assert await store_tree(again, 3000) == snapshot
    await vault.entries.put(entry_of(snapshot), who="test")
    again.end()
    clock.advance(10 * EPOCH_S)
    await vault.collector.collect()
    assert len(list(vault.catalog.scan(Family.TREEPAGE))) == pages
    assert all(vault.chunks.has(chunk_of(vault, b"file %d" % number)) for number in range(3000))
    assert vault.catalog.get(Family.DOOMED, b"\x04" + snapshot.index) is None


async def test_what_is_wanted_again_while_others_are_let_go_stays(vault: Vault, clock: ManualClock) -> None:
    sender = PackSender(vault, "a")
    snapshots = [await store_tree(sender, files) for files in (300, 310, 320)]
    sender.end()
    clock.advance(EPOCH_S)
    await collect_until(vault, lambda: len(list(vault.catalog.scan(Family.TREE))) == 2)
    left = [each for each in snapshots if vault.catalog.get(Family.TREE, each.index) is not None]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(vault.collector.collect)
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        # It was seen to be unwanted when this pass began.
        await vault.entries.put(entry_of(left[1]), who="test")
    assert vault.catalog.get(Family.TREE, left[1].index) is not None
    assert vault.catalog.get(Family.TREE, left[0].index) is None


async def test_a_root_without_its_pages_is_refused(vault: Vault, clock: ManualClock) -> None:
    sender = PackSender(vault, "a")
    snapshot = await store_tree(sender, 600)
    root = vault.catalog.get(Family.TREE, snapshot.index)
    assert root is not None
    sender.end()
    clock.advance(EPOCH_S)
    await collect_until(vault, lambda: len(list(vault.catalog.scan(Family.TREEPAGE))) < 3)
    again = PackSender(vault, "b")
    with pytest.raises(CommitOutdated, match="page of the tree"):
        await again.commit(IngestCommit(rows=[RowRecord("tree", snapshot.index, root)]))
    again.end()
    await vault.collector.collect()


async def test_a_page_that_refers_to_what_is_gone_is_refused(vault: Vault) -> None:
    sender = PackSender(vault, "a")
    gone = vault.hash_function.digest(b"gone")
    for entry in (
        IndexEntry(b"f", REGULAR, 0o644, 0, 0, 0, 3, 2, gone),
        IndexEntry(b"d", 4, 0o755, 0, 0, 0, child=gone),
    ):
        built = TreeBuilder(vault.hash_function).build(OwnAttributes(0o755), [entry])
        rows = [RowRecord(family.value, key, value) for family, key, value in built.rows if family is Family.TREEPAGE]
        with pytest.raises(CommitOutdated, match="not in the vault any more"):
            await sender.commit(IngestCommit(rows=rows))
    built = TreeBuilder(vault.hash_function).build(
        OwnAttributes(0o755), [IndexEntry(b"f", REGULAR, 0o644, 0, 0, 0, 4, 1, gone)]
    )
    rows = [RowRecord(family.value, key, value) for family, key, value in built.rows]
    tree = vault.hash_function.digest(built.tree)
    attributes = vault.hash_function.digest(built.attributes or b"")
    assert await sender.commit(IngestCommit(rows=rows)) == [gone, tree, attributes]
    assert rows_of(vault) == NOTHING
    sender.end()


async def test_a_failure_is_logged_and_tried_again(
    vault: Vault,
    clock: ManualClock,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    expect_log: Callable[[str], None],
) -> None:
    expect_log("unwanted content stays for now")
    sender = PackSender(vault, "a")
    await sender.store(b"one")
    sender.end()
    clock.advance(EPOCH_S)

    def refuse(batch: Batch) -> None:
        raise CatalogFull(Path("meta"))

    async with trio.open_nursery() as nursery:
        with monkeypatch.context() as patch:
            patch.setattr(vault.catalog._inner, "write", refuse)
            nursery.start_soon(vault.collector.run)
            await trio.sleep(20 * INTERVAL_S)
            assert vault.collector.figures.failures > 1
        await trio.sleep(100 * INTERVAL_S)
        nursery.cancel_scope.cancel()
    assert state(vault, b"one") is ChunkState.DEAD
    assert vault.collector.figures.failures == 0


async def test_after_a_kill_what_was_newborn_is_found_and_let_go(tmp_path: Path, clock: ManualClock) -> None:
    catalog = MemoryCatalog()
    vault = memory_vault(tmp_path, catalog, clock)
    sender = PackSender(vault, "a")
    await store_tree(sender, 300)
    sender.writer.close()
    vault.packs.close()
    started = memory_vault(tmp_path, catalog.crash_copy(durable_only=False), clock)
    assert await started.collector.collect() == 0
    check(started)
    assert await compare(started.catalog) == []
    clock.advance(EPOCH_S)
    assert await started.collector.collect() == 1 + 300 + 2
    assert rows_of(started) == NOTHING
    await started.aclose()


async def test_others_run_while_much_is_let_go(vault: Vault, clock: ManualClock) -> None:
    sender = PackSender(vault, "a")
    await store_tree(sender, 2000)
    sender.end()
    clock.advance(EPOCH_S)
    turns = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(vault.collector.collect)
        while rows_of(vault)["treepage"]:
            await trio.lowlevel.checkpoint()
            turns += 1
    assert turns >= 2000 // 256
