from __future__ import annotations

import pytest
import trio

from tvfs.catalog.catalog import Family
from tvfs.content.snapshot import Snapshot
from tvfs.filesystem.model import FIRST_FREE, KEYS, WORK
from tvfs.filesystem.posix_error import NotFound
from tvfs.testing.memory_vault import MemoryWorld


async def attached(world: MemoryWorld) -> Snapshot:
    world.mkdir(b"src")
    for number in range(600):
        await world.write(b"src/%d" % number, b"x")
    world.mkdir(b"src/sub")
    await world.write(b"src/sub/f", b"sub")
    snapshot = (await world.filesystem.snapshot(world.ino(b"src"))).snapshot
    world.filesystem.discard(WORK, b"src")
    assert await world.filesystem.sweep() == 0
    world.filesystem.attach(WORK, b"a", snapshot)
    return snapshot


def rows(world: MemoryWorld) -> dict[str, int]:
    """How many rows there are of what is not fixed."""
    start = FIRST_FREE.to_bytes(8, "big")
    families = (Family.INODE, Family.DIRENT, Family.RANGE, Family.XATTR, Family.STAGING, Family.ORPHAN)
    return {family.value: len(list(world.catalog.scan(family, start))) for family in families}


EMPTY = {"inode": 0, "dirent": 0, "range": 0, "xattr": 0, "staging": 0, "orphan": 0}


async def test_discarding_a_tree_is_one_step_and_sweeping_leaves_nothing(world: MemoryWorld) -> None:
    await attached(world)
    await world.write(b"a/1", b"changed")
    world.mkdir(b"a/sub/mine")
    await world.write(b"a/sub/mine/too", b"x")
    world.unlink(b"a/2")
    world.filesystem.setxattr(world.ino(b"a/3"), b"user.x", b"1")
    world.filesystem.discard(WORK, b"a")
    assert world.names(b"") == []
    assert await world.filesystem.sweep() == 0
    assert rows(world) == EMPTY
    await world.filesystem.seal_all()
    assert world.staging_files() == []
    assert (world.stat(b"").nlink, world.filesystem.getattr(WORK).nlink) == (2, 2)


async def test_what_was_moved_out_of_a_tree_survives_it(world: MemoryWorld) -> None:
    await attached(world)
    world.rename(b"a/sub", b"saved")
    world.rename(b"a/7", b"seven")
    world.filesystem.link(world.ino(b"a/8"), WORK, b"eight")
    world.filesystem.discard(WORK, b"a")
    assert await world.filesystem.sweep() == 0
    world.kill()
    assert await world.read(b"saved/f") == b"sub"
    assert (await world.read(b"seven"), await world.read(b"eight")) == (b"x", b"x")
    assert world.stat(b"eight").nlink == 1
    assert world.names(b"") == [b"eight", b"saved", b"seven"]


async def test_a_file_with_a_name_outside_keeps_its_tree_from_being_removed_wholesale(world: MemoryWorld) -> None:
    await attached(world)
    world.filesystem.link(world.ino(b"a/8"), WORK, b"eight")
    world.filesystem.discard(WORK, b"a")
    assert await world.filesystem.sweep() == 0
    world.kill()
    assert (await world.read(b"eight"), world.stat(b"eight").nlink) == (b"x", 1)


async def test_a_part_of_a_tree_is_swept_and_the_rest_stays(world: MemoryWorld) -> None:
    await attached(world)
    await world.write(b"a/sub/f", b"changed")
    world.filesystem.discard(world.ino(b"a"), b"sub")
    assert await world.filesystem.sweep() == 0
    assert not world.exists(b"a/sub")
    assert await world.read(b"a/599") == b"x"
    world.filesystem.discard(WORK, b"a")
    assert await world.filesystem.sweep() == 0
    assert rows(world) == EMPTY


async def test_a_part_that_is_in_the_trash_when_its_tree_goes_is_swept_too(world: MemoryWorld) -> None:
    await attached(world)
    world.filesystem.discard(world.ino(b"a"), b"sub")
    world.filesystem.discard(WORK, b"a")
    assert await world.filesystem.sweep() == 0
    assert rows(world) == EMPTY


async def test_a_part_that_is_in_the_trash_when_its_tree_is_removed_name_by_name_is_swept_too(
    world: MemoryWorld,
) -> None:
    world.mkdir(b"src")
    for path in (b"src/sub", b"src/sub/deeper"):
        world.mkdir(path)
        await world.write(path + b"/file", b"x")
    snapshot = (await world.filesystem.snapshot(world.ino(b"src"))).snapshot
    world.filesystem.discard(WORK, b"src")
    world.filesystem.attach(WORK, b"a", snapshot)
    world.filesystem.discard(world.ino(b"a"), b"sub")
    for name in world.names(b"a"):
        world.unlink(b"a/" + name)
    world.filesystem.rmdir(WORK, b"a")
    world.kill()
    assert await world.filesystem.sweep() == 0
    await world.filesystem.gatherer.gather()
    assert rows(world) == EMPTY


async def test_what_is_in_use_stays_until_it_is_not(world: MemoryWorld) -> None:
    await attached(world)
    ino = world.ino(b"a/sub/f")
    world.lookups.add(ino)
    world.filesystem.discard(WORK, b"a")
    assert await world.filesystem.sweep() == 1
    assert await world.read_inode(ino) == b"sub"
    world.lookups.drop(ino, 1)
    world.filesystem.forgotten(ino)
    assert await world.filesystem.sweep() == 0
    assert rows(world) == EMPTY


async def test_a_kill_in_the_middle_of_a_sweep_is_made_up_for(world: MemoryWorld) -> None:
    await attached(world)
    world.mkdir(b"plain")
    for number in range(600):
        await world.write(b"plain/%d" % number, b"x")
    world.filesystem.discard(WORK, b"plain")
    world.filesystem.discard(WORK, b"a")
    world.kill()
    assert await world.filesystem.sweep() == 0
    assert rows(world) == EMPTY


async def test_removal_by_the_owner_works_in_read_only_places(world: MemoryWorld) -> None:
    snapshot = await attached(world)
    scope = world.filesystem.ensure_directory(KEYS, b"main")
    world.filesystem.attach(scope, b"key", snapshot, read_only=True)
    world.filesystem.discard(scope, b"key")
    with pytest.raises(NotFound):
        world.filesystem.resolve(b"key", scope)
    with pytest.raises(NotFound):
        world.filesystem.discard(scope, b"key")


async def test_a_sweep_that_is_given_up_while_it_lists_the_trash_leaves_nothing_for_ever(world: MemoryWorld) -> None:
    snapshot = await attached(world)
    for number in range(3 * world.settings.sweep_slice):
        world.filesystem.attach(WORK, b"%d" % number, snapshot)
        world.filesystem.discard(WORK, b"%d" % number)
    world.filesystem.discard(WORK, b"a")
    world.kill()
    with trio.CancelScope() as given_up:  # whoever waited for room has gone

        def requests() -> int:
            given_up.cancel()
            return 0

        world.vault.slices.requests = requests
        await world.filesystem.sweep()
    assert given_up.cancelled_caught
    assert await world.filesystem.sweep() == 0
    assert rows(world) == EMPTY
