from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest
import trio

from tvfs import failpoints
from tvfs.filesystem import posix_error as refused
from tvfs.filesystem.model import WORK, AttributeChanges
from tvfs.filesystem.settings import FilesystemSettings
from tvfs.filesystem.staged_file import BLOCK_BYTES
from tvfs.testing.memory_vault import CALLER, MemoryWorld


def content(length: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(length)


async def sealed(world: MemoryWorld, path: bytes, whole: bytes) -> None:
    await world.write(path, whole)
    assert await world.filesystem.seal_all() >= 1
    assert world.filesystem.staged_files() == 0


async def test_what_was_written_survives_a_kill(world: MemoryWorld) -> None:
    await world.write(b"f", b"acknowledged")
    world.kill()
    assert await world.read(b"f") == b"acknowledged"
    assert world.stat(b"f").size == 12


async def test_overwriting_a_sealed_file_copies_only_the_blocks_that_it_touches(world: MemoryWorld) -> None:
    whole = bytearray(content(5 * BLOCK_BYTES + 77))
    await sealed(world, b"f", bytes(whole))
    await world.write(b"f", b"NEW", offset=2 * BLOCK_BYTES + 10)
    whole[2 * BLOCK_BYTES + 10 : 2 * BLOCK_BYTES + 13] = b"NEW"
    [name] = [name for name in world.staging_files() if not name.endswith(".map")]
    allocated = os.stat(world.vault.layout.staging_directory(world.ino(b"f")) / name).st_blocks * 512
    assert allocated <= 2 * BLOCK_BYTES
    assert await world.read(b"f") == whole
    world.kill()
    assert await world.read(b"f") == whole
    await world.filesystem.seal_all()
    assert await world.read(b"f") == whole


async def test_truncated_and_grown_again_a_sealed_file_has_zeros_in_between(world: MemoryWorld) -> None:
    whole = content(3 * BLOCK_BYTES)
    await sealed(world, b"f", whole)
    for size in (BLOCK_BYTES + 100, 3 * BLOCK_BYTES):
        await world.filesystem.setattr(world.ino(b"f"), AttributeChanges(size=size), CALLER)
    await world.write(b"f", b"x", offset=BLOCK_BYTES + 200)
    expected = bytearray(whole[: BLOCK_BYTES + 100].ljust(3 * BLOCK_BYTES, b"\0"))
    expected[BLOCK_BYTES + 200] = ord("x")
    assert await world.read(b"f") == expected
    world.kill()
    assert await world.read(b"f") == expected
    await world.filesystem.seal_all()
    assert await world.read(b"f") == expected


async def test_a_staged_file_that_is_cut_shows_nothing_of_its_base_when_it_grows_again(world: MemoryWorld) -> None:
    whole = content(3 * BLOCK_BYTES)
    await sealed(world, b"f", whole)
    await world.write(b"f", b"!", offset=2 * BLOCK_BYTES)
    for size in (100, BLOCK_BYTES):
        await world.filesystem.setattr(world.ino(b"f"), AttributeChanges(size=size), CALLER)
    expected = whole[:100].ljust(BLOCK_BYTES, b"\0")
    assert await world.read(b"f") == expected
    world.kill()
    assert await world.read(b"f") == expected


async def test_emptying_a_file_lets_go_of_its_staging_file(world: MemoryWorld) -> None:
    await world.write(b"f", b"long gone")
    await world.write(b"f", b"", flags=os.O_TRUNC)
    assert (await world.read(b"f"), world.filesystem.staged_files()) == (b"", 0)
    await world.filesystem.seal_all()
    assert world.staging_files() == []


async def test_long_writes_go_through_a_thread_and_arrive(world: MemoryWorld) -> None:
    whole = content(3 << 20)
    await world.write(b"f", whole)
    assert await world.read(b"f") == whole


async def test_writes_beyond_the_end_leave_a_hole_of_zeros(world: MemoryWorld) -> None:
    await world.write(b"f", b"end", offset=1 << 20)
    assert await world.read(b"f") == bytes(1 << 20) + b"end"
    await world.filesystem.seal_all()
    assert await world.read(b"f") == bytes(1 << 20) + b"end"


async def test_a_full_vault_refuses_bytes_and_still_removes(world: MemoryWorld) -> None:
    await world.write(b"f", b"x")
    free = world.vault.reservations.free_bytes
    world.vault.reservations.reserve("all of it", free)
    with pytest.raises(refused.NoSpace):
        await world.write(b"f", b"y" * 4096, offset=1)
    assert await world.read(b"f") == b"x"
    await world.filesystem.setattr(world.ino(b"f"), AttributeChanges(size=0), CALLER)
    world.unlink(b"f")
    world.vault.reservations.release("all of it")


async def test_a_write_on_a_full_disk_is_refused_and_changes_nothing(world: MemoryWorld) -> None:
    await world.write(b"f", b"before")
    failpoints.arm("stage.write", failpoints.ACTIONS["enospc"])
    with pytest.raises(refused.NoSpace):
        await world.write(b"f", b"lost", offset=6)
    failpoints.disarm_all()
    world.kill()
    assert await world.read(b"f") == b"before"


async def test_a_write_that_the_disk_cuts_off_leaves_no_trace(
    world: MemoryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = b"before" * 10_000
    await world.write(b"f", before)
    pwrite = os.pwrite

    def cut_off(descriptor: int, data: bytes, offset: int) -> int:
        if offset > len(before):
            raise OSError(errno.ENOSPC, "full")
        return pwrite(descriptor, data[:2], offset)

    monkeypatch.setattr(os, "pwrite", cut_off)
    with pytest.raises(refused.NoSpace):
        await world.write(b"f", b"lost", offset=len(before))
    monkeypatch.undo()
    assert await world.read(b"f") == before
    world.kill()
    assert await world.read(b"f") == before


async def test_no_file_grows_beyond_the_limit(world: MemoryWorld) -> None:
    await world.write(b"f", b"")
    with pytest.raises(refused.TooBig):
        await world.write(b"f", b"x", offset=FilesystemSettings().max_file_bytes)
    with pytest.raises(refused.TooBig):
        await world.filesystem.setattr(world.ino(b"f"), AttributeChanges(size=1 << 62), CALLER)


async def test_disk_use_is_counted_exactly(world: MemoryWorld) -> None:
    def counted() -> int:
        return world.vault.usage.report().staging

    await world.write(b"f", content(300_000))
    await world.write(b"g", content(10))
    assert counted() == world.vault.usage.measure().staging > 300_000
    await world.filesystem.seal_all()
    assert counted() == world.vault.usage.measure().staging == 0


async def test_an_fsynced_overwrite_survives_a_power_loss(world: MemoryWorld) -> None:
    whole = bytearray(content(3 * BLOCK_BYTES))
    await sealed(world, b"f", bytes(whole))
    handle = await world.filesystem.open(world.ino(b"f"), os.O_WRONLY, CALLER)
    await world.write_to(handle, 5, b"synced")
    await world.filesystem.fsync(handle, data_only=False)
    whole[5:11] = b"synced"
    world.power_loss()
    assert await world.read(b"f") == whole


async def test_a_map_that_is_made_after_the_first_fsync_has_a_name_that_lasts(
    world: MemoryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    listings: list[list[str]] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        fsync(descriptor)
        place = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if place.is_dir():
            listings.append(os.listdir(place))

    monkeypatch.setattr(os, "fsync", watched)
    await sealed(world, b"f", content(3 * BLOCK_BYTES))
    handle = await world.filesystem.open(world.ino(b"f"), os.O_WRONLY, CALLER)
    await world.filesystem.setattr(world.ino(b"f"), AttributeChanges(size=2 * BLOCK_BYTES), CALLER)
    await world.filesystem.fsync(handle, data_only=False)
    await world.write_to(handle, 5, b"upon what was there")
    await world.filesystem.fsync(handle, data_only=False)
    assert any(name.endswith(".map") for listing in listings for name in listing)


async def test_after_a_power_loss_blocks_that_were_never_synced_are_those_of_the_base(world: MemoryWorld) -> None:
    whole = bytearray(content(3 * BLOCK_BYTES))
    await sealed(world, b"f", bytes(whole))
    handle = await world.filesystem.open(world.ino(b"f"), os.O_WRONLY, CALLER)
    await world.write_to(handle, 0, b"synced")
    await world.filesystem.fsync(handle, data_only=False)
    await world.write_to(handle, 2 * BLOCK_BYTES, b"not synced")
    [path] = [file.path for file in world.filesystem._staging.files.values()]
    with open(path, "r+b") as lost:  # the disk kept the map's last entry and lost the block that it tells of
        lost.seek(2 * BLOCK_BYTES)
        lost.write(bytes(BLOCK_BYTES))
    whole[:6] = b"synced"
    world.power_loss()
    assert await world.read(b"f") == whole


async def test_what_is_written_after_a_power_loss_survives_a_kill(world: MemoryWorld) -> None:
    whole = bytearray(content(3 * BLOCK_BYTES))
    await sealed(world, b"f", bytes(whole))
    await world.write(b"f", b"lost", offset=5)
    await world.vault.catalog.flush()
    world.power_loss()
    assert await world.read(b"f") == whole
    await world.write(b"f", b"kept", offset=2 * BLOCK_BYTES)
    whole[2 * BLOCK_BYTES : 2 * BLOCK_BYTES + 4] = b"kept"
    world.kill()
    assert await world.read(b"f") == whole


async def test_a_read_sees_all_of_a_write_that_is_under_way_or_none(world: MemoryWorld) -> None:
    await world.write(b"f", b"a" * 300_000)
    ino = world.ino(b"f")
    writer = await world.filesystem.open(ino, os.O_WRONLY, CALLER)
    seen: list[bytes] = []

    async def read() -> None:
        seen.append(await world.read_inode(ino))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.filesystem.write, writer, 0, b"b" * 300_000)
        nursery.start_soon(read)
    world.filesystem.release(writer)
    assert set(seen) <= {b"a" * 300_000, b"b" * 300_000}


async def test_a_handle_that_is_closed_is_refused(world: MemoryWorld) -> None:
    handle, _ = await world.filesystem.create(WORK, b"f", 0o600, os.O_RDWR, CALLER)
    world.filesystem.release(handle)
    with pytest.raises(refused.BadHandle):
        world.filesystem.read_nowait(handle, 0, 1)
    with pytest.raises(refused.BadHandle):
        world.filesystem.release(handle)


async def test_staging_files_that_nothing_leads_to_are_removed_by_the_next_start(world: MemoryWorld) -> None:
    stray = world.vault.layout.staged_file(999, 1)
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"x")
    world.kill()
    assert world.staging_files() == []


async def test_the_room_shown_is_what_was_written_and_what_the_base_still_gives(world: MemoryWorld) -> None:
    await sealed(world, b"f", content(10 * BLOCK_BYTES))
    await world.write(b"f", b"x", offset=3 * BLOCK_BYTES)
    assert 10 * BLOCK_BYTES - 512 <= world.stat(b"f").blocks * 512 <= 10 * BLOCK_BYTES
    await world.write(b"f", b"end", offset=1 << 30)
    stat = world.stat(b"f")
    assert stat.size == (1 << 30) + 3
    assert 10 * BLOCK_BYTES <= stat.blocks * 512 < 14 * BLOCK_BYTES
    world.kill()
    assert world.stat(b"f").blocks == stat.blocks


async def test_a_file_that_is_one_hole_does_not_look_empty(world: MemoryWorld) -> None:
    await world.write(b"f", b"")
    await world.filesystem.setattr(world.ino(b"f"), AttributeChanges(size=1 << 30), CALLER)
    assert 1 <= world.stat(b"f").blocks <= 8
