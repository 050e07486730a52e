from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio

from tests.pack_sender import PackSender, blob_of, entry_of, store_tree
from tvfs.catalog.catalog import Batch, Family
from tvfs.catalog.memory import MemoryCatalog
from tvfs.chunks.chunk_index import ChunkIndex
from tvfs.chunks.chunk_row import ChunkState
from tvfs.clock import ManualClock
from tvfs.digest import ChunkId
from tvfs.ingest.commit import IngestCommit
from tvfs.testing.memory_vault import memory_vault
from tvfs.vault import reachability
from tvfs.vault.counting import encode_count
from tvfs.vault.reachability import Difference, Fault, compare, compare_exactly
from tvfs.vault.recount import SEARCHING
from tvfs.vault.vault import Vault


@pytest.fixture
async def vault(tmp_path: Path) -> AsyncIterator[Vault]:
    """A vault with an entry that finds a tree of 300 files, and a blob that nothing refers to."""
    vault = memory_vault(tmp_path, MemoryCatalog(), ManualClock())
    sender = PackSender(vault, "a")
    snapshot = await store_tree(sender, 300)
    await vault.entries.put(entry_of(snapshot), who="test")
    chunks = [b"%d" % number for number in range(1500)]
    blob, pages = blob_of(vault, chunks)
    await sender.store(*chunks)
    await sender.commit(IngestCommit(blobs=[blob], rows=pages))
    await vault.collector.collect()
    yield vault
    sender.end()
    await vault.aclose()


def change(vault: Vault, *changes: Callable[[Batch], None]) -> None:
    """Change rows behind the back of the counting."""
    batch = Batch()
    for each in changes:
        each(batch)
    vault.catalog._inner.write(batch)


def key_of(vault: Vault, raw: bytes) -> bytes:
    return b"\x01" + vault.hash_function.digest(raw)


async def both(vault: Vault) -> list[Difference]:
    """What the two referees say, who must agree."""
    live = await compare(vault.catalog)
    exact = compare_exactly(vault.catalog, "blake3", vault.catalog.unwanted.newborn)
    assert [each for each in exact if each.fault != Fault.UNREACHABLE] == live
    return live


async def test_a_vault_in_order_has_no_differences(vault: Vault) -> None:
    assert await both(vault) == []


@pytest.mark.parametrize("count", [0, 2, 70_000])
async def test_a_wrong_count_is_found(vault: Vault, count: int) -> None:
    key = key_of(vault, b"file 7")
    change(vault, lambda batch: batch.put(Family.REF, key, encode_count(count)))
    assert await both(vault) == [Difference(Fault.COUNT, key, count, 1)]


async def test_two_wrong_counts_do_not_make_one_right(vault: Vault) -> None:
    keys = sorted(key_of(vault, b"file %d" % number) for number in range(40))
    change(
        vault,
        *(
            lambda batch, key=key, count=count: batch.put(Family.REF, key, encode_count(count))
            for key, count in zip(keys, [0, 2] * 20, strict=True)
        ),
    )
    assert [each.key for each in await both(vault)] == keys


async def test_a_count_of_nothing_is_found(vault: Vault) -> None:
    key = b"\x04" + bytes(32)
    change(vault, lambda batch: batch.put(Family.REF, key, encode_count(1)))
    live = await compare(vault.catalog)
    assert live == [Difference(Fault.COUNT, key, 1, 0), Difference(Fault.GONE, key)]


@pytest.mark.parametrize("how", ["dead", "removed"])
async def test_wanted_content_that_is_gone_is_found(vault: Vault, how: str) -> None:
    key = key_of(vault, b"file 7")
    if how == "dead":
        batch = Batch()
        ChunkIndex(vault.catalog).set_state(batch, {ChunkId(key[1:]): ChunkState.DEAD})
        vault.catalog._inner.write(batch)
    else:
        change(vault, lambda batch: batch.delete(Family.CHUNK, key[1:]))
    assert await both(vault) == [Difference(Fault.GONE, key)]


async def test_what_is_neither_wanted_nor_known_as_unwanted_is_found_unless_it_is_searched_for(vault: Vault) -> None:
    sender = PackSender(vault, "b")
    await sender.store(b"lost")
    key = key_of(vault, b"lost")
    del vault.catalog.unwanted.newborn[key]
    assert await both(vault) == [Difference(Fault.UNKNOWN, key)]
    change(vault, lambda batch: batch.put(Family.SYS, SEARCHING, b""))
    assert await both(vault) == []
    sender.end()


async def test_a_lost_newborn_leaves_what_it_leads_to_without_a_root(vault: Vault) -> None:
    vault.catalog.unwanted.newborn.clear()
    exact = compare_exactly(vault.catalog, "blake3")
    assert {each.fault for each in exact} == {Fault.UNKNOWN, Fault.UNREACHABLE}
    # The live referee names the one that the others hang on.
    assert [each.key[:1] for each in await compare(vault.catalog)] == [b"\x02"]


async def test_a_live_vault_is_compared_at_one_moment_while_others_change_it(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reachability, "_SLICE", 8)
    found: list[list[Difference]] = []

    async def referee() -> None:
        found.append(await compare(vault.catalog))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(referee)
        sender = PackSender(vault, "b")
        await vault.entries.remove("main", "k", who="test")
        await store_tree(sender, 500)
        while not found:
            await sender.store(b"%d more" % len(vault.catalog.unwanted.newborn))
        sender.end()
    assert found == [[]]


def test_a_difference_says_what_it_is_in_a_sentence() -> None:
    key = b"\x01" + bytes(32)
    assert (
        str(Difference(Fault.COUNT, key, 1, 2)) == f"The chunk {'00' * 32} is referred to 2 times and counted 1 times."
    )
    for fault in Fault:
        assert str(Difference(fault, key)).endswith(".")
