"""Copies of what is read often: exact, bounded, counted, the first to go, and in step with whoever writes."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tvfs.filesystem.hot_files import is_unused
from tvfs.filesystem.model import WORK, Handle, Ino
from tvfs.filesystem.settings import FilesystemSettings
from tvfs.testing.memory_vault import CALLER, MemoryWorld

KIB = 1 << 10
SETTINGS = FilesystemSettings(hot_files=True, hot_least_bytes=64 * KIB, seal_idle_s=0.0)


def content(length: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(length)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[MemoryWorld]:
    world = MemoryWorld(tmp_path, settings=SETTINGS)
    try:
        yield world
    finally:
        await world.aclose()


def copies(world: MemoryWorld) -> list[Path]:
    directory = world.vault.layout.hot
    return sorted(directory.iterdir()) if directory.is_dir() else []


def opened(world: MemoryWorld, name: bytes, flags: int = os.O_RDONLY) -> Handle:
    handle = world.filesystem.open_nowait(world.ino(name), flags, CALLER)
    assert handle is not None
    return handle


@contextmanager
def direct(world: MemoryWorld, name: bytes) -> Iterator[int | None]:
    """Do what a transport does that opens a file past the daemon; yields the descriptor as the kernel keeps it."""
    handle = opened(world, name)
    descriptor = world.filesystem.begin_direct(handle)
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)
            world.filesystem.end_direct(world.ino(name))
        world.filesystem.release(handle)


async def hot(world: MemoryWorld, name: bytes, whole: bytes) -> None:
    """Have a sealed file with a copy."""
    await world.write(name, whole)
    await world.filesystem.seal_all()
    for _ in range(2):
        with direct(world, name) as descriptor:
            assert descriptor is None
    await world.filesystem._hot.copy_wanted()


async def test_the_second_open_makes_a_copy_that_is_the_content(world: MemoryWorld) -> None:
    whole = content(300 * KIB)
    await hot(world, b"f", whole)
    [copy] = copies(world)
    assert copy.read_bytes() == whole
    assert copy.stat().st_mode & 0o777 == 0o600
    with direct(world, b"f") as descriptor:
        assert descriptor is not None
        assert os.pread(descriptor, 1 << 20, 0) == whole


async def test_short_files_staged_files_and_files_being_written_have_none(world: MemoryWorld) -> None:
    await world.write(b"short", content(10 * KIB))
    await world.filesystem.seal_all()
    await world.write(b"staged", content(100 * KIB))
    for name in (b"short", b"staged") * 3:
        with direct(world, name) as descriptor:
            assert descriptor is None
    await world.filesystem._hot.copy_wanted()
    assert copies(world) == []
    await hot(world, b"f", content(100 * KIB))
    writer = opened(world, b"f", os.O_RDWR)
    with direct(world, b"f") as descriptor:
        assert descriptor is None
    world.filesystem.release(writer)


async def test_copies_are_counted_and_go_when_room_is_wanted(world: MemoryWorld) -> None:
    before = world.vault.usage.report()
    await hot(world, b"f", content(300 * KIB))
    used = world.vault.usage.report()
    assert used.hot == copies(world)[0].stat().st_blocks * 512
    assert used.total - before.total >= used.hot
    with direct(world, b"f"):
        assert world.filesystem.drop_copies(1) == 0
    assert world.filesystem.drop_copies(1) == used.hot
    assert copies(world) == []
    assert world.vault.usage.report().hot == 0


async def test_a_copy_that_is_still_mapped_stays(world: MemoryWorld) -> None:
    await hot(world, b"f", content(100 * KIB))
    with direct(world, b"f") as descriptor:
        assert descriptor is not None
        mapped = os.dup(descriptor)
    assert world.filesystem.drop_copies(1) == 0
    os.close(mapped)
    assert world.filesystem.drop_copies(1) > 0


async def test_copies_take_no_more_than_their_part_and_the_longest_unused_goes_first(tmp_path: Path) -> None:
    world = MemoryWorld(tmp_path, settings=SETTINGS)
    limit_bytes = int(world.vault.superblock.capacity_bytes * SETTINGS.hot_fraction)
    try:
        world.filesystem._hot._limit_bytes = 500 * KIB
        assert limit_bytes > 500 * KIB
        for number in range(3):
            await hot(world, b"f%d" % number, content(200 * KIB, number))
        assert {path.read_bytes() for path in copies(world)} == {content(200 * KIB, 1), content(200 * KIB, 2)}
        assert world.filesystem._hot.total_bytes <= 500 * KIB
    finally:
        await world.aclose()


async def test_a_start_removes_what_was_left(world: MemoryWorld) -> None:
    await hot(world, b"f", content(100 * KIB))
    world.kill()
    assert copies(world) == []
    assert world.vault.usage.report().hot == 0
    assert await world.read(b"f") == content(100 * KIB)


async def test_a_writer_takes_the_copy_over_and_readers_see_what_is_written(world: MemoryWorld) -> None:
    whole = bytearray(content(300 * KIB))
    await hot(world, b"f", bytes(whole))
    with direct(world, b"f") as descriptor:
        assert descriptor is not None
        await world.write(b"f", b"written", offset=1000)
        whole[1000:1007] = b"written"
        assert os.pread(descriptor, 1 << 20, 0) == whole
        assert copies(world) == []
        assert world.vault.usage.report().hot == 0
        assert await world.filesystem.seal_all() == 0, "what is read past us stays where it is"
        world.filesystem._files.settle()
        assert await world.filesystem.seal_all() == 0
    world.filesystem._files.settle()
    assert await world.filesystem.seal_all() == 1
    assert await world.read(b"f") == whole


async def test_a_kill_loses_nothing_of_what_was_taken_over(world: MemoryWorld) -> None:
    whole = bytearray(content(300 * KIB))
    await hot(world, b"f", bytes(whole))
    with direct(world, b"f"):
        await world.write(b"f", b"written", offset=1000)
        whole[1000:1007] = b"written"
    world.kill()
    assert await world.read(b"f") == whole


async def test_what_a_mapping_synced_past_the_daemon_outlives_a_power_loss(world: MemoryWorld) -> None:
    """Its msync reaches the disk's file only; what leads to it was synced when the file was opened for writing."""
    whole = bytearray(content(300 * KIB))
    await hot(world, b"f", bytes(whole))
    with direct(world, b"f"):
        await world.write(b"f", b"written", offset=1000)
        whole[1000:1007] = b"written"
    [staged] = [path for path in world.vault.layout.staging.rglob("*") if path.is_file() and path.suffix != ".map"]
    with staged.open("r+b") as file:
        file.seek(200_000)
        file.write(b"mapped")
    whole[200_000:200_006] = b"mapped"
    world.boot = "another"
    world.kill()
    assert await world.read(b"f") == whole


async def test_a_refused_change_leaves_the_copy_where_it_was(
    world: MemoryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = content(300 * KIB)
    await hot(world, b"f", whole)
    with direct(world, b"f") as descriptor:
        assert descriptor is not None
        with monkeypatch.context() as broken:
            broken.setattr(world.filesystem._staging, "take_over", _refuse)
            with pytest.raises(OSError, match="no"):
                await world.filesystem.open(world.ino(b"f"), os.O_RDWR, CALLER)
        await world.write(b"f", b"written", offset=0)
        assert os.pread(descriptor, 7, 0) == b"written"


def _refuse(*arguments: object) -> None:
    raise OSError("no")


async def test_one_copy_serves_one_file_at_a_time(world: MemoryWorld) -> None:
    whole = content(300 * KIB)
    await hot(world, b"f", whole)
    await world.write(b"g", whole)
    await world.filesystem.seal_all()
    with direct(world, b"f") as first, direct(world, b"g") as second:
        assert first is not None
        assert second is None
    with direct(world, b"g") as second:
        assert second is not None
        await world.write(b"g", b"written", offset=0)
    assert await world.read(b"f") == whole


async def test_a_copy_that_was_cut_off_is_not_used(world: MemoryWorld) -> None:
    await hot(world, b"f", content(300 * KIB))
    os.truncate(copies(world)[0], 100)
    with direct(world, b"f") as descriptor:
        assert descriptor is None


async def test_a_content_that_is_damaged_gets_no_copy(world: MemoryWorld) -> None:
    await world.write(b"f", content(300 * KIB))
    await world.filesystem.seal_all()
    world.kill()
    for pack in world.vault.layout.packs.glob("*.pack"):
        pack.write_bytes(bytes(pack.stat().st_size))
    for _ in range(3):
        with direct(world, b"f") as descriptor:
            assert descriptor is None
    await world.filesystem._hot.copy_wanted()
    assert copies(world) == []


def test_a_file_is_unused_when_nobody_has_it_open(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    assert is_unused(path)
    with open(path, "rb"):
        assert not is_unused(path)
    with open(path, "r+b"):
        assert not is_unused(path)
    assert is_unused(path)
    assert is_unused(tmp_path / "gone")


async def test_times_of_writing_are_set_where_the_kernel_does_not(world: MemoryWorld) -> None:
    await world.write(b"f", b"x")
    before = world.stat(b"f").mtime_ns
    world.filesystem.written(Ino(world.ino(b"f")))
    assert world.stat(b"f").mtime_ns >= before
    assert world.filesystem.lookup(WORK, b"f")
