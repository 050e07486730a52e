"""Evictable directories: which files may go, which never, and what is known of them after any change of names."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ended_batches import ended_after
from tests.eviction_policies import Misbehaving
from tvfs.catalog.catalog import Batch, Family
from tvfs.filesystem.evictable_rows import FILE, MARKED, TO_GATHER, file_row
from tvfs.filesystem.evictables import ASK_AGAIN_S, QUIET_S, NotMarkable, RankedFile
from tvfs.filesystem.inode import NO_HASH
from tvfs.filesystem.model import KEYS, RENAME_EXCHANGE, WORK, Ino
from tvfs.filesystem.posix_error import NotFound, PosixError, Stale
from tvfs.filesystem.settings import FilesystemSettings
from tvfs.fsck.evictables import check_evictables
from tvfs.fsck.examination import Examination
from tvfs.fsck.names import check_names
from tvfs.plugin_api.registry import PluginRegistry
from tvfs.testing.memory_vault import CALLER, MemoryWorld
from tvfs.vault.counting import CountingCatalog
from tvfs.vault.entry_usage import BY_AGE, FILES_BY_RANK
from tvfs.vault.ranking import Ranking
from tvfs.vault.reachability import compare_exactly
from tvfs.vault.stored_entry import StoredEntry, StoredSnapshot
from tvfs.vault.unwanted import EPOCH_S


@pytest.fixture
async def cache(world: MemoryWorld) -> AsyncIterator[MemoryWorld]:
    """A vault with an evictable directory `cache`."""
    mark(world, b"cache")
    await world.filesystem.gatherer.gather()
    yield world
    check(world)


def mark(world: MemoryWorld, path: bytes, evictable: bool = True) -> None:
    if not world.exists(path):
        world.mkdir(path)
    world.filesystem.evictables.mark(world.ino(path), evictable)


def evict(world: MemoryWorld, most: int = 1000) -> list[tuple[int, bytes]]:
    """Evict all that can be, or the first few; return what was told to the kernel, in order."""
    told: list[tuple[int, bytes]] = []
    evictables = world.filesystem.evictables
    evictables.tell = lambda parent, name, ino: told.append((parent, name))
    while len(told) < most and (candidates := evictables.lowest(1)):
        evictables.let_go(candidates[0])
    return told


def evicted_names(world: MemoryWorld, most: int = 1000) -> list[bytes]:
    world.clock.advance(2 * QUIET_S)
    return [name for _, name in evict(world, most)]


def findings(world: MemoryWorld, *, repair: bool = False) -> list[str]:
    """What fsck says of names and of evictable directories."""
    vault = world.vault
    exam = Examination(
        layout=vault.layout, catalog=vault.catalog, packs=vault.packs, superblock=vault.superblock,
        hash_function=vault.hash_function, codecs=PluginRegistry().codecs(), audit=vault.audit, clock=world.clock,
        dry=not repair,
    )  # fmt: skip
    found = []
    for run in (check_names, check_evictables):
        for step in run(exam):
            if repair and step.batch:
                vault.catalog.write(step.batch)
            if step.finding is not None and not step.finding.after_stop:
                found.append(f"{step.finding.where}: {step.finding.what}")
    return found


def check(world: MemoryWorld) -> None:
    assert findings(world) == []
    assert compare_exactly(world.vault.catalog, "blake3", world.vault.catalog.unwanted.newborn) == []


def rows(world: MemoryWorld, kind: bytes) -> list[bytes]:
    return [key for key, _ in world.vault.catalog.scan(Family.USAGE, kind, kind + b"\xff" * 17)]


async def freed(world: MemoryWorld) -> int:
    """Return how many objects are let go of now."""
    await world.filesystem.sweep()
    world.clock.advance(EPOCH_S)
    return await world.vault.collector.collect()


async def test_files_leave_in_the_order_in_which_they_were_last_used(cache: MemoryWorld) -> None:
    for name in (b"a", b"b", b"c"):
        cache.clock.advance(100)
        await cache.write(b"cache/" + name, name)
    cache.clock.advance(100)
    assert await cache.read(b"cache/a") == b"a"
    assert evicted_names(cache) == [b"b", b"c", b"a"]
    assert cache.names(b"cache") == []
    assert rows(cache, FILES_BY_RANK) == rows(cache, FILE) == []


async def test_saved_entries_have_rows_beside_and_are_no_files(cache: MemoryWorld) -> None:
    await cache.write(b"cache/goes", b"x")
    snapshot = StoredSnapshot("blake3:" + "00" * 32 + "-0", None, bytes(32), 0, 0)
    await cache.vault.entries.put(StoredEntry("main", "deps-1", "saved", 1, 1, snapshot), who="test")
    assert rows(cache, BY_AGE)
    assert evicted_names(cache) == [b"goes"]
    await cache.vault.entries.remove("main", "deps-1", who="test")  # its tree is made up


async def test_an_ordinary_directory_beside_it_is_never_touched(cache: MemoryWorld) -> None:
    cache.mkdir(b"ordinary")
    await cache.write(b"ordinary/kept", b"x")
    await cache.write(b"beside", b"x")
    await cache.write(b"cache/goes", b"x")
    assert evicted_names(cache) == [b"goes"]
    assert await cache.read(b"ordinary/kept") == await cache.read(b"beside") == b"x"


async def test_directories_stay_and_symlinks_too(cache: MemoryWorld) -> None:
    cache.mkdir(b"cache/d")
    cache.filesystem.symlink(cache.ino(b"cache"), b"link", b"d", CALLER)
    await cache.write(b"cache/d/f", b"x")
    assert evicted_names(cache) == [b"f"]
    assert cache.names(b"cache") == [b"d", b"link"]


async def test_what_was_there_before_the_mark_is_known_soon(world: MemoryWorld) -> None:
    world.mkdir(b"cache")
    world.mkdir(b"cache/d")
    for number in range(50):
        await world.write(b"cache/d/%02d" % number, b"x")
    mark(world, b"cache")
    assert findings(world) == []
    assert evicted_names(world) == []
    assert world.filesystem.evictables.ask_again_s() == ASK_AGAIN_S
    await world.filesystem.gatherer.gather()
    assert rows(world, TO_GATHER) == []
    assert len(evicted_names(world)) == 50


async def test_an_unmarked_directory_loses_nothing_any_more(cache: MemoryWorld) -> None:
    await cache.write(b"cache/f", b"x")
    mark(cache, b"cache", False)
    assert evicted_names(cache) == []
    assert rows(cache, FILES_BY_RANK) == []
    assert await cache.read(b"cache/f") == b"x"


async def test_an_open_file_is_passed_over_and_can_be_read(cache: MemoryWorld) -> None:
    await cache.write(b"cache/f", b"content")
    handle = await cache.filesystem.open(cache.ino(b"cache/f"), os.O_RDONLY, CALLER)
    assert evicted_names(cache) == []
    assert cache.filesystem.evictables.ask_again_s() is None
    assert cache.filesystem.read_nowait(handle, 0, 100) == b"content"
    cache.filesystem.release(handle)
    assert evicted_names(cache) == [b"f"]


async def test_a_file_that_was_just_made_or_written_is_left_alone_for_a_moment(cache: MemoryWorld) -> None:
    await cache.write(b"cache/f", b"x")
    assert evict(cache) == []
    assert cache.filesystem.evictables.ask_again_s() == ASK_AGAIN_S
    cache.clock.advance(10)
    await cache.write(b"cache/f", b"y")
    assert evict(cache) == []
    assert evicted_names(cache) == [b"f"]


async def test_a_file_with_two_names_stays_until_one_is_left(cache: MemoryWorld) -> None:
    await cache.write(b"cache/tmp", b"x")
    cache.filesystem.link(cache.ino(b"cache/tmp"), cache.ino(b"cache"), b"final")
    assert evicted_names(cache) == []
    cache.unlink(b"cache/tmp")
    assert evicted_names(cache) == [b"final"]


async def test_a_file_with_a_name_outside_stays(cache: MemoryWorld) -> None:
    await cache.write(b"cache/f", b"x")
    cache.filesystem.link(cache.ino(b"cache/f"), WORK, b"kept")
    assert evicted_names(cache) == []
    cache.unlink(b"cache/f")
    assert evicted_names(cache) == []
    assert await cache.read(b"kept") == b"x"


async def test_the_kernel_is_told_and_an_open_by_the_old_number_is_stale(cache: MemoryWorld) -> None:
    await cache.write(b"cache/f", b"x")
    ino = cache.ino(b"cache/f")
    cache.lookups.add(ino)
    cache.clock.advance(10)
    assert evict(cache) == [(cache.ino(b"cache"), b"f")]
    with pytest.raises(Stale):
        await cache.filesystem.open(ino, os.O_WRONLY | os.O_TRUNC, CALLER)
    await cache.write(b"cache/f", b"anew")
    assert await cache.read(b"cache/f") == b"anew"
    cache.lookups.drop(ino, 1)
    cache.filesystem.forgotten(ino)
    with pytest.raises(NotFound):
        cache.filesystem.getattr(ino)
    # So it is for the next daemon, if this one did not live to tell the kernel.
    with pytest.raises(Stale):
        await cache.filesystem.open(ino, os.O_WRONLY | os.O_TRUNC, CALLER)


async def test_what_is_evicted_gives_its_content_back_sealed_or_staged(cache: MemoryWorld) -> None:
    await cache.write(b"cache/sealed", b"1" * 1000)
    await cache.filesystem.seal_all()
    await cache.write(b"cache/staged", b"2" * 1000)
    cache.clock.advance(10)
    assert len(evict(cache)) == 2
    assert await freed(cache) == 1
    await cache.filesystem.seal_all()
    assert cache.staging_files() == []


async def test_files_of_an_attached_tree_give_their_content_back_one_by_one(cache: MemoryWorld) -> None:
    cache.mkdir(b"tree")
    cache.mkdir(b"tree/below")
    for number in range(40):
        await cache.write(b"tree/below/%02d" % number, b"%d" % number * 100)
    await cache.write(b"tree/top", b"top")
    cache.filesystem.link(cache.ino(b"tree/top"), cache.ino(b"tree/below"), b"linked")
    snapshot = (await cache.filesystem.snapshot(cache.ino(b"tree"))).snapshot
    cache.filesystem.discard(WORK, b"tree")
    first = cache.filesystem.attach(cache.ino(b"cache"), b"tree", snapshot)
    numbers = {name: cache.ino(b"cache/tree/below/" + name) for name in cache.names(b"cache/tree/below")}
    cache.unlink(b"cache/tree/below/00")
    assert findings(cache) == []
    await cache.filesystem.gatherer.gather()
    assert rows(cache, TO_GATHER) == []
    assert list(cache.vault.catalog.scan(Family.RANGE)) == []
    del numbers[b"00"]
    assert {name: cache.ino(b"cache/tree/below/" + name) for name in cache.names(b"cache/tree/below")} == numbers
    assert cache.ino(b"cache/tree") == first
    assert await cache.read(b"cache/tree/below/39") == b"39" * 100
    check(cache)
    await freed(cache)
    assert len(evicted_names(cache, 10)) == 10
    assert await freed(cache) == 10
    assert len(evicted_names(cache)) == 29
    assert await cache.read(b"cache/tree/top") == b"top"
    cache.unlink(b"cache/tree/top")
    assert evicted_names(cache) == [b"linked"]


async def test_what_was_moved_out_of_an_attached_tree_stays_whole_when_the_range_is_dissolved(
    cache: MemoryWorld,
) -> None:
    cache.mkdir(b"tree")
    cache.mkdir(b"tree/d")
    cache.mkdir(b"tree/d/e")
    await cache.write(b"tree/d/e/f", b"deep")
    await cache.write(b"tree/file", b"file")
    cache.filesystem.setxattr(cache.ino(b"tree/file"), b"user.a", b"1")
    cache.filesystem.setxattr(cache.ino(b"tree"), b"user.root", b"2")
    snapshot = (await cache.filesystem.snapshot(cache.ino(b"tree"))).snapshot
    cache.filesystem.attach(WORK, b"again", snapshot)
    cache.rename(b"again/d", b"d")
    cache.rename(b"again/file", b"file")
    cache.rename(b"again", b"cache/again")
    await cache.filesystem.gatherer.gather()
    assert list(cache.vault.catalog.scan(Family.RANGE)) == []
    assert await cache.read(b"d/e/f") == b"deep"
    assert cache.filesystem.getxattr(cache.ino(b"file"), b"user.a") == b"1"
    assert cache.filesystem.getxattr(cache.ino(b"cache/again"), b"user.root") == b"2"
    assert evicted_names(cache) == []


async def test_a_kill_at_any_moment_of_gathering_loses_nothing(world: MemoryWorld) -> None:
    world.mkdir(b"tree")
    for directory in (b"a", b"a/b", b"c"):
        world.mkdir(b"tree/" + directory)
        for number in range(20):
            await world.write(b"tree/%s/%d" % (directory, number), b"%d" % number)
    snapshot = (await world.filesystem.snapshot(world.ino(b"tree"))).snapshot
    mark(world, b"cache")
    world.filesystem.attach(world.ino(b"cache"), b"tree", snapshot)
    batches = 0
    while rows(world, TO_GATHER):
        batches += 1
        await until_killed(world, batches, world.filesystem.gatherer.gather)
        check(world)
        assert await world.read(b"cache/tree/a/b/19") == b"19"
        assert len(world.names(b"cache/tree/a")) == 21
    assert batches > 5
    assert len(evicted_names(world)) == 60
    check(world)


@pytest.mark.parametrize("removed", [b"cache/tree", b"cache/tree/a"])
@pytest.mark.parametrize("gathered", [2, 3, 5])
async def test_a_range_is_not_dissolved_while_a_part_of_it_is_half_swept(
    gathered: int, removed: bytes, tmp_path: Path
) -> None:
    for swept in range(1, 12):
        world = MemoryWorld(tmp_path / str(swept), settings=FilesystemSettings(sweep_slice=3))
        world.mkdir(b"tree")
        for directory in (b"a", b"a/b", b"c"):
            world.mkdir(b"tree/" + directory)
            for number in range(5):
                await world.write(b"tree/%s/%d" % (directory, number), b"%d" % number)
        snapshot = (await world.filesystem.snapshot(world.ino(b"tree"))).snapshot
        mark(world, b"cache")
        await world.filesystem.gatherer.gather()
        world.filesystem.attach(world.ino(b"cache"), b"tree", snapshot)
        await until_killed(world, gathered, world.filesystem.gatherer.gather)
        world.filesystem.discard(*world.place(removed))
        await until_killed(world, swept, world.filesystem.sweep)
        await world.filesystem.gatherer.gather()
        world.kill()
        assert await world.filesystem.sweep() == 0
        await world.filesystem.gatherer.gather()
        check(world)
        assert list(world.vault.catalog.scan(Family.RANGE)) == []
        await world.aclose()


async def until_killed(world: MemoryWorld, batches: int, work: Callable[[], Awaitable[object]]) -> None:
    """Let a work write so many batches, then kill."""
    with ended_after(world.vault.catalog, batches):
        await work()
    world.kill()


async def test_what_was_gone_through_or_evicted_is_not_searched_again(world: MemoryWorld) -> None:
    for place in (b"cache", *(b"cache/%d" % number for number in range(8))):
        world.mkdir(place)
        await world.write(place + b"/file", b"content")
    mark(world, b"cache")
    catalog = world.vault.catalog
    ends: list[bytes] = []
    starts: list[bytes] = []

    def last(family: Family, end: bytes) -> tuple[bytes, bytes] | None:
        ends.extend([end] if family is Family.USAGE else [])
        return CountingCatalog.last(catalog, family, end)

    def scan(family: Family, start: bytes = b"", end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        starts.extend([start] if family is Family.USAGE and start[:1] == FILES_BY_RANK else [])
        return CountingCatalog.scan(catalog, family, start, end)

    catalog.last, catalog.scan = last, scan  # type: ignore[method-assign]
    await world.filesystem.gatherer.gather()
    await world.filesystem.gatherer.gather()
    # Down from the greatest inode number, which the children of the directory have; then nothing is looked for.
    assert len(ends) == 10
    assert len(set(ends)) == 9
    assert ends[1:] == sorted(ends[1:], reverse=True)
    world.clock.advance(2 * QUIET_S)
    assert len(evict(world)) == 9
    assert starts == sorted(starts)
    assert len(set(starts[1:])) >= 9
    await world.write(b"cache/new", b"content")
    world.mkdir(b"other")
    world.mkdir(b"other/below")
    await world.write(b"other/file", b"content")
    world.rename(b"other", b"cache/moved")
    await world.filesystem.gatherer.gather()
    assert sorted(evicted_names(world)) == [b"file", b"new"]
    check(world)


async def test_only_directories_below_work_can_be_marked(world: MemoryWorld) -> None:
    await world.write(b"f", b"x")
    for ino in (WORK, KEYS, world.ino(b"f"), Ino(1)):
        with pytest.raises(NotMarkable):
            world.filesystem.evictables.mark(ino, True)


async def test_a_removed_marked_directory_leaves_nothing(world: MemoryWorld) -> None:
    mark(world, b"cache")
    await world.write(b"cache/f", b"x")
    mark(world, b"empty")
    world.filesystem.rmdir(WORK, b"empty")
    world.filesystem.discard(WORK, b"cache")
    await world.filesystem.sweep()
    await world.filesystem.gatherer.gather()
    assert [rows(world, kind) for kind in (FILES_BY_RANK, FILE, TO_GATHER, MARKED)] == [[], [], [], []]
    check(world)


async def test_a_policy_that_fails_does_not_keep_files_from_going(cache: MemoryWorld) -> None:
    cache.vault.entries.ranks.use(Ranking(Misbehaving(ValueError("no")), cache.clock), {})
    await cache.write(b"cache/f", b"x")
    assert evicted_names(cache) == [b"f"]


async def test_files_are_ranked_anew_for_another_policy(cache: MemoryWorld) -> None:
    for number in range(70):
        await cache.write(b"cache/%d" % number, b"x" * number)
    before = rows(cache, FILES_BY_RANK)
    cache.vault.entries.ranks.use(Ranking(PluginRegistry().eviction("lfu", {}), cache.clock), {})
    after = cache.filesystem.evictables.rank_some(None)
    while after is not None:
        after = cache.filesystem.evictables.rank_some(after)
    assert not set(before) & set(rows(cache, FILES_BY_RANK))
    assert len(evicted_names(cache)) == 70


async def test_a_row_that_stands_for_nothing_is_forgotten_when_it_is_met(cache: MemoryWorld) -> None:
    await cache.write(b"cache/f", b"x")
    evictables = cache.filesystem.evictables
    assert evictables.let_go(RankedFile(1.5, 4711)) == 0
    batch = Batch()
    for number in range(3):
        batch.put(Family.USAGE, FILES_BY_RANK + bytes(8) + number.to_bytes(8, "big"), b"")
    cache.vault.catalog.write(batch)
    assert evicted_names(cache) == [b"f"]
    assert rows(cache, FILES_BY_RANK) == []


@pytest.mark.parametrize("kind", [FILE, FILES_BY_RANK, MARKED])
async def test_fsck_makes_known_again_what_was_lost(cache: MemoryWorld, kind: bytes) -> None:
    for number in range(5):
        await cache.write(b"cache/%d" % number, b"x")
    batch = Batch()
    batch.delete_range(Family.USAGE, kind, kind + b"\xff" * 20)
    cache.vault.catalog.write(batch)
    assert findings(cache, repair=True) != []
    assert findings(cache) == []
    cache.kill()
    await cache.filesystem.gatherer.gather()
    assert len(evicted_names(cache)) == 5


async def test_fsck_removes_a_mark_that_no_directory_has(cache: MemoryWorld) -> None:
    cache.mkdir(b"ordinary")
    batch = Batch()
    batch.put(Family.USAGE, file_row(MARKED, cache.ino(b"ordinary")), b"")
    batch.put(Family.USAGE, FILE + b"short", b"")
    cache.vault.catalog.write(batch)
    assert len(findings(cache, repair=True)) == 2


PATHS = st.sampled_from([b"cache/a", b"cache/b", b"cache/d", b"cache/d/a", b"x", b"d", b"d/a", b"d/b", b"cache/d/e"])
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["write", "write", "mkdir", "rename", "rename", "exchange", "link", "unlink", "rmdir", "discard", "mark",
             "unmark", "gather", "evict", "evict one", "kill", "read", "attach", "seal"]
        ),
        PATHS, PATHS,
    ),
    min_size=5, max_size=40,
)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(STEPS)
def test_after_any_changes_of_names_every_evictable_file_can_go_and_no_other(
    steps: list[tuple[str, bytes, bytes]],
) -> None:
    async def play(home: Path) -> None:
        world = MemoryWorld(home)
        try:
            mark(world, b"cache")
            await world.write(b"origin", b"tree file")
            world.mkdir(b"source")
            world.mkdir(b"source/e")
            await world.write(b"source/a", b"a")
            await world.write(b"source/e/b", b"b")
            for step in steps:
                world.clock.advance(0.3)
                ordinary = {path for path in await contents(world) if not covered(world, path)}
                with_content = {path: await world.read(path) for path in ordinary}
                with suppress(PosixError, NotMarkable):
                    await play_one(world, *step)
                if step[0].startswith("evict"):
                    assert {path: await world.read(path) for path in ordinary} == with_content
                assert findings(world) == []
            await world.filesystem.gatherer.gather()
            check(world)
            evicted_names(world)
            left = [path for path in await contents(world) if covered(world, path)]
            assert all(world.stat(path).nlink > 1 for path in left)
            check(world)
        finally:
            await world.aclose()

    with TemporaryDirectory() as home:
        trio.run(play, Path(home))


def covered(world: MemoryWorld, path: bytes) -> bool:
    above = world.ino(path.rpartition(b"/")[0])
    return world.filesystem.evictables.is_evictable(above, above)


async def contents(world: MemoryWorld) -> list[bytes]:
    """Return the paths of all files."""
    found, waiting = [], [b""]
    while waiting:
        above = waiting.pop()
        for name in world.names(above):
            path = above + b"/" + name if above else name
            if world.stat(path).mode & 0o040000:
                waiting.append(path)
            else:
                found.append(path)
    return found


async def play_one(world: MemoryWorld, what: str, path: bytes, other: bytes) -> None:
    filesystem = world.filesystem
    match what:
        case "write":
            await world.write(path, other)
        case "mkdir":
            world.mkdir(path)
        case "rename":
            world.rename(path, other)
        case "exchange":
            world.rename(path, other, RENAME_EXCHANGE)
        case "link":
            filesystem.link(world.ino(path), *world.place(other))
        case "unlink":
            world.unlink(path)
        case "rmdir":
            filesystem.rmdir(*world.place(path))
        case "discard":
            filesystem.discard(*world.place(path))
            await filesystem.sweep()
        case "mark" | "unmark":
            filesystem.evictables.mark(world.ino(path), what == "mark")
        case "gather":
            await filesystem.gatherer.gather()
        case "evict":
            evicted_names(world)
        case "evict one":
            evicted_names(world, 1)
        case "kill":
            world.kill()
        case "read":
            await world.read(path)
        case "seal":
            await filesystem.seal_all()
        case "attach":
            snapshot = (await filesystem.snapshot(world.ino(b"source"))).snapshot
            filesystem.attach(*world.place(path), snapshot)


async def test_a_removed_tree_gives_back_what_it_was_attached_with_though_parts_of_it_were_moved(
    world: MemoryWorld,
) -> None:
    world.mkdir(b"tree")
    world.mkdir(b"tree/d")
    await world.write(b"tree/d/moved", b"moved")
    await world.write(b"tree/one", b"linked")
    await world.write(b"tree/other", b"other")
    world.filesystem.link(world.ino(b"tree/one"), world.ino(b"tree"), b"two")
    snapshot = (await world.filesystem.snapshot(world.ino(b"tree"))).snapshot
    world.filesystem.attach(WORK, b"again", snapshot)
    world.filesystem.discard(WORK, b"tree")
    world.rename(b"again/d", b"d")
    world.filesystem.discard(WORK, b"again")
    await world.filesystem.sweep()
    check(world)
    world.kill()
    check(world)
    await world.filesystem.gatherer.gather()
    assert list(world.vault.catalog.scan(Family.RANGE)) == []
    check(world)
    assert await freed(world) > 0
    assert await world.read(b"d/moved") == b"moved"


async def test_a_directory_of_an_attached_tree_is_an_ordinary_one_after_gathering(cache: MemoryWorld) -> None:
    cache.mkdir(b"tree")
    await cache.write(b"tree/f", b"x")
    snapshot = (await cache.filesystem.snapshot(cache.ino(b"tree"))).snapshot
    cache.filesystem.attach(WORK, b"attached", snapshot)
    listed = cache.ino(b"attached")
    cookies = [entry.next_cookie for entry in cache.filesystem.readdir(listed, 0)]
    mark(cache, b"attached")
    await cache.filesystem.gatherer.gather()
    assert list(cache.filesystem.readdir(listed, cookies[0])) == []
    cache.filesystem._listings._recent.clear()
    assert list(cache.filesystem.readdir(listed, cookies[0])) == [], "its cookie is what it was"
    again = (await cache.filesystem.snapshot(cache.ino(b"attached"))).snapshot
    assert again.tree == snapshot.tree
    assert NO_HASH not in (again.index, snapshot.index)
