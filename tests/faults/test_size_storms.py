"""The size is hard: whoever writes as fast as it can is refused before the vault takes more of the disk than it may."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio

from tests.faults.conftest import du
from tests.faults.disk_sampler import Sampler, sampled
from tests.pack_sender import PackSender
from tvfs.chunks.chunk_index import ChunkIndex
from tvfs.clock import SystemClock
from tvfs.digest import ChunkId
from tvfs.filesystem.filesystem import Filesystem
from tvfs.filesystem.lookups import LookupCounts
from tvfs.filesystem.model import WORK, Caller, Ino
from tvfs.filesystem.posix_error import NoSpace, NotFound
from tvfs.filesystem.settings import FilesystemSettings
from tvfs.plugin_api import PluginRegistry
from tvfs.vault.create import create_vault
from tvfs.vault.superblock import VaultSettings
from tvfs.vault.vault import Vault, open_vault

CALLER = Caller(1000, 1000)
MIB = 1 << 20


class World:
    """A vault and its filesystem, served by nobody."""

    def __init__(self, vault: Vault, filesystem: Filesystem) -> None:
        self.vault = vault
        self.filesystem = filesystem
        self.capacity = vault.superblock.capacity_bytes

    async def write(self, name: bytes, content: bytes) -> None:
        """Make a file; raise `NoSpace`, then it is not there."""
        handle, _ = await self.filesystem.create(WORK, name, 0o644, os.O_WRONLY, CALLER)
        try:
            if self.filesystem.write_nowait(handle, 0, content) is None:
                await self.filesystem.write(handle, 0, content)
        except NoSpace:
            self.filesystem.unlink(WORK, name)
            raise
        finally:
            self.filesystem.release(handle)


@asynccontextmanager
async def opened(home: Path, mebibytes: int) -> AsyncIterator[World]:
    registry = PluginRegistry()
    create_vault(home, settings=VaultSettings(capacity_bytes=mebibytes * MIB), registry=registry)
    async with open_vault(home, registry) as vault:
        settings = FilesystemSettings(seal_idle_s=0.02, seal_retry_s=0.1)
        filesystem = Filesystem(vault, clock=SystemClock(), settings=settings, lookups=LookupCounts())
        filesystem.start()
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(filesystem.run_background)
                yield World(vault, filesystem)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await filesystem.aclose()


def check(sampler: Sampler, world: World) -> None:
    assert sampler.samples > 20
    assert sampler.highest_bytes <= world.capacity, sampler.at_highest
    # And the size is used: nobody is refused while most of it is empty.
    assert sampler.highest_bytes > world.capacity // 2


async def fill(world: World, draw: random.Random) -> dict[bytes, int]:
    """Write files until one is refused; return the sizes of the others."""
    written: dict[bytes, int] = {}
    while True:
        name = b"%d" % len(written)
        size = draw.choice([100, 5_000, 100_000, world.capacity // 20])
        try:
            await world.write(name, draw.randbytes(size))
        except NoSpace:
            return written
        written[name] = size


async def everything_is_sealed(world: World) -> None:
    while world.filesystem.staged_files():  # noqa: ASYNC110 - nobody announces it
        await trio.sleep(0.05)


async def names_are_admitted(world: World) -> None:
    world.vault.catalog.drop_deleted()  # as whoever makes room does
    while not world.vault.room.admits_names():  # noqa: ASYNC110 - nobody announces it
        await trio.sleep(0.05)


async def until_refused(step: Callable[[int], None]) -> int:
    """Take steps, others in between, until one is refused again and again; return how many were taken."""
    taken = refused = 0
    while refused < 20:
        try:
            step(taken)
            taken += 1
        except NoSpace:
            refused += 1
            await trio.sleep(0.02)
        if taken % 32 == 0:
            await trio.lowlevel.checkpoint()
    return taken


async def test_names_alone_end_in_enospc_before_the_size_is_passed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    draw = random.Random(1)
    async with opened(home, 64) as world:
        filesystem = world.filesystem

        def make(number: int) -> None:
            name = b"%d" % number
            filesystem.symlink(WORK, name, draw.randbytes(2000).hex().encode()[:4000], CALLER)

        made = directories = linked = moved = marked = 0
        with sampled(home) as sampler:
            made = await until_refused(make)
            directories = await until_refused(lambda number: _mkdir(filesystem, number))
            file = filesystem.resolve(b"0", WORK)
            linked = await until_refused(lambda number: _link(filesystem, file, number))
            marked = await until_refused(lambda number: filesystem.setxattr(file, b"user.%d" % number, bytes(60_000)))
            moved = await until_moved(filesystem, made)
        assert made > 4000
        # What the catalog gives back meanwhile, a few more names take; how many is its own affair, and a name is small.
        assert directories < made / 10
        assert linked < made / 10
        assert marked < 100
        assert moved > 0
        assert sampler.highest_bytes <= world.capacity, sampler.at_highest
        assert du(home) <= world.capacity
        # What is removed gives its room back.
        for number in range(made):
            for name in (b"%d" % number, b"m%d" % number):
                with suppress(NotFound):
                    filesystem.unlink(WORK, name)
            if number % 64 == 0:
                await trio.lowlevel.checkpoint()
        with trio.fail_after(20):
            await names_are_admitted(world)
        filesystem.mkdir(WORK, b"directory", 0o755, CALLER)


def _mkdir(filesystem: Filesystem, number: int) -> None:
    filesystem.mkdir(WORK, b"directory-%d" % number, 0o755, CALLER)


def _link(filesystem: Filesystem, file: Ino, number: int) -> None:
    filesystem.link(file, WORK, b"link %d" % number)


async def until_moved(filesystem: Filesystem, made: int) -> int:
    """Move names about, as fast as it goes, 4,000 times; return how often it was allowed."""
    moved = 0
    for number in range(4_000):
        name = b"%d" % (number // 2 % made)
        try:
            there_and_back = [name, b"m" + name] if number % 2 == 0 else [b"m" + name, name]
            filesystem.rename(WORK, there_and_back[0], WORK, there_and_back[1], 0)
            moved += 1
        except (NoSpace, NotFound):
            await trio.sleep(0.001)
        if number % 64 == 0:
            await trio.lowlevel.checkpoint()
    return moved


SIZES = pytest.mark.parametrize("mebibytes", [64, pytest.param(512, marks=pytest.mark.slow)])


@SIZES
async def test_files_are_written_until_the_size_is_reached_and_sealed_where_there_is_no_room(
    tmp_path: Path, mebibytes: int
) -> None:
    home = tmp_path / "home"
    draw = random.Random(mebibytes)
    async with opened(home, mebibytes) as world:
        with sampled(home) as sampler:
            written = await fill(world, draw)
            # All of it is sealed, a pack at a time, from what is kept for that.
            with trio.fail_after(60):
                await everything_is_sealed(world)
        check(sampler, world)
        assert sum(written.values()) > world.capacity * 2 // 3
        assert world.vault.reservations.reserved_bytes == 0
        statistics = world.filesystem.statfs()
        assert statistics.capacity_bytes == world.capacity
        assert statistics.free_bytes == max(0, world.vault.reservations.free_bytes)
        # A file may still be overwritten in place, and what is removed makes room.
        for name in list(written)[:10]:
            world.filesystem.unlink(WORK, name)


@SIZES
async def test_packs_are_granted_and_compacted_within_the_size(tmp_path: Path, mebibytes: int) -> None:
    """Everything stored is let go of again and again, a part at a time, while more comes."""
    home = tmp_path / "home"
    draw = random.Random(mebibytes)
    async with opened(home, mebibytes) as world:
        vault = world.vault
        live: dict[ChunkId, bytes] = {}
        stored = 0

        async def make_room(wanted_bytes: int, beside_bytes: int) -> bool:
            for chunk_id in draw.sample(sorted(live), max(1, len(live) // 8)) if live else ():
                await vault.chunks.delete(chunk_id)
                del live[chunk_id]
            done = await vault.compactor.compact(least_dead_fraction=0.05)
            return done.removed_packs > 0 or bool(live)

        vault.room.make_room = make_room
        with sampled(home) as sampler:
            while stored < 3 * world.capacity:
                grant = await vault.grants.grant("client", vault.superblock.pack_max_bytes)
                sender = PackSender(vault, "client", granted=grant)
                raws = [draw.randbytes(60_000) for _ in range(vault.superblock.pack_max_bytes // 61_000)]
                assert await sender.store(*raws) == []
                sender.end()
                stored += sum(map(len, raws))
                live.update((ChunkId(vault.hash_function.digest(raw)), raw[:8]) for raw in raws)
        check(sampler, world)
        assert vault.compactor.total.moved_bytes > world.capacity
        assert set(live) == set(ChunkIndex(vault.catalog).live())
        for chunk_id, start in list(live.items())[::7]:
            assert (await vault.chunks.get(chunk_id))[:8] == start
        assert vault.usage.measure().total == du(home)
