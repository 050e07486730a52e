from __future__ import annotations

import os

import pytest
import trio
import trio.testing

from tvfs.catalog.catalog import Batch
from tvfs.content.snapshot import Snapshot
from tvfs.filesystem import posix_error as refused
from tvfs.filesystem.model import KEYS, PREPARED, RENAME_EXCHANGE, WORK, AttributeChanges, Handle
from tvfs.filesystem.snapshots import CLOSING_PATIENCE_S, OpenForWriting
from tvfs.testing.memory_vault import CALLER, MemoryWorld


async def tree(world: MemoryWorld, path: bytes, prefix: bytes = b"") -> dict[bytes, object]:
    """Everything below a directory: what it is and holds, inode numbers left out."""
    found: dict[bytes, object] = {}
    for name in world.names(path):
        at = path + b"/" + name if path else name
        seen = world.stat(at)
        if seen.mode & 0o40000:
            found[prefix + name] = (seen.mode, seen.uid, seen.nlink, seen.mtime_ns)
            found |= await tree(world, at, prefix + name + b"/")
        elif seen.mode & 0o170000 == 0o120000:
            found[prefix + name] = world.filesystem.readlink(world.ino(at))
        else:
            found[prefix + name] = (seen.mode, seen.uid, seen.nlink, seen.mtime_ns, await world.read(at))
    return found


async def saved(world: MemoryWorld) -> Snapshot:
    """A tree with a bit of everything."""
    world.mkdir(b"src")
    for number in range(300):
        await world.write(b"src/%03d" % number, b"%d" % number)
    world.mkdir(b"src/deep")
    world.mkdir(b"src/deep/er")
    await world.write(b"src/deep/er/big", os.urandom(500_000))
    await world.write(b"src/deep/script", b"#!")
    await world.filesystem.setattr(world.ino(b"src/deep/script"), AttributeChanges(mode=0o755, mtime_ns=77), CALLER)
    world.filesystem.symlink(world.ino(b"src"), b"link", b"deep/er", CALLER)
    world.filesystem.link(world.ino(b"src/deep/script"), world.ino(b"src"), b"same")
    return (await world.filesystem.snapshot(world.ino(b"src"))).snapshot


async def test_what_is_attached_is_what_was_saved(world: MemoryWorld) -> None:
    snapshot = await saved(world)
    world.clock.advance(100)
    world.filesystem.attach(WORK, b"copy", snapshot)
    assert await tree(world, b"copy") == await tree(world, b"src")
    assert world.ino(b"copy/same") == world.ino(b"copy/deep/script")
    world.kill()
    assert await tree(world, b"copy") == await tree(world, b"src")


async def test_an_attached_tree_unchanged_is_the_same_snapshot_without_being_walked(world: MemoryWorld) -> None:
    world.mkdir(b"src")
    await world.write(b"src/f", b"x")
    snapshot = (await world.filesystem.snapshot(world.ino(b"src"))).snapshot
    ino = world.filesystem.attach(WORK, b"copy", snapshot)
    packs = world.vault.usage.report().packs
    assert (await world.filesystem.snapshot(ino)).snapshot == snapshot
    assert world.vault.usage.report().packs == packs


async def test_hard_links_make_the_same_snapshot_again(world: MemoryWorld) -> None:
    snapshot = await saved(world)
    ino = world.filesystem.attach(WORK, b"copy", snapshot)
    assert (await world.filesystem.snapshot(ino)).snapshot == snapshot


async def test_attaching_writes_a_few_rows_whatever_the_size(world: MemoryWorld) -> None:
    written: list[Batch] = []
    write = world.catalog.write

    def spy(batch: Batch) -> None:
        written.append(batch)
        write(batch)

    world.catalog.write = spy  # type: ignore[method-assign]
    sizes = []
    for count in (1, 2000):
        directory = b"%d" % count
        world.mkdir(directory)
        for number in range(count):
            await world.write(directory + b"/%d" % number, b"x")
        snapshot = (await world.filesystem.snapshot(world.ino(directory))).snapshot
        before = len(written)
        world.filesystem.attach(WORK, b"copy" + directory, snapshot)
        # The counter of inode numbers may have been written ahead.
        sizes.append([len(batch) for batch in written[before:] if len(batch) > 1])
    assert sizes == [[5], [5]]


async def test_changes_below_an_attached_tree_leave_the_saved_one_alone(world: MemoryWorld) -> None:
    snapshot = await saved(world)
    before = await tree(world, b"src")
    world.filesystem.attach(WORK, b"a", snapshot)
    world.filesystem.attach(WORK, b"b", snapshot)
    await world.write(b"a/deep/er/big", b"changed", offset=1000)
    world.unlink(b"a/000")
    await world.write(b"a/000", b"again")
    world.unlink(b"a/001")
    world.rename(b"a/002", b"a/deep/002")
    world.rename(b"a/deep", b"a/DEEP")
    await world.write(b"a/new", b"new")
    assert await tree(world, b"b") == before
    world.kill()
    assert await tree(world, b"b") == before
    assert await world.read(b"a/000") == b"again"
    assert not world.exists(b"a/001")
    assert await world.read(b"a/DEEP/002") == b"2"
    assert (await world.read(b"a/DEEP/er/big"))[1000:1007] == b"changed"
    changed = (await world.filesystem.snapshot(world.ino(b"a"))).snapshot
    world.filesystem.attach(WORK, b"c", changed)
    assert await tree(world, b"c") == await tree(world, b"a")


async def test_numbers_of_attached_files_stay_when_they_change_and_across_starts(world: MemoryWorld) -> None:
    snapshot = await saved(world)
    world.filesystem.attach(WORK, b"a", snapshot)
    before = {name: world.ino(b"a/" + name) for name in (b"000", b"deep", b"deep/er/big")}
    await world.write(b"a/deep/er/big", b"x")
    world.kill()
    assert {name: world.ino(b"a/" + name) for name in before} == before
    for ino in before.values():
        assert world.filesystem.getattr(ino).ino == ino


async def test_what_is_attached_is_born_then_and_stays_so(world: MemoryWorld) -> None:
    snapshot = await saved(world)
    made_ns = world.stat(b"src/000").born_ns
    world.clock.advance(100)
    world.filesystem.attach(WORK, b"copy", snapshot)
    attached_ns = world.stat(b"copy").born_ns
    assert attached_ns > made_ns > 0
    world.clock.advance(100)
    await world.write(b"copy/deep/er/big", b"x")
    world.kill()
    for name in (b"", b"/000", b"/deep", b"/deep/er/big", b"/link"):
        assert world.stat(b"copy" + name).born_ns == attached_ns


async def test_a_merged_listing_has_every_name_once_and_in_order(world: MemoryWorld) -> None:
    world.filesystem.attach(WORK, b"a", await saved(world))
    for name in (b"0005", b"zz", b"!"):
        await world.write(b"a/" + name, b"")
    world.unlink(b"a/004")
    world.unlink(b"a/005")
    await world.write(b"a/005", b"")
    expected = sorted({*(b"%03d" % n for n in range(300)), b"0005", b"zz", b"!", b"deep", b"link", b"same"} - {b"004"})
    listed = world.ino(b"a")
    names: list[bytes] = []
    cookie = 0
    while part := [entry for entry, _ in zip(world.filesystem.readdir(listed, cookie), range(7), strict=False)]:
        names += [entry.name for entry in part]
        cookie = part[-1].next_cookie
    assert names == expected


async def test_read_only_trees_refuse_every_change(world: MemoryWorld) -> None:
    snapshot = await saved(world)
    scope = world.filesystem.ensure_directory(KEYS, b"main")
    ino = world.filesystem.attach(scope, b"key", snapshot, read_only=True)
    file = world.filesystem.resolve(b"deep/script", ino)
    with pytest.raises(refused.ReadOnly):
        world.filesystem.unlink(ino, b"000")
    with pytest.raises(refused.ReadOnly):
        world.filesystem.mkdir(ino, b"x", 0o755, CALLER)
    with pytest.raises(refused.ReadOnly):
        world.filesystem.link(file, WORK, b"x")
    with pytest.raises(refused.ReadOnly):
        await world.filesystem.open(file, os.O_RDWR, CALLER)
    with pytest.raises(refused.ReadOnly):
        await world.filesystem.setattr(file, AttributeChanges(mode=0o600), CALLER)
    with pytest.raises(refused.ReadOnly):
        world.filesystem.rename(ino, b"000", WORK, b"000", 0)
    assert world.filesystem.attribute_timeout_s(scope) == 0
    assert world.filesystem.attribute_timeout_s(ino) > 0


async def test_a_part_of_a_tree_can_be_attached(world: MemoryWorld) -> None:
    snapshot = await saved(world)
    world.filesystem.attach(WORK, b"part", snapshot, subpath="deep/er")
    assert world.names(b"part") == [b"big"]
    world.filesystem.attach(WORK, b"file", snapshot, subpath="007", owner=(5, 6))
    assert (await world.read(b"file"), world.stat(b"file").uid) == (b"7", 5)
    with pytest.raises(refused.NotFound):
        world.filesystem.attach(WORK, b"none", snapshot, subpath="deep/none")
    with pytest.raises(refused.Exists):
        world.filesystem.attach(WORK, b"part", snapshot)


async def test_an_owner_can_be_given_to_everything_attached(world: MemoryWorld) -> None:
    snapshot = await saved(world)
    world.filesystem.attach(WORK, b"mine", snapshot, owner=(7, 8))
    assert {world.stat(path).uid for path in (b"mine", b"mine/000", b"mine/deep/er/big", b"mine/same")} == {7}


async def test_a_prepared_tree_is_published_by_rename_or_exchange(world: MemoryWorld) -> None:
    snapshot = await saved(world)
    world.filesystem.attach(PREPARED, b"1", snapshot)
    world.filesystem.rename(PREPARED, b"1", WORK, b"out", 0)
    world.filesystem.attach(PREPARED, b"2", snapshot)
    world.filesystem.rename(PREPARED, b"2", WORK, b"out", RENAME_EXCHANGE)
    assert await tree(world, b"out") == await tree(world, b"src")
    assert world.filesystem.resolve(b".taskvault/2/deep") is not None
    world.kill()
    await world.filesystem.sweep()
    assert world.filesystem.getattr(PREPARED).mode
    with pytest.raises(refused.NotFound):
        world.filesystem.resolve(b".taskvault/2")
    assert await tree(world, b"out") == await tree(world, b"src")


async def test_a_snapshot_names_files_that_are_open_for_writing(
    world: MemoryWorld, autojump_clock: trio.testing.MockClock
) -> None:
    world.mkdir(b"d")
    await world.write(b"d/f", b"arrived")
    handle = await world.filesystem.open(world.ino(b"d/f"), os.O_WRONLY, CALLER)
    with pytest.raises(OpenForWriting) as caught:
        await world.filesystem.snapshot(world.ino(b"d"))
    assert caught.value.paths == [b"f"]
    outcome = await world.filesystem.snapshot(world.ino(b"d"), allow_open=True)
    assert outcome.open_for_writing == [b"f"]
    world.filesystem.release(handle)
    world.filesystem.attach(WORK, b"copy", outcome.snapshot)
    assert await world.read(b"copy/f") == b"arrived"


class Taking:
    """A snapshot of `d` that is being taken, on a clock that stands still."""

    def __init__(self, world: MemoryWorld, nursery: trio.Nursery, *paths: bytes) -> None:
        self.taken: list[Snapshot] = []
        self.refused: list[Exception] = []

        async def take() -> None:
            try:
                outcome = await world.filesystem.snapshot(world.ino(b"d"), paths=paths or None)
                self.taken.append(outcome.snapshot)
            except (OpenForWriting, refused.NotFound) as exc:
                self.refused.append(exc)

        nursery.start_soon(take)


@pytest.fixture
async def with_two_files(world: MemoryWorld) -> None:
    world.mkdir(b"d")
    await world.write(b"d/f", b"before")
    await world.write(b"d/g", b"same")


async def opened(world: MemoryWorld, *paths: bytes) -> list[Handle]:
    return [await world.filesystem.open(world.ino(path), os.O_WRONLY, CALLER) for path in paths]


async def test_a_snapshot_waits_for_closes_that_are_on_their_way(
    world: MemoryWorld, with_two_files: None, mock_clock: trio.testing.MockClock
) -> None:
    both = await opened(world, b"d/f", b"d/g")
    await world.write_to(both[0], 0, b"after!")
    async with trio.open_nursery() as nursery:
        taking = Taking(world, nursery)
        for handle in both:
            await trio.testing.wait_all_tasks_blocked()
            assert not taking.taken, "one is open still"
            world.filesystem.release(handle)
    world.filesystem.attach(WORK, b"copy", taking.taken[0])
    assert await world.read(b"copy/f") == b"after!"


async def test_a_snapshot_waits_for_what_is_opened_while_it_waits_but_not_for_ever(
    world: MemoryWorld, with_two_files: None, mock_clock: trio.testing.MockClock
) -> None:
    (handle,) = await opened(world, b"d/f")
    async with trio.open_nursery() as nursery:
        taking = Taking(world, nursery)
        for path in (b"d/g", b"d/f", b"d/g"):
            await trio.testing.wait_all_tasks_blocked()
            (other,) = await opened(world, path)
            world.filesystem.release(handle)
            handle = other
            mock_clock.jump(CLOSING_PATIENCE_S / 4)
            assert not taking.taken + taking.refused
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(CLOSING_PATIENCE_S / 2)
    assert [str(exc) for exc in taking.refused] == [
        "Still open for writing: 'g'; close them first, or allow open files."
    ]
    world.filesystem.release(handle)


async def test_what_is_wanted_and_goes_while_a_snapshot_waits_is_missed(
    world: MemoryWorld, with_two_files: None, mock_clock: trio.testing.MockClock
) -> None:
    (handle,) = await opened(world, b"d/f")
    async with trio.open_nursery() as nursery:
        taking = Taking(world, nursery, b"f", b"g")
        await trio.testing.wait_all_tasks_blocked()
        world.unlink(b"d/g")
        world.filesystem.release(handle)
    assert [str(exc) for exc in taking.refused] == ["There is no 'g' to take a snapshot of."]


async def test_an_unchanged_tree_with_a_file_open_for_writing_is_not_taken_for_unchanged(
    world: MemoryWorld, autojump_clock: trio.testing.MockClock
) -> None:
    world.filesystem.attach(WORK, b"a", await saved(world))
    handle = await world.filesystem.open(world.ino(b"a/deep/er/big"), os.O_WRONLY, CALLER)
    with pytest.raises(OpenForWriting):
        await world.filesystem.snapshot(world.ino(b"a"))
    world.filesystem.release(handle)


async def test_a_snapshot_takes_only_the_paths_that_are_wanted(world: MemoryWorld) -> None:
    await saved(world)
    src = world.ino(b"src")
    outcome = await world.filesystem.snapshot(src, paths=[b"deep", b"007"], excluded=[b"deep/er"])
    world.filesystem.attach(WORK, b"part", outcome.snapshot)
    assert sorted(await tree(world, b"part")) == [b"007", b"deep", b"deep/script"]
    with pytest.raises(refused.NotFound):
        await world.filesystem.snapshot(src, paths=[b"nowhere"])


async def test_extended_attributes_travel_with_a_tree(world: MemoryWorld) -> None:
    world.mkdir(b"src")
    await world.write(b"src/f", b"")
    world.filesystem.setxattr(world.ino(b"src/f"), b"user.a", b"1")
    world.filesystem.setxattr(world.ino(b"src"), b"user.d", b"2")
    snapshot = (await world.filesystem.snapshot(world.ino(b"src"))).snapshot
    world.filesystem.attach(WORK, b"copy", snapshot)
    file = world.ino(b"copy/f")
    assert world.filesystem.getxattr(file, b"user.a") == b"1"
    assert world.filesystem.listxattr(world.ino(b"copy")) == [b"user.d"]
    world.filesystem.setxattr(file, b"user.b", b"3")
    assert world.filesystem.listxattr(file) == [b"user.a", b"user.b"]
    world.filesystem.removexattr(file, b"user.a")
    with pytest.raises(refused.NoAttribute):
        world.filesystem.getxattr(file, b"user.a")
    assert world.filesystem.listxattr(world.ino(b"src/f")) == [b"user.a"]
