from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvplugins.hash.sha256 import make

from tvfs.catalog.catalog import Family
from tvfs.content.attributes import OwnAttributes
from tvfs.content.index_writer import IndexWriter, TreeTooLarge
from tvfs.content.tree_builder import Subdirectory, TreeBuilder
from tvfs.content.tree_index import DIRECTORY, MAX_SIZE, REGULAR, IndexEntry, TreeIndexReader, TreeIndexRoot

BUILDER = TreeBuilder(make({}), with_attributes=False)
OWN = OwnAttributes(0o755)
ROWS: dict[tuple[Family, bytes], bytes] = {}


def file(name: bytes, size: int = 1) -> IndexEntry:
    return IndexEntry(name, REGULAR, 0o644, -1, -1, -1, size, 1, b"h" * 32)


def directory(*names: bytes, below: tuple[tuple[bytes, Subdirectory], ...] = ()) -> Subdirectory:
    built = BUILDER.build(OWN, [file(name) for name in names], below)
    ROWS.update(((family, key), value) for family, key, value in built.rows)
    return built.directory


CHILDREN = [directory(), directory(b"a", b"b"), directory(b"x", below=((b"y", directory(b"z")),))]


def root_of(child: Subdirectory) -> TreeIndexRoot:
    return TreeIndexReader(lambda family, key: ROWS.get((family, key))).root(child.snapshot.index)


@settings(max_examples=50)
@given(st.dictionaries(st.binary(min_size=1, max_size=3).filter(lambda n: not set(n) & {0, 46, 47}), st.integers(-1, 2), max_size=600))  # noqa: E501  # fmt: skip
def test_page_by_page_comes_what_the_builder_makes_at_once(names: dict[bytes, int]) -> None:
    built = BUILDER.build(
        OWN,
        [file(name) for name, kind in names.items() if kind < 0],
        [(name, CHILDREN[kind]) for name, kind in names.items() if kind >= 0],
    )
    snapshot = built.directory.snapshot
    writer = IndexWriter(snapshot.index)
    rows = []
    for name, kind in sorted(names.items()):
        if kind < 0:
            rows.append(writer.add(file(name)))
            continue
        child = CHILDREN[kind]
        entry = IndexEntry(name, DIRECTORY, 0o755, -1, -1, -1, child=child.snapshot.index, below=child.below)
        rows.append(writer.add(entry, root_of(child)))
    root, last = writer.finish(snapshot.tree, OWN)
    assert sorted([*filter(None, rows), *last]) == sorted(built.rows)
    assert root.snapshot(snapshot.index) == snapshot
    assert root.height == built.directory.height


def test_more_than_can_be_numbered_or_told_is_refused() -> None:
    writer = IndexWriter(bytes(32), most_below=2)
    writer.add(file(b"a"))
    writer.add(file(b"b"))
    with pytest.raises(TreeTooLarge, match="more than 2 entries"):
        writer.add(file(b"c"))
    writer = IndexWriter(bytes(32))
    writer.add(file(b"a", MAX_SIZE))
    with pytest.raises(TreeTooLarge, match="bytes below it"):
        writer.add(file(b"b"))
