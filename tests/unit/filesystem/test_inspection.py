from __future__ import annotations

import gc
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import hypothesis
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tvfs.catalog.catalog import Batch, Family
from tvfs.chunks.chunk_row import ChunkRow, encode_chunk_row
from tvfs.clock import SystemClock
from tvfs.content.reference import Content, ContentKind
from tvfs.filesystem.directories import Dirent, encode_dirent
from tvfs.filesystem.filesystem import Filesystem
from tvfs.filesystem.inode import Inode
from tvfs.filesystem.lookups import LookupCounts
from tvfs.filesystem.model import WORK
from tvfs.filesystem.settings import FilesystemSettings
from tvfs.packs.location import Location
from tvfs.packs.pack_row import decode_pack_row
from tvfs.plugin_api import PluginRegistry
from tvfs.testing.memory_vault import MemoryWorld
from tvfs.vault.create import create_vault
from tvfs.vault.pace import SLICE_S
from tvfs.vault.superblock import VaultSettings
from tvfs.vault.vault import Vault, open_vault

Result = TypeVar("Result")

MIB = 1 << 20
MOST_HELD_S = 0.005


def live_bytes(world: MemoryWorld) -> int:
    return sum(decode_pack_row(row).live_bytes for _, row in world.vault.catalog.scan(Family.PACK))


async def let_go(world: MemoryWorld) -> None:
    """Do what runs in the background: sweep the trash, and collect until nothing is left to collect."""
    await world.filesystem.sweep()
    world.clock.advance(60)
    while await world.vault.collector.collect():
        world.clock.advance(60)


async def test_what_is_staged_counts_as_stored_and_as_exclusive(world: MemoryWorld) -> None:
    await world.write(b"file", os.urandom(100_000))
    found, weight = await world.filesystem.inspection.measure(world.ino(b"file"))
    assert (found.files, found.logical_bytes, weight.chunks) == (1, 100_000, 0)
    assert found.staged_bytes >= 100_000


async def test_a_subtree_as_it_was_attached_is_not_walked(world: MemoryWorld) -> None:
    world.mkdir(b"src")
    world.mkdir(b"src/sub")
    for number in range(50):
        await world.write(b"src/sub/%d" % number, b"%d" % number)
    snapshot = (await world.filesystem.snapshot(world.ino(b"src"))).snapshot
    place = world.filesystem.attach(WORK, b"place", snapshot)
    whole, weight = await world.filesystem.inspection.measure(place)
    assert (whole.files, whole.directories, whole.logical_bytes) == (50, 2, 90)
    # What was looked at leaves no trace: none of the files became an inode of its own in memory.
    assert world.filesystem.inspection.surveyor.as_attached(
        place, world.filesystem.inspection.surveyor.nodes.get(place)
    )
    await world.write(b"place/sub/7", b"changed, and longer")
    changed, _ = await world.filesystem.inspection.measure(place)
    assert (changed.files, changed.directories) == (50, 2)
    assert changed.logical_bytes == 90 - 1 + 19
    assert weight.chunks >= 50


@given(data=st.data())
@hypothesis.settings(max_examples=25, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_what_a_measurement_calls_exclusive_is_what_removing_gives_back(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    trio.run(_remove_and_compare, tmp_path_factory.mktemp("world"), data)


async def _remove_and_compare(home: Path, data: st.DataObject) -> None:
    world = MemoryWorld(home)
    contents = [os.urandom(size) for size in (1, 900, 70_000, 400_000)]
    try:
        for directory in (b"a", b"b", b"a/in"):
            world.mkdir(directory)
        steps = st.lists(st.sampled_from(list(STEPS)), min_size=3, max_size=14)
        for number, step in enumerate(data.draw(steps)):
            directory = data.draw(st.sampled_from([b"a", b"b", b"a/in"]))
            await STEPS[step](world, directory, b"%d" % number, data.draw(st.sampled_from(contents)))
        await world.filesystem.seal_all()
        await world.filesystem._staging.reap()
        await let_go(world)
        _, weight = await world.filesystem.inspection.measure(world.ino(b"a"))
        before = live_bytes(world)
        assert weight.stored_bytes <= before
        world.filesystem.discard(WORK, b"a")
        await let_go(world)
        assert before - live_bytes(world) == weight.freed_bytes
    finally:
        await world.aclose()


Step = Callable[[MemoryWorld, bytes, bytes, bytes], Awaitable[None]]


async def _file(world: MemoryWorld, directory: bytes, name: bytes, content: bytes) -> None:
    await world.write(directory + b"/f" + name, content)


async def _link(world: MemoryWorld, directory: bytes, name: bytes, content: bytes) -> None:
    files = [each for each in world.names(b"a") if each.startswith(b"f")]
    if files:
        world.filesystem.link(world.ino(b"a/" + files[0]), world.ino(directory), b"l" + name)


async def _attach(world: MemoryWorld, directory: bytes, name: bytes, content: bytes) -> None:
    snapshot = (await world.filesystem.snapshot(world.ino(b"b"))).snapshot
    world.filesystem.attach(world.ino(directory), b"t" + name, snapshot)


async def _attach_and_change(world: MemoryWorld, directory: bytes, name: bytes, content: bytes) -> None:
    await _attach(world, directory, name, content)
    await world.write(directory + b"/t" + name + b"/new", content)


async def _attach_and_cut(world: MemoryWorld, directory: bytes, name: bytes, content: bytes) -> None:
    await _attach(world, directory, name, content)
    tree = directory + b"/t" + name
    for each in world.names(tree)[:1]:
        if not world.stat(tree + b"/" + each).mode & 0o40000:
            world.unlink(tree + b"/" + each)


STEPS: dict[str, Step] = {
    "file": _file,
    "link": _link,
    "attach": _attach,
    "attach and change": _attach_and_change,
    "attach and cut": _attach_and_cut,
}


async def test_what_would_go_together_with_it_counts_too(world: MemoryWorld) -> None:
    world.mkdir(b"a")
    await world.write(b"a/file", os.urandom(MIB))
    snapshot = (await world.filesystem.snapshot(world.ino(b"a"))).snapshot
    place = world.filesystem.attach(WORK, b"place", snapshot)
    world.unlink(b"a/file")
    inspection = world.filesystem.inspection
    _, alone = await inspection.measure(place)
    _, together = await inspection.measure(place, [b"\x04" + snapshot.index])
    assert alone.freed_bytes == together.freed_bytes >= MIB, "no entry refers to it"


@pytest.mark.parametrize("files", [20_000, pytest.param(100_000, marks=pytest.mark.slow)])
async def test_a_measurement_of_very_many_files_never_holds_the_owner(tmp_path: Path, files: int) -> None:
    registry = PluginRegistry()
    create_vault(tmp_path / "vault", settings=VaultSettings(capacity_bytes=1 << 30), registry=registry)
    async with open_vault(tmp_path / "vault", registry) as vault:
        filesystem = Filesystem(
            vault, clock=SystemClock(), settings=FilesystemSettings(), lookups=LookupCounts(), boot="boot"
        )
        filesystem.start()
        make_files(vault, files)
        with no_garbage_collection():
            turns_s, (found, weight) = await turns_of(lambda: filesystem.inspection.measure(WORK))
        await filesystem.aclose()
    # Its rows are made up: there are no packs behind them, and whoever checks what tests leave would say so.
    shutil.rmtree(tmp_path / "vault")
    assert (found.files, weight.freed_chunks) == (files, files)
    # One may have been in the way of something else.
    assert SLICE_S / 2 < sorted(turns_s)[-2] < MOST_HELD_S


async def turns_of(work: Callable[[], Awaitable[Result]]) -> tuple[list[float], Result]:
    """Return how long others waited for their turn each time, and what the work came to.

    In time of the processor: a busy machine is not our doing.
    """
    turns_s: list[float] = []

    async def watch() -> None:
        last_s = time.thread_time()
        while True:
            await trio.lowlevel.checkpoint()
            now_s = time.thread_time()
            if now_s - last_s > SLICE_S / 2:
                turns_s.append(now_s - last_s)
            last_s = now_s

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await trio.lowlevel.checkpoint()
        result = await work()
        nursery.cancel_scope.cancel()
    return turns_s, result


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """The daemon keeps what lives long out of collections; a test process has everybody's objects."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def make_files(vault: Vault, count: int) -> None:
    """Put the rows of files with a content each into `work/`, as sealing would."""
    first = 1 << 32
    for start in range(0, count, 1000):
        batch = Batch()
        for number in range(start, start + 1000):
            ino, chunk_id = first + number, number.to_bytes(8, "big") * 4
            inode = Inode(0o100644, 0, 0, 1, 10, 0, 0, 0).with_content(Content(ContentKind.CHUNK, chunk_id, 10))
            batch.put(Family.INODE, ino.to_bytes(8, "big"), inode.encode())
            name = WORK.to_bytes(8, "big") + b"%06d" % number
            batch.put(Family.DIRENT, name, encode_dirent(Dirent(8, ino, number + 1)))
            batch.put(Family.CHUNK, chunk_id, encode_chunk_row(ChunkRow(Location(1, 40, 10, 10, 0))))
        vault.catalog.write(batch)
