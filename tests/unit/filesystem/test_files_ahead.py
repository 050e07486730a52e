from __future__ import annotations

import pytest

from tvfs.content.reader import ContentReader
from tvfs.content.reference import Content
from tvfs.content.tree_index import TreeIndexReader
from tvfs.filesystem.files_ahead import FILES_AHEAD, LEAST_BYTES, FilesAhead
from tvfs.filesystem.model import WORK
from tvfs.filesystem.nodes import Nodes
from tvfs.testing.memory_vault import MemoryWorld

FILES = 8


class Remembering(ContentReader):
    """Says what it was asked to fetch ahead; nothing runs that would."""

    fetched: list[Content]

    def fetch(self, content: Content) -> None:
        """Remember it."""
        self.fetched.append(content)
        super().fetch(content)


class Shelf:
    """An attached directory of long files, a short one and a link between them."""

    def __init__(self, world: MemoryWorld) -> None:
        vault = world.vault
        self.world = world
        self.nodes = Nodes(vault.catalog, TreeIndexReader(vault.catalog.get), remembered=100)
        self.reader = Remembering(vault.catalog, vault.chunks, vault.hash_function)
        self.reader.fetched = []
        self.ahead = FilesAhead(self.nodes, self.reader)
        self.inos = [int(world.ino(b"copy/%d" % number)) for number in range(FILES)]

    def read(self, number: int, *, whole: bool = True) -> list[int]:
        """Read a file in two pieces, or its beginning only; return which files were asked for ahead meanwhile."""
        ino = self.inos[number]
        inode = self.nodes.get(ino)
        before = len(self.reader.fetched)
        half = inode.size // 2
        self.ahead.note(ino, inode, 0, half)
        if whole:
            self.ahead.note(ino, inode, half, inode.size)
        hashes = [self.nodes.get(ino).hash for ino in self.inos]
        return [hashes.index(content.hash) for content in self.reader.fetched[before:]]


@pytest.fixture
async def shelf(world: MemoryWorld) -> Shelf:
    world.mkdir(b"src")
    for number in range(FILES):
        await world.write(b"src/%d" % number, bytes([number]) * LEAST_BYTES)
        await world.write(b"src/%d-short" % number, b"short")
    world.mkdir(b"src/9")
    snapshot = (await world.filesystem.snapshot(world.ino(b"src"))).snapshot
    world.filesystem.attach(WORK, b"copy", snapshot)
    return Shelf(world)


async def test_after_two_whole_files_in_order_the_next_are_fetched_each_once(shelf: Shelf) -> None:
    assert shelf.read(0) == []
    fetched = [shelf.read(number) for number in range(1, FILES)]
    assert fetched[0] == [2]
    assert sorted(number for some in fetched for number in some) == list(range(2, FILES))
    assert all(ahead - number <= FILES_AHEAD for number, some in enumerate(fetched, start=1) for ahead in some)


async def test_a_look_into_each_file_has_nothing_fetched(shelf: Shelf) -> None:
    assert [shelf.read(number, whole=False) for number in range(FILES)] == [[]] * FILES


async def test_files_read_backwards_or_at_random_have_nothing_fetched(shelf: Shelf) -> None:
    assert [shelf.read(number) for number in (7, 6, 5, 4)] == [[]] * 4
    assert [shelf.read(number) for number in (0, 7, 2)] == [[]] * 3


async def test_who_begins_again_has_them_fetched_again(shelf: Shelf) -> None:
    for number in range(FILES):
        shelf.read(number)
    assert shelf.read(0) == []
    assert shelf.read(1) == [2]
