from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import trio

from tvfs import failpoints
from tvfs.filesystem.model import WORK
from tvfs.filesystem.posix_error import NotFound
from tvfs.filesystem.settings import FilesystemSettings
from tvfs.testing.memory_vault import CALLER, MemoryWorld


async def test_a_file_is_sealed_when_it_has_rested(world: MemoryWorld) -> None:
    await world.write(b"f", b"x")
    assert await world.filesystem.seal_idle() == 0
    world.clock.advance(FilesystemSettings().seal_idle_s)
    assert await world.filesystem.seal_idle() == 1
    assert (world.filesystem.staged_files(), world.staging_files()) == (0, [])
    assert await world.read(b"f") == b"x"


async def test_a_file_that_is_open_for_writing_waits(world: MemoryWorld) -> None:
    await world.write(b"f", b"x")
    handle = await world.filesystem.open(world.ino(b"f"), os.O_WRONLY, CALLER)
    assert await world.filesystem.seal_all() == 0
    world.filesystem.release(handle)
    assert await world.filesystem.seal_all() == 1


async def test_a_file_that_is_sealed_in_vain_waits_longer_each_time(world: MemoryWorld) -> None:
    for wait_s in (1, 2, 4):
        await world.write(b"f", b"x")
        world.clock.advance(wait_s - 0.1)
        assert await world.filesystem.seal_idle() == 0
        world.clock.advance(0.1)
        assert await world.filesystem.seal_idle() == 1


async def test_a_write_while_a_file_is_sealed_is_kept(world: MemoryWorld) -> None:
    await world.write(b"f", b"old" * 1000)
    ino = world.ino(b"f")

    def write_now() -> None:
        # Reached in the sealing thread, before the file is read: a write from the owner comes in between.
        trio.from_thread.run(world.write, b"f", b"new" * 1000)

    failpoints.arm("seal.append", write_now)
    assert await world.filesystem.seal_all() == 0
    failpoints.disarm_all()
    assert await world.read_inode(ino) == b"new" * 1000
    assert await world.filesystem.seal_all() == 1
    assert await world.read(b"f") == b"new" * 1000


async def test_a_file_that_is_removed_while_it_is_sealed_stays_removed(world: MemoryWorld) -> None:
    await world.write(b"f", b"x" * 1000)
    ino = world.ino(b"f")
    failpoints.arm("seal.append", lambda: trio.from_thread.run_sync(world.unlink, b"f"))
    await world.filesystem.seal_all()
    failpoints.disarm_all()
    with pytest.raises(NotFound):
        world.filesystem.getattr(ino)
    await world.filesystem.seal_all()
    assert world.staging_files() == []


async def test_when_sealing_fails_files_stay_staged_and_it_is_tried_again(
    world: MemoryWorld, expect_log: Callable[[str], None]
) -> None:
    expect_log("sealing is tried again")
    await world.write(b"f", b"x" * 1000)
    world.clock.advance(2)
    failpoints.arm("commit.before_append", failpoints.ACTIONS["enospc"])
    assert await world.filesystem.seal_idle() == 0
    world.clock.advance(100)
    assert await world.filesystem.seal_idle() == 0
    failpoints.disarm_all()
    assert await world.read(b"f") == b"x" * 1000
    world.clock.advance(100)
    assert await world.filesystem.seal_idle() == 1
    assert await world.read(b"f") == b"x" * 1000


async def test_a_kill_after_the_batch_finds_the_sealed_file(world: MemoryWorld) -> None:
    await world.write(b"f", b"x" * 100_000)

    class Killed(BaseException):
        pass

    def die() -> None:
        raise Killed

    failpoints.arm("seal.before_unlink", die)
    with pytest.raises(Killed):
        await world.filesystem.seal_all()
    failpoints.disarm_all()
    assert world.staging_files() != []
    world.kill()
    assert world.staging_files() == []
    assert await world.read(b"f") == b"x" * 100_000


async def test_equal_files_are_stored_once(world: MemoryWorld) -> None:
    for number in range(50):
        await world.write(b"%d" % number, b"the same" * 5000)
    await world.filesystem.seal_all()
    assert len(list(world.vault.chunks.scan())) == 1


async def test_many_files_share_packs_also_across_batches(world: MemoryWorld) -> None:
    for number in range(10):
        await world.write(b"%d" % number, b"%d" % number * 1000)
        await world.filesystem.seal_all()
    assert len(world.vault.packs.numbers()) == 1


async def test_an_orphan_is_not_sealed(world: MemoryWorld) -> None:
    handle, found = await world.filesystem.create(WORK, b"f", 0o600, os.O_RDWR, CALLER)
    world.filesystem.write_nowait(handle, 0, b"x")
    world.lookups.add(found.attributes.ino)
    world.unlink(b"f")
    world.filesystem.release(handle)
    assert await world.filesystem.seal_all() == 0
    assert await world.read_inode(found.attributes.ino) == b"x"
