"""What the filesystem holds on to across waiting stays, whatever becomes of what refers to it; nothing else does."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import trio

from tvfs.catalog.catalog import Batch, Delete, Family
from tvfs.content.snapshot import Snapshot
from tvfs.content.tree_index import TreeIndexMissing
from tvfs.digest import Digest
from tvfs.filesystem import snapshots
from tvfs.filesystem.model import WORK
from tvfs.testing.memory_vault import CALLER, MemoryWorld
from tvfs.vault.reachability import compare_exactly
from tvfs.vault.unwanted import EPOCH_S


async def let_go(world: MemoryWorld) -> int:
    """Let everything go that can; return how many objects."""
    await world.filesystem.sweep()
    world.clock.advance(EPOCH_S)
    let_go = await world.vault.collector.collect()
    check(world)
    return let_go


def check(world: MemoryWorld) -> None:
    assert compare_exactly(world.vault.catalog, "blake3", world.vault.catalog.unwanted.newborn) == []


async def snapshot_of(world: MemoryWorld, path: bytes, holder: str | None = None) -> Snapshot:
    return (await world.filesystem.snapshot(world.ino(path), holder=holder)).snapshot


async def contents(world: MemoryWorld, path: bytes) -> dict[bytes, bytes]:
    return {name: await world.read(path + b"/" + name) for name in world.names(path)}


async def test_a_snapshot_stays_as_long_as_whoever_asked_for_it(world: MemoryWorld) -> None:
    world.mkdir(b"d")
    await world.write(b"d/f", b"content")
    snapshot = await snapshot_of(world, b"d", "client")
    world.filesystem.discard(WORK, b"d")
    for _ in range(3):
        assert await let_go(world) == 0
    world.filesystem.attach(WORK, b"again", snapshot)
    assert await contents(world, b"again") == {b"f": b"content"}
    world.filesystem.discard(WORK, b"again")
    world.vault.end_holder("client")
    # The tree, its message, its attributes, and the file.
    assert await let_go(world) == 4
    with pytest.raises(TreeIndexMissing):
        # The reader of trees remembers it; the vault does not have it.
        world.filesystem.attach(WORK, b"again", snapshot)


def on_first_store(world: MemoryWorld, monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> Callable[[], bool]:
    """Let `act` happen, and everything that nobody wants then go, while a snapshot stores its first directory."""
    sealer = world.filesystem._sealer
    store = sealer.store
    done = False

    async def interrupted(*arguments: object) -> None:
        nonlocal done
        if not done:
            done = True
            act()
            await let_go(world)
        await store(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(sealer, "store", interrupted)
    monkeypatch.setattr(snapshots, "_KEPT_BYTES", 0)
    return lambda: done


async def test_a_subdirectory_that_goes_while_a_snapshot_is_taken_is_in_it(
    world: MemoryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.mkdir(b"src")
    await world.write(b"src/f", b"attached")
    snapshot = await snapshot_of(world, b"src", "client")
    for directory in (b"w", b"w/a"):
        world.mkdir(directory)
    world.filesystem.attach(world.ino(b"w"), b"m", snapshot)
    world.filesystem.discard(WORK, b"src")
    world.vault.end_holder("client")
    await world.write(b"w/a/f", b"plain")
    parent = world.ino(b"w")
    done = on_first_store(world, monkeypatch, lambda: world.filesystem.discard(parent, b"m"))
    taken = await snapshot_of(world, b"w", "client")
    assert done()
    assert not world.exists(b"w/m")
    world.filesystem.attach(WORK, b"copy", taken)
    assert await contents(world, b"copy/m") == {b"f": b"attached"}
    assert await contents(world, b"copy/a") == {b"f": b"plain"}
    check(world)


@pytest.mark.parametrize("still_open", [False, True])
async def test_a_file_that_goes_while_a_snapshot_is_taken_is_in_it(
    world: MemoryWorld, monkeypatch: pytest.MonkeyPatch, still_open: bool
) -> None:
    for directory in (b"w", b"w/a"):
        world.mkdir(directory)
    whole = os.urandom(1_500_000)
    await world.write(b"w/f", whole)
    await world.filesystem.seal_all()
    handle = await world.filesystem.open(world.ino(b"w/f"), os.O_RDWR, CALLER) if still_open else None
    if handle is not None:
        await world.write_to(handle, 0, b"new")
    root = world.ino(b"w")

    def remove() -> None:
        world.unlink(b"w/f")
        if handle is not None:
            world.filesystem.release(handle)

    done = on_first_store(world, monkeypatch, remove)
    outcome = await world.filesystem.snapshot(root, holder="client", allow_open=still_open)
    assert done()
    world.filesystem.attach(WORK, b"copy", outcome.snapshot)
    assert await world.read(b"copy/f") == (b"new" + whole[3:] if still_open else whole)
    check(world)


async def test_a_snapshot_that_fails_holds_nothing(world: MemoryWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world.mkdir(b"w")
    await world.write(b"w/f", b"x")

    async def refuse(*_: object) -> None:
        raise OSError("full")

    monkeypatch.setattr(world.filesystem._sealer, "store", refuse)
    with pytest.raises(OSError, match="full"):
        await snapshot_of(world, b"w", "client")
    assert len(world.vault.leases) == 0


async def test_what_is_shown_by_its_digest_stays_until_it_is_forgotten(world: MemoryWorld) -> None:
    for content in (b"short", os.urandom(1_500_000)):
        await world.write(b"f", content, flags=os.O_TRUNC)
        await world.filesystem.seal_all()
        digest = Digest("blake3", world.vault.hash_function.digest(content), len(content))
        ino = world.filesystem.resolve(f"cas/blake3/{digest.hex[:2]}/{digest.hex}-{digest.size}".encode())
        world.unlink(b"f")
        assert await let_go(world) == 0
        assert await world.read_inode(ino) == content
        world.filesystem.forgotten(ino)
        assert await let_go(world) > 0
        assert list(world.vault.chunks.scan()) == []


async def test_sealing_a_changed_file_survives_its_removal(world: MemoryWorld) -> None:
    whole = os.urandom(3_000_000)
    await world.write(b"f", whole)
    await world.filesystem.seal_all()
    await world.write(b"f", b"changed")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.filesystem.seal_all)
        await trio.lowlevel.checkpoint()
        world.unlink(b"f")
        await let_go(world)
    await let_go(world)
    assert list(world.vault.chunks.scan()) == []


async def test_removing_an_attached_tree_takes_away_few_references_a_batch(
    world: MemoryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.mkdir(b"src")
    for number in range(700):
        await world.write(b"src/%d" % number, b"%d" % number)
    snapshot = await snapshot_of(world, b"src", "client")
    world.filesystem.discard(WORK, b"src")
    await let_go(world)
    world.filesystem.attach(WORK, b"a", snapshot)
    for number in range(700):
        await world.write(b"a/%d" % number, b"changed %d" % number)
    await world.filesystem.seal_all()
    world.filesystem.discard(WORK, b"a")
    removed: list[int] = []
    write = world.catalog.write

    def watched(batch: Batch) -> None:
        removed.append(sum(change.family is Family.REF for change in batch.changes if isinstance(change, Delete)))
        write(batch)

    monkeypatch.setattr(world.catalog, "write", watched)
    assert await world.filesystem.sweep() == 0
    assert sum(removed) >= 700
    assert max(removed) <= world.settings.sweep_slice
    check(world)


async def test_a_kill_in_the_middle_of_removing_an_attached_tree_is_made_up_for(world: MemoryWorld) -> None:
    world.mkdir(b"src")
    for number in range(700):
        await world.write(b"src/%d" % number, b"%d" % number)
    snapshot = await snapshot_of(world, b"src", "client")
    world.filesystem.discard(WORK, b"src")
    assert await world.filesystem.sweep() == 0
    world.filesystem.attach(WORK, b"a", snapshot)
    for number in range(700):
        await world.write(b"a/%d" % number, b"changed %d" % number)
    await world.filesystem.seal_all()
    world.filesystem.discard(WORK, b"a")
    before = len(list(world.catalog.scan(Family.INODE)))
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.filesystem.sweep)
            while len(list(world.catalog.scan(Family.INODE))) > before - 100:
                await trio.lowlevel.checkpoint()
            scope.cancel()
    world.kill()
    check(world)
    await let_go(world)
    await let_go(world)
    assert list(world.catalog.scan(Family.RANGE)) == []
    assert list(world.vault.chunks.scan()) == []
