"""What is remembered of listings is bounded, and a listing goes on all the same."""

from __future__ import annotations

import pytest

from tvfs.filesystem import listings
from tvfs.filesystem.listings import Listings
from tvfs.filesystem.model import Ino
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
