"""Short files are staged in their rows: nothing that is promised of others may be missing of them."""

from __future__ import annotations

import os
import random

import pytest

from tvfs import failpoints
from tvfs.catalog.catalog import Family
from tvfs.filesystem import posix_error as refused
from tvfs.filesystem.model import AttributeChanges
from tvfs.filesystem.settings import FilesystemSettings
from tvfs.filesystem.staged_file import decode_row
from tvfs.filesystem.staged_rows import REWRITES_MAX
from tvfs.testing.memory_vault import CALLER, MemoryWorld

LIMIT = FilesystemSettings().staged_in_row_bytes


def no_space() -> None:
    raise OSError(28, "full")


def in_row(world: MemoryWorld, path: bytes) -> bool:
    row = world.catalog.get(Family.STAGING, world.ino(path).to_bytes(8, "big"))
    return row is not None and bool(decode_row(row)[0].content)


async def open_for_writing(world: MemoryWorld, path: bytes) -> int:
    return await world.filesystem.open(world.ino(path), os.O_RDWR, CALLER)


async def test_a_short_file_makes_no_file_of_the_disk(world: MemoryWorld) -> None:
    await world.write(b"f", b"short")
    assert in_row(world, b"f")
    assert world.staging_files() == []
    await world.filesystem.seal_all()
    assert world.filesystem.staged_files() == 0
    assert await world.read(b"f") == b"short"


async def test_a_short_file_survives_a_kill_as_it_was_last_written(world: MemoryWorld) -> None:
    await world.write(b"f", b"before")
    await world.write(b"f", b"X", offset=10)
    world.kill()
    assert await world.read(b"f") == b"before\0\0\0\0X"
    assert world.stat(b"f").size == 11


async def test_a_file_that_grows_too_long_for_its_row_gets_a_file(world: MemoryWorld) -> None:
    await world.write(b"f", b"a" * LIMIT)
    assert in_row(world, b"f")
    await world.write(b"f", b"b", offset=LIMIT)
    assert not in_row(world, b"f")
    assert len(world.staging_files()) == 1
    for _ in range(2):
        assert await world.read(b"f") == b"a" * LIMIT + b"b"
        world.kill()
    await world.filesystem.seal_all()
    assert await world.read(b"f") == b"a" * LIMIT + b"b"
    assert world.staging_files() == []


async def test_a_row_is_not_written_again_for_ever(world: MemoryWorld) -> None:
    whole = b""
    for number in range(REWRITES_MAX + 3):
        await world.write(b"f", b"%02d" % number, offset=2 * number)
        whole += b"%02d" % number
    assert not in_row(world, b"f")
    assert await world.read(b"f") == whole
    world.kill()
    assert await world.read(b"f") == whole


async def test_an_fsynced_short_file_survives_a_power_loss(world: MemoryWorld) -> None:
    await world.write(b"f", b"synced")
    handle = await open_for_writing(world, b"f")
    await world.filesystem.fsync(handle, data_only=False)
    await world.write_to(handle, 0, b"later")
    world.power_loss()
    assert await world.read(b"f") == b"synced"


async def test_what_takes_the_place_of_an_fsynced_row_is_synced_before(
    world: MemoryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.write(b"f", b"synced")
    handle = await open_for_writing(world, b"f")
    await world.filesystem.fsync(handle, data_only=False)
    synced: list[bool] = []
    fdatasync = os.fdatasync

    def noting(descriptor: int) -> None:
        synced.append(in_row(world, b"f"))
        fdatasync(descriptor)

    monkeypatch.setattr(os, "fdatasync", noting)
    await world.write_to(handle, LIMIT, b"far")
    assert synced == [True], "with the row still there"
    assert not in_row(world, b"f")
    # The disk has written the log, and nothing of the file that was not synced.
    await world.vault.catalog.flush()
    world.power_loss()
    assert (await world.read(b"f"))[:6] == b"synced"


async def test_that_holds_also_for_what_the_last_daemon_synced(
    world: MemoryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.write(b"f", b"synced")
    handle = await open_for_writing(world, b"f")
    await world.filesystem.fsync(handle, data_only=False)
    world.kill()
    synced: list[int] = []
    fdatasync = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: (synced.append(descriptor), fdatasync(descriptor)))
    await world.write(b"f", b"far", offset=LIMIT)
    assert len(synced) == 1


async def test_a_file_that_was_not_finished_when_the_daemon_was_killed_is_removed(world: MemoryWorld) -> None:
    await world.write(b"f", b"short")
    file = world.filesystem._staging.files[world.ino(b"f")]
    path = world.vault.layout.staged_file(file.ino, file.generation)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"sh")
    world.kill()
    assert world.staging_files() == []
    assert await world.read(b"f") == b"short"


@pytest.mark.parametrize("size", [3, 9, LIMIT, LIMIT + 1, 5 * LIMIT])
async def test_a_short_file_is_cut_and_lengthened(world: MemoryWorld, size: int) -> None:
    await world.write(b"f", b"12345")
    await world.filesystem.setattr(world.ino(b"f"), AttributeChanges(size=size), CALLER)
    expected = b"12345"[:size].ljust(size, b"\0")
    assert await world.read(b"f") == expected
    assert in_row(world, b"f") is (size <= LIMIT)
    world.kill()
    assert await world.read(b"f") == expected
    assert world.stat(b"f").size == size


async def test_room_can_be_reserved_in_a_short_file_and_holes_made(world: MemoryWorld) -> None:
    await world.write(b"f", b"123456789")
    handle = await open_for_writing(world, b"f")
    await world.filesystem.allocate(handle, 0, 0, 20)
    assert await world.read(b"f") == b"123456789".ljust(20, b"\0")
    await world.write(b"g", b"123456789")
    handle = await open_for_writing(world, b"g")
    await world.filesystem.allocate(handle, 0x03, 2, 3)
    assert await world.read(b"g") == b"12\0\0\x006789"
    world.kill()
    assert await world.read(b"g") == b"12\0\0\x006789"


async def test_a_disk_without_room_refuses_and_leaves_the_file_as_it_was(world: MemoryWorld) -> None:
    await world.write(b"f", b"before")
    failpoints.arm("stage.write", no_space)
    for path, offset in ((b"f", 3), (b"f", LIMIT), (b"new", 0)):
        with pytest.raises(refused.NoSpace):
            await world.write(path, b"lost", offset=offset)
    failpoints.disarm_all()
    assert await world.read(b"f") == b"before"
    assert await world.read(b"new") == b""
    world.kill()
    assert await world.read(b"f") == b"before"
    assert world.staging_files() == []


async def test_what_was_written_while_it_was_sealed_is_not_lost(world: MemoryWorld) -> None:
    await world.write(b"f", b"before")
    ino, written = world.ino(b"f"), []

    def write() -> None:
        failpoints.disarm_all()
        handle = world.filesystem.open_nowait(ino, os.O_WRONLY, CALLER)
        assert handle is not None
        written.append(world.filesystem.write_nowait(handle, 0, b"during"))
        world.filesystem.release(handle)

    failpoints.arm("commit.after_batch", write)
    await world.filesystem.seal_all()
    assert written == [6]
    assert await world.read(b"f") == b"during"
    await world.filesystem.seal_all()
    assert await world.read(b"f") == b"during"


async def test_random_writes_and_truncations_are_those_of_a_file(world: MemoryWorld) -> None:
    chance, twin = random.Random(5), bytearray()
    for number in range(400):
        at, length = chance.randrange(LIMIT * 5 // 4), chance.randrange(1, 300)
        if number % 40 == 39:
            world.kill()
        if number % 7 == 6:
            size = chance.choice((0, at))
            await world.filesystem.setattr(world.ino(b"f"), AttributeChanges(size=size), CALLER)
            twin = twin[:size].ljust(size, b"\0")
        else:
            data = chance.randbytes(length)
            await world.write(b"f", data, offset=at)
            twin = twin.ljust(at, b"\0")
            twin[at : at + length] = data
        if number % 30 == 29:
            await world.filesystem.seal_all()
        assert await world.read(b"f") == twin


async def test_what_is_in_rows_is_told_as_not_sealed_yet(world: MemoryWorld) -> None:
    await world.write(b"f", b"x" * 1000)
    await world.write(b"g", b"x" * 100_000)
    assert world.filesystem.inspection.staged_in_rows_bytes() == 1000
    found, _ = await world.filesystem.inspection.measure(world.ino(b"f"))
    assert found.staged_bytes == 1000
    await world.filesystem.seal_all()
    assert world.filesystem.inspection.staged_in_rows_bytes() == 0
