"""Trees whose rows lie, put into the catalog past every check: the owner errs out of them, and never into others."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
import pytest

from tvfs.catalog.catalog import Batch
from tvfs.content.attributes import OwnAttributes
from tvfs.content.snapshot import Snapshot
from tvfs.content.tree_builder import BuiltDirectory, Subdirectory, TreeBuilder
from tvfs.content.tree_index import DIRECTORY, REGULAR, IndexEntry, TreeIndexMissing, encode_page, encode_root
from tvfs.digest import Digest
from tvfs.filesystem.attach import MAX_LINKED_NAMES
from tvfs.filesystem.model import WORK, Ino
from tvfs.filesystem.posix_error import NotFound
from tvfs.testing.memory_vault import MemoryWorld

OWN = OwnAttributes(0o755)
changed = msgspec.structs.replace


def file(name: bytes) -> IndexEntry:
    return IndexEntry(name, REGULAR, 0o644, -1, -1, -1)


class Liar:
    """Puts rows into the catalog that no commit would take."""

    def __init__(self, world: MemoryWorld) -> None:
        self.world = world
        self.builder = TreeBuilder(world.vault.hash_function, with_attributes=False)

    def build(
        self, entries: Sequence[IndexEntry], directories: Sequence[tuple[bytes, Subdirectory]] = ()
    ) -> BuiltDirectory:
        built = self.builder.build(OWN, entries, directories)
        self.put(*built.rows)
        return built

    def put(self, *rows: tuple[object, bytes, bytes]) -> None:
        batch = Batch()
        for family, key, value in rows:
            batch.put(family, key, value)  # type: ignore[arg-type]
        self.world.catalog.write(batch)

    def lie(self, built: BuiltDirectory, entries: list[IndexEntry], **root: object) -> Snapshot:
        """Give a built directory other entries and another root."""
        index = built.directory.snapshot.index
        true_root = self.world.filesystem._nodes.trees.root(index)
        self.world.filesystem._nodes.trees.forget(index)
        self.put(encode_root(index, changed(true_root, **root)), encode_page(index, 0, entries))
        return built.directory.snapshot


@pytest.fixture
def liar(world: MemoryWorld) -> Liar:
    return Liar(world)


async def test_a_directory_that_holds_itself_ends(world: MemoryWorld, liar: Liar) -> None:
    inner = liar.build([file(b"f")])
    built = liar.build([], [(b"d", inner.directory)])
    index = built.directory.snapshot.index
    loop = IndexEntry(b"d", DIRECTORY, 0o755, -1, -1, -1, child=index, preorder=1, below=4)
    world.filesystem.attach(WORK, b"out", liar.lie(built, [loop], below=5))
    with pytest.raises(TreeIndexMissing, match="5 below it, and 4 by what its parent says"):
        world.ino(b"out/d")
    await world.write(b"out/new", b"so that it is looked into")
    with pytest.raises(TreeIndexMissing):
        await world.filesystem.snapshot(world.ino(b"out"))
    world.filesystem.discard(WORK, b"out")
    assert world.names(b"") == []


async def test_no_name_of_a_tree_leads_to_an_inode_outside_of_it(world: MemoryWorld, liar: Liar) -> None:
    await world.write(b"before", b"mine")
    built = liar.build([file(b"a"), file(b"b")])
    first = world.filesystem.attach(WORK, b"true", built.directory.snapshot)
    await world.write(b"after", b"mine too")
    far = world.ino(b"after") - first
    for entries in (
        [changed(file(b"a"), preorder=far), changed(file(b"b"), preorder=far + 1)],
        [changed(file(b"a"), preorder=1), changed(file(b"b"), preorder=far)],
        [changed(file(b"a"), preorder=0), changed(file(b"b"), preorder=1)],
    ):
        snapshot = liar.lie(built, entries)
        world.filesystem.attach(WORK, b"out", snapshot)
        for name in (b"out/a", b"out/b"):
            with pytest.raises(TreeIndexMissing):
                world.ino(name)
        world.filesystem.discard(WORK, b"out")
    # A subdirectory that has more below it than its parent says would reach into what follows.
    wide = liar.build([file(b"%03d" % number) for number in range(50)])
    outer = liar.build([], [(b"d", wide.directory)])
    entry = IndexEntry(b"d", DIRECTORY, 0o755, -1, -1, -1, child=wide.directory.snapshot.index, preorder=1, below=0)
    world.filesystem.attach(WORK, b"short", liar.lie(outer, [entry], below=1, files=0))
    await world.write(b"next", b"also mine")
    with pytest.raises(TreeIndexMissing):
        world.names(b"short/d")
    with pytest.raises(TreeIndexMissing):
        world.ino(b"short/d/001")
    assert [await world.read(name) for name in (b"before", b"after", b"next")] == [b"mine", b"mine too", b"also mine"]


async def test_an_empty_page_is_not_read_for_ever(world: MemoryWorld, liar: Liar) -> None:
    built = liar.build([file(b"a"), file(b"b")])
    world.filesystem.attach(WORK, b"out", liar.lie(built, []))
    with pytest.raises(TreeIndexMissing):
        world.names(b"out")
    with pytest.raises(TreeIndexMissing):
        world.ino(b"out/a")


HARD_LINKS = {
    "to a directory": ([b"d", b"d/f"], TreeIndexMissing),
    "of a directory to a file": ([b"a", b"d"], TreeIndexMissing),
    "to itself": ([b"a", b"a"], TreeIndexMissing),
    "between files that differ": ([b"a", b"big"], TreeIndexMissing),
    "to nothing": ([b"a", b"nothing"], NotFound),
    "out of the tree": ([b"a", b"../a"], NotFound),
    "below a file": ([b"a", b"a/b"], TreeIndexMissing),
}


@pytest.mark.parametrize(("group", "error"), HARD_LINKS.values(), ids=HARD_LINKS.keys())
async def test_hard_links_that_no_tree_can_have_are_refused(
    world: MemoryWorld, liar: Liar, group: list[bytes], error: type[Exception]
) -> None:
    inner = liar.build([file(b"f")])
    big = IndexEntry(b"big", REGULAR, 0o644, -1, -1, -1, 5, 1, b"h" * 32)
    built = liar.build([file(b"a"), file(b"b"), big], [(b"d", inner.directory)])
    index = built.directory.snapshot.index
    root = world.filesystem._nodes.trees.root(index)
    world.filesystem._nodes.trees.forget(index)
    for groups in ([group], [[b"b", b"d/f"], group]):
        liar.put(encode_root(index, changed(root, hard_links=groups)))
        with pytest.raises(error):
            world.filesystem.attach(WORK, b"out", built.directory.snapshot)
        assert not world.exists(b"out")
        world.filesystem._nodes.trees.forget(index)
    liar.put(encode_root(index, changed(root, hard_links=[[b"a", b"b"], [b"b", b"d/f"]])))
    with pytest.raises(TreeIndexMissing):
        world.filesystem.attach(WORK, b"out", built.directory.snapshot)


async def test_more_hard_links_than_can_be_made_at_once_become_files(world: MemoryWorld, liar: Liar) -> None:
    names = [b"%05d" % number for number in range(MAX_LINKED_NAMES + 2)]
    built = liar.build([file(name) for name in names])
    index = built.directory.snapshot.index
    root = world.filesystem._nodes.trees.root(index)
    world.filesystem._nodes.trees.forget(index)
    groups = [names[at : at + 2] for at in range(0, len(names), 2)]
    liar.put(encode_root(index, changed(root, hard_links=groups)))
    started = time.perf_counter()
    world.filesystem.attach(WORK, b"out", built.directory.snapshot)
    assert time.perf_counter() - started < 0.5
    assert world.stat(b"out/00000").nlink == 1
    liar.put(encode_root(index, changed(root, hard_links=groups[: MAX_LINKED_NAMES // 2])))
    world.filesystem._nodes.trees.forget(index)
    world.filesystem.attach(WORK, b"linked", built.directory.snapshot)
    assert world.stat(b"linked/00000").nlink == 2


async def test_times_that_no_row_can_hold_are_the_nearest_that_can_be(world: MemoryWorld, liar: Liar) -> None:
    builder = TreeBuilder(world.vault.hash_function)
    built = builder.build(OwnAttributes(0o755, mtime_ns=1 << 63), [changed(file(b"a"), mtime_ns=(1 << 64) - 1)])
    liar.put(*built.rows)
    world.filesystem.attach(WORK, b"out", built.directory.snapshot)
    assert world.stat(b"out").mtime_ns == world.stat(b"out/a").mtime_ns == (1 << 63) - 1
    await world.write(b"out/a", b"changed")
    assert await world.read(b"out/a") == b"changed"


async def test_an_index_that_went_and_came_again_is_read_anew(world: MemoryWorld, liar: Liar) -> None:
    built = liar.build([file(b"a"), file(b"b")])
    assert world.names(b"") == []
    world.filesystem.attach(WORK, b"one", built.directory.snapshot)
    assert world.names(b"one") == [b"a", b"b"]
    world.filesystem.discard(WORK, b"one")
    trees = world.filesystem._nodes.trees
    index = built.directory.snapshot.index
    root = trees.root(index)
    entries = [changed(file(name), preorder=number) for number, name in enumerate((b"x", b"y", b"z"), 1)]
    liar.put(
        encode_root(index, changed(root, entries=3, below=3, files=3, page_names=[b"x"])),
        encode_page(index, 0, entries),
    )
    world.filesystem.attach(WORK, b"two", built.directory.snapshot)
    await world.write(b"after", b"mine")
    assert world.names(b"two") == [b"x", b"y", b"z"]
    assert world.ino(b"two/z") < world.ino(b"after")


async def test_a_path_longer_than_the_kernel_takes_is_refused_at_once(world: MemoryWorld) -> None:
    started = time.perf_counter()
    with pytest.raises(Exception, match="at most 4096"):
        world.filesystem.resolve(b"./" * (8 << 20))
    assert time.perf_counter() - started < 1


def test_inode_numbers_of_digests_are_not_made_of_sizes_without_end() -> None:
    with pytest.raises(Exception, match="is not a digest"):
        Digest.parse("blake3:" + "00" * 32 + "-" + "9" * 10_000)
    assert Ino(1) == 1
