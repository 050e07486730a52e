from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvfs.catalog.catalog import Batch, Family
from tvfs.catalog.memory import MemoryCatalog
from tvfs.catalog.rocks import CatalogFull
from tvfs.chunks.chunk_row import ChunkRow, ChunkState, encode_chunk_row
from tvfs.clock import ManualClock
from tvfs.content.manifest import build_manifest
from tvfs.content.reference import Content, ContentKind
from tvfs.filesystem.inode import Inode
from tvfs.packs.location import Location
from tvfs.plugin_api import PluginRegistry
from tvfs.vault import counting, unwanted
from tvfs.vault.counting import COUNTED, CountingCatalog
from tvfs.vault.reachability import compare_exactly
from tvfs.vault.recount import SEARCHING, begin_counting, count_anew, keep_unwanted, search
from tvfs.vault.references import first_items
from tvfs.vault.unwanted import EPOCH_S

HASH = PluginRegistry().hash_function("blake3")
IDS = [HASH.digest(b"%d" % number) for number in range(6)]
ONE, TWO = IDS[:2]
CHUNK_ONE, CHUNK_TWO = b"\x01" + ONE, b"\x01" + TWO
INO = (64).to_bytes(8, "big")


class World:
    """A counting catalog, what is below it, and the hours."""

    def __init__(self) -> None:
        self.inner = MemoryCatalog()
        self.clock = ManualClock()
        begin_counting(self.inner, "blake3", clean=True)
        self.catalog = CountingCatalog(self.inner, function="blake3", clock=self.clock)

    def write(self, *changes: Callable[[Batch], None]) -> None:
        batch = Batch()
        for change in changes:
            change(batch)
        self.catalog.write(batch)

    def doomed(self) -> list[bytes]:
        return [key for key, _ in self.inner.scan(Family.DOOMED)]

    def check(self) -> None:
        newborn = self.catalog.unwanted.newborn
        found = compare_exactly(self.catalog, "blake3", newborn)
        assert [each for each in found if each.fault != "gone"] == []


@pytest.fixture
def world() -> World:
    return World()


def put(family: Family, key: bytes, value: bytes) -> Callable[[Batch], None]:
    return lambda batch: batch.put(family, key, value)


def delete(family: Family, key: bytes) -> Callable[[Batch], None]:
    return lambda batch: batch.delete(family, key)


def chunk(chunk_id: bytes, state: ChunkState = ChunkState.LIVE) -> Callable[[Batch], None]:
    return put(Family.CHUNK, chunk_id, encode_chunk_row(ChunkRow(Location(1, 40, 3, 3, 0), state)))


def file(chunk_id: bytes, key: bytes = INO, *, mode: int = 0o644) -> Callable[[Batch], None]:
    inode = Inode(0o100000 | mode, 0, 0, 1, 0, 0, 0, 0).with_content(Content(ContentKind.CHUNK, chunk_id, 3))
    return put(Family.INODE, key, inode.encode())


def test_a_stored_object_is_newborn_until_it_is_referred_to(world: World) -> None:
    world.write(chunk(ONE))
    assert (list(world.catalog.unwanted.newborn), world.doomed()) == ([CHUNK_ONE], [])
    world.write(file(ONE))
    assert world.catalog.count(CHUNK_ONE) == 1
    assert not world.catalog.unwanted.newborn
    world.check()


def test_the_batch_that_takes_the_last_reference_away_dooms(world: World) -> None:
    world.write(chunk(ONE), chunk(TWO), file(ONE), file(ONE, b"other  2"))
    world.write(file(TWO))
    assert (world.catalog.count(CHUNK_ONE), world.doomed()) == (1, [])
    world.write(delete(Family.INODE, b"other  2"))
    assert (world.catalog.count(CHUNK_ONE), world.doomed()) == (0, [CHUNK_ONE])
    world.check()
    world.write(file(ONE))
    assert world.doomed() == [CHUNK_TWO]
    world.check()


def test_of_several_changes_of_a_row_in_one_batch_the_last_counts(world: World) -> None:
    world.write(chunk(ONE), chunk(TWO), file(ONE), delete(Family.INODE, INO), file(TWO), file(TWO))
    assert world.catalog.counts([CHUNK_ONE, CHUNK_TWO]) == [0, 1]
    world.write(file(ONE), file(TWO))
    assert (world.catalog.counts([CHUNK_ONE, CHUNK_TWO]), world.doomed()) == ([0, 1], [])
    world.check()


def test_a_range_deletion_counts_what_was_there_and_what_the_batch_put_before(world: World) -> None:
    keys = [number.to_bytes(8, "big") for number in range(100, 110)]
    world.write(chunk(ONE), *(file(ONE, key) for key in keys[:8]))
    world.write(
        file(ONE, keys[8]),
        lambda batch: batch.delete_range(Family.INODE, keys[2], keys[9]),
        file(ONE, keys[5]),
        lambda batch: batch.delete_range(Family.INODE, keys[9], keys[2]),
    )
    assert world.catalog.count(CHUNK_ONE) == 3
    world.check()


def test_what_one_row_refers_to_twice_counts_twice(world: World) -> None:
    manifest = build_manifest([(3, ONE), (3, ONE), (3, TWO)], HASH.digest)
    key = b"\x09" + HASH.digest(b"blob")
    world.write(chunk(ONE), chunk(TWO), put(Family.BLOB, key, manifest.root))
    assert world.catalog.counts([CHUNK_ONE, CHUNK_TWO]) == [2, 1]
    assert list(world.catalog.unwanted.newborn) == [b"\x02" + key]
    world.write(delete(Family.BLOB, key))
    assert world.doomed() == [CHUNK_ONE, CHUNK_TWO]
    assert not world.catalog.unwanted.newborn
    world.check()


def test_a_row_whose_reference_stays_writes_nothing_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.write(chunk(ONE), file(ONE))
    written: list[Batch] = []
    monkeypatch.setattr(world.inner, "write", written.append)
    world.write(file(ONE, mode=0o600))
    world.write(file(ONE))
    assert [len(batch) for batch in written] == [1, 1]


def test_a_batch_that_fails_changes_no_count_and_no_memory(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.write(chunk(ONE), file(ONE))

    def refuse(batch: Batch) -> None:
        raise CatalogFull(__file__)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(world.inner, "write", refuse)
        for change in (chunk(TWO), file(TWO), delete(Family.INODE, INO)):
            with pytest.raises(CatalogFull):
                world.write(change)
    assert not world.catalog.unwanted.newborn
    world.write(file(ONE, mode=0o600))
    assert world.catalog.count(CHUNK_ONE) == 1
    world.check()


def test_a_dead_chunk_is_no_object_and_one_that_comes_back_is_newborn(world: World) -> None:
    world.write(chunk(ONE))
    world.clock.advance(100)
    world.write(chunk(ONE, ChunkState.DEAD))
    assert not world.catalog.unwanted.newborn
    world.write(chunk(ONE))
    assert world.catalog.unwanted.since_s(CHUNK_ONE) == world.clock.monotonic_s()


def test_a_manifest_moves_to_its_rest_and_back_without_a_count_changing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = build_manifest([(3, each) for each in IDS], HASH.digest).root
    key = b"\x09" + HASH.digest(b"blob")
    doomed = b"\x02" + key
    world.write(*(chunk(each) for each in IDS), put(Family.BLOB, key, manifest))
    world.write(delete(Family.BLOB, key), put(Family.DOOMED, doomed, manifest))
    world.check()
    world.write(put(Family.DOOMED, doomed, first_items(manifest, 4)))
    assert world.catalog.counts([b"\x01" + each for each in IDS]) == [1, 1, 1, 1, 0, 0]
    world.check()
    # An object that comes back while the rest of the old one is let go keeps that rest.
    world.write(put(Family.BLOB, key, manifest), put(Family.INODE, INO, blob_file(key)))
    assert world.catalog.counts([b"\x01" + each for each in IDS]) == [2, 2, 2, 2, 1, 1]
    assert world.inner.get(Family.DOOMED, doomed) == first_items(manifest, 4)
    world.check()
    world.write(delete(Family.INODE, INO))
    assert world.inner.get(Family.DOOMED, doomed) == first_items(manifest, 4)
    world.check()


def blob_file(key: bytes) -> bytes:
    content = Content(ContentKind.MANIFEST, key[1:], 18)
    return Inode(0o100644, 0, 0, 1, 0, 0, 0, 0).with_content(content).encode()


def test_the_newborn_are_bounded_the_oldest_get_rows(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "MOST_NEWBORN", 4)
    world.write(*(chunk(each) for each in IDS[:4]))
    assert world.doomed() == []
    world.write(*(chunk(each) for each in IDS[4:]))
    assert world.doomed() == sorted([CHUNK_ONE, CHUNK_TWO])
    assert len(world.catalog.unwanted.newborn) == 4
    assert world.catalog.unwanted.since_s(CHUNK_ONE) == world.clock.monotonic_s()
    world.write(file(ONE))
    assert world.doomed() == [CHUNK_TWO]
    world.check()


async def test_a_stop_in_order_writes_down_what_is_newborn(world: World) -> None:
    world.write(*(chunk(each) for each in IDS), file(ONE))
    await keep_unwanted(world.catalog)
    assert world.doomed() == sorted(b"\x01" + each for each in IDS[1:])
    assert compare_exactly(world.inner, "blake3") == []


async def test_after_a_kill_a_search_finds_what_nothing_refers_to(world: World) -> None:
    world.write(*(chunk(each) for each in IDS), file(ONE))
    inner = world.inner.crash_copy(durable_only=False)
    begin_counting(inner, "blake3", clean=False)
    assert inner.get(Family.SYS, SEARCHING) is not None
    started = CountingCatalog(inner, function="blake3", clock=world.clock)
    assert await search(started) == 5
    assert inner.get(Family.SYS, SEARCHING) is None
    assert compare_exactly(started, "blake3") == []
    assert await search(started) == 0


def test_counting_anew_gives_the_same_counts(world: World) -> None:
    manifest = build_manifest([(3, ONE), (3, TWO)], HASH.digest).root
    world.write(chunk(ONE), chunk(TWO), file(ONE), put(Family.BLOB, b"\x09" + ONE, manifest))
    before = list(world.inner.scan(Family.REF))
    count_anew(world.inner, "blake3")
    assert list(world.inner.scan(Family.REF)) == before != []
    assert world.inner.get(Family.SYS, COUNTED) == b""


def test_a_vault_whose_counts_are_not_kept_counts_anew(world: World) -> None:
    world.write(chunk(ONE), file(ONE))
    batch = Batch()
    batch.delete(Family.SYS, COUNTED)
    batch.put(Family.REF, CHUNK_ONE, counting.encode_count(7))
    world.inner.write(batch)
    begin_counting(world.inner, "blake3", clean=True)
    assert world.catalog.count(CHUNK_ONE) == 1
    assert world.inner.get(Family.SYS, SEARCHING) is not None


def test_a_count_that_is_too_low_frees_nothing_and_is_counted_anew(
    world: World, expect_log: Callable[[str], None]
) -> None:
    expect_log("the count of chunk .* is too low")
    world.write(chunk(ONE), file(ONE))
    batch = Batch()
    batch.delete(Family.REF, CHUNK_ONE)
    world.inner.write(batch)
    world.write(delete(Family.INODE, INO))
    assert world.doomed() == []
    assert world.inner.get(Family.SYS, COUNTED) is None


def test_what_becomes_unwanted_is_remembered_for_an_epoch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unwanted, "MOST_YOUNG", 2)
    world.write(*(chunk(each) for each in IDS), *(file(each, b"%8d" % number) for number, each in enumerate(IDS)))
    for number in range(4):
        world.clock.advance(1)
        world.write(delete(Family.INODE, b"%8d" % number))
    now_s = world.clock.monotonic_s()
    since = [world.catalog.unwanted.since_s(b"\x01" + each) - now_s for each in IDS[:4]]
    # Of those that did not fit the age is not known: they count as the youngest of them.
    assert since == [-2, -2, -1, 0]
    world.clock.advance(EPOCH_S)
    world.write(delete(Family.INODE, b"%8d" % 4))
    assert world.catalog.unwanted.since_s(b"\x01" + IDS[3]) <= now_s


STEPS = st.lists(
    st.lists(
        st.tuples(st.sampled_from(["file", "delete", "range", "chunk", "dead", "blob", "no blob"]), st.integers(0, 5)),
        max_size=6,
    ),
    max_size=12,
)


@given(STEPS)
def test_counts_are_what_the_rows_say_after_any_batches(batches: list[list[tuple[str, int]]]) -> None:
    world = World()
    for steps in batches:
        batch = Batch()
        for what, number in steps:
            key, chunk_id = b"%8d" % (number % 3), IDS[number]
            match what:
                case "file":
                    file(chunk_id, key)(batch)
                case "delete":
                    batch.delete(Family.INODE, key)
                case "range":
                    batch.delete_range(Family.INODE, b"%8d" % 0, key)
                case "chunk":
                    chunk(chunk_id)(batch)
                case "dead":
                    chunk(chunk_id, ChunkState.DEAD)(batch)
                case "blob":
                    items = [(3, each) for each in IDS[:number]]
                    batch.put(Family.BLOB, b"\x09" + ONE, build_manifest(items, HASH.digest).root)
                case _:
                    batch.delete(Family.BLOB, b"\x09" + ONE)
        world.catalog.write(batch)
        world.check()
