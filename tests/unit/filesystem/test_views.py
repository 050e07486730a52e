from __future__ import annotations

import os

import pytest

from tvfs.digest import Digest
from tvfs.filesystem import posix_error as refused
from tvfs.filesystem.model import CAS, KEYS, ROOT, Absent, Found
from tvfs.testing.memory_vault import CALLER, MemoryWorld


def path_of(digest: Digest) -> bytes:
    return f"cas/{digest.function}/{digest.hex[:2]}/{digest.hex}-{digest.size}".encode()


async def test_any_blob_is_found_by_its_digest(world: MemoryWorld) -> None:
    whole = os.urandom(200_000)
    for content in (whole, b"short", b""):
        await world.write(b"f", content, flags=os.O_TRUNC)
        await world.filesystem.seal_all()
        digest = Digest("blake3", world.vault.hash_function.digest(content), len(content))
        ino = world.filesystem.resolve(path_of(digest))
        assert await world.read_inode(ino) == content
        assert world.filesystem.getattr(ino).mode == 0o100400
        with pytest.raises(refused.ReadOnly):
            await world.filesystem.open(ino, os.O_WRONLY, CALLER)


@pytest.mark.parametrize(
    "path", [b"cas/md5", b"cas/blake3/zz", b"cas/blake3/abc", b"cas/blake3/00/00-1", b"cas/blake3/00/" + b"00" * 32]
)
async def test_what_is_no_digest_of_a_blob_is_not_there(world: MemoryWorld, path: bytes) -> None:
    with pytest.raises(refused.NotFound):
        world.filesystem.resolve(path)


async def test_a_wrong_size_finds_nothing(world: MemoryWorld) -> None:
    await world.write(b"f", b"short")
    await world.filesystem.seal_all()
    with pytest.raises(refused.NotFound):
        world.filesystem.resolve(path_of(Digest("blake3", world.vault.hash_function.digest(b"short"), 6)))


async def test_the_view_is_not_listed_and_forgets(world: MemoryWorld) -> None:
    before = len(world.filesystem._nodes._virtual)
    ino = world.filesystem.resolve(b"cas/blake3/00")
    assert list(world.filesystem.readdir(ino, 0)) == []
    for shown in (ino, world.filesystem.resolve(b"cas/blake3")):
        world.filesystem.forgotten(shown)
    assert len(world.filesystem._nodes._virtual) == before
    assert world.filesystem.getattr(CAS).mode & 0o777 == 0o500


async def test_names_that_the_owner_changes_are_not_cached(world: MemoryWorld) -> None:
    answers = [world.filesystem.lookup(KEYS, b"none"), world.filesystem.lookup(ROOT, b"none")]
    assert all(isinstance(answer, Absent) for answer in answers)
    assert [answer.timeout_s > 0 for answer in answers if isinstance(answer, Absent)] == [False, True]


async def test_the_prepared_directory_is_reachable_and_not_listed(world: MemoryWorld) -> None:
    assert isinstance(world.filesystem.lookup(ROOT, b".taskvault"), Found)
    names = [entry.name for entry in world.filesystem.readdir(ROOT, 0)]
    assert names == [b"cas", b"keys", b"runs", b"snapshots", b"work"]


async def test_each_change_of_names_by_the_owner_has_a_time_of_its_own(world: MemoryWorld) -> None:
    """The kernel compares it with that of the listing which it keeps, and a clock ticks only every few milliseconds."""
    world.mkdir(b"tree")
    snapshot = (await world.filesystem.snapshot(world.ino(b"tree"))).snapshot
    scope = world.filesystem.ensure_directory(KEYS, b"main")
    times = [world.filesystem.getattr(scope).mtime_ns]
    for name in (b"a", b"b"):
        world.filesystem.attach(scope, name, snapshot, read_only=True)
        times.append(world.filesystem.getattr(scope).mtime_ns)
    world.filesystem.discard(scope, b"a")
    times.append(world.filesystem.getattr(scope).mtime_ns)
    assert sorted(set(times)) == times
