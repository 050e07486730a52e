"""What is remembered of listings is bounded, and a listing goes on all the same."""

from __future__ import annotations

import pytest

from tvfs.filesystem import listings
from tvfs.filesystem.listings import Listings
from tvfs.filesystem.model import WORK, Ino
from tvfs.testing.memory_vault import MemoryWorld


def remembered(world: MemoryWorld) -> Listings:
    return world.filesystem._listings


async def filled(world: MemoryWorld, directories: int, names: int) -> list[Ino]:
    for directory in range(directories):
        world.mkdir(b"%d" % directory)
        for name in range(names):
            await world.write(b"%d/%d" % (directory, name), b"")
    return [world.ino(b"%d" % directory) for directory in range(directories)]


async def test_directories_that_were_listed_long_ago_are_forgotten(
    world: MemoryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listings, "_DIRECTORIES", 3)
    inos = await filled(world, 5, 2)
    for ino in (*inos[:3], inos[0], *inos[3:]):
        list(world.filesystem.readdir(ino, 0))
    assert list(remembered(world)._recent) == [inos[0], inos[3], inos[4]]
    assert [world.filesystem._directories.is_listed(ino) for ino in inos] == [True, False, False, True, True]


async def test_names_that_are_remembered_are_counted_whoever_lists_when(
    world: MemoryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listings, "_NAMES_OF_ALL", 10)
    inos = await filled(world, 4, 5)
    for ino in (*inos, *reversed(inos), inos[1], inos[1], inos[3]):
        list(world.filesystem.readdir(ino, 0))
        held = remembered(world)
        last = next(reversed(held._recent))
        assert held._names == sum(len(names) for each, names in held._recent.items() if each != last) <= 10
        assert last == ino


async def test_names_that_went_are_remembered_within_bounds(
    world: MemoryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tvfs.filesystem.directories.GONE_REMEMBERED_OF_ALL", 7)
    inos = await filled(world, 3, 4)
    directories = world.filesystem._directories
    for number, ino in enumerate(inos):
        list(world.filesystem.readdir(ino, 0))
        for name in range(4):
            world.unlink(b"%d/%d" % (number, name))
        assert directories._gone_of_all == sum(map(len, directories._gone.values())) <= 7
    assert list(directories._gone) == inos[1:] or list(directories._gone) == inos[2:]


async def test_names_whose_removal_was_refused_are_counted_once(world: MemoryWorld) -> None:
    (ino,) = await filled(world, 1, 2)
    directories, namespace = world.filesystem._directories, world.filesystem._namespace
    list(world.filesystem.readdir(ino, 0))
    for _ in range(3):
        directories.remove(namespace.change(), ino, b"0", 0)  # and never committed
    assert directories._gone_of_all == sum(map(len, directories._gone.values())) == 1


async def attached(world: MemoryWorld, names: int) -> Ino:
    """Attach a directory with so many names as `cache`, which is to be gathered."""
    (source,) = await filled(world, 1, names)
    await world.filesystem.seal_all()
    snapshot = (await world.filesystem.snapshot(source)).snapshot
    ino = world.filesystem.attach(WORK, b"cache", snapshot, owner=None, read_only=False)
    world.filesystem.evictables.mark(ino, True)
    return ino


@pytest.mark.parametrize("remembered_names", [8192, 0], ids=["remembered", "long ago"])
async def test_a_listing_goes_on_while_an_attached_directory_becomes_an_ordinary_one(
    world: MemoryWorld, monkeypatch: pytest.MonkeyPatch, remembered_names: int
) -> None:
    ino = await attached(world, 40)
    before = list(world.filesystem.readdir(ino, 0))
    if not remembered_names:
        world.filesystem._listings._recent.clear()
    await world.filesystem.gatherer.gather()
    assert [(each.name, each.next_cookie) for each in world.filesystem.readdir(ino, 0)] == [
        (each.name, each.next_cookie) for each in before
    ]
    if not remembered_names:
        world.filesystem._listings._recent.clear()
    after = list(world.filesystem.readdir(ino, before[17].next_cookie))
    assert [each.name for each in after] == [each.name for each in before[18:]]


async def test_a_listing_goes_on_after_a_name_of_an_attached_directory_that_went_before_it_became_an_ordinary_one(
    world: MemoryWorld,
) -> None:
    ino = await attached(world, 40)
    before = list(world.filesystem.readdir(ino, 0))
    world.unlink(b"cache/" + before[17].name)
    await world.write(b"cache/" + before[5].name + b".new", b"new")
    world.rename(b"cache/" + before[5].name + b".new", b"cache/" + before[5].name)
    await world.filesystem.gatherer.gather()
    for at in (5, 17):
        world.filesystem._listings._recent[ino].clear()
        after = [each.name for each in world.filesystem.readdir(ino, before[at].next_cookie)]
        assert after == [each.name for number, each in enumerate(before) if number > at and number != 17]
