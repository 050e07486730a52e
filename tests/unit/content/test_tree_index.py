from __future__ import annotations

import hashlib
import time
from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvplugins.hash.sha256 import make

from tvfs.catalog.catalog import Family
from tvfs.content.attributes import OwnAttributes, decode_attributes
from tvfs.content.reference import ContentKind
from tvfs.content.tree_builder import BuiltDirectory, TreeBuilder
from tvfs.content.tree_index import (
    DIRECTORY,
    PAGE_ENTRIES,
    REGULAR,
    SYMLINK,
    VERSION,
    IndexEntry,
    TreeIndexMissing,
    TreeIndexPage,
    TreeIndexReader,
    decode_page,
)
from tvfs.digest import Digest
from tvfs.errors import FormatTooNew

HASH = make({})
OWN = OwnAttributes(0o755, 1, 2, 3)


class Rows:
    """Rows of built directories, and how often each family was asked."""

    def __init__(self, *built: BuiltDirectory) -> None:
        self.rows = {(family, key): value for one in built for family, key, value in one.rows}
        self.asked: Counter[Family] = Counter()

    def get(self, family: Family, key: bytes) -> bytes | None:
        self.asked[family] += 1
        return self.rows.get((family, key))


def file(name: bytes, content: bytes = b"x", mode: int = 0o644) -> IndexEntry:
    return IndexEntry(
        name, REGULAR, mode, 10, 20, 30, len(content), ContentKind.CHUNK, hashlib.sha256(content).digest()
    )


def numbered(count: int) -> list[IndexEntry]:
    return [file(b"f%06d" % number) for number in range(count)]


one_name = st.binary(min_size=1, max_size=3).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)
names = st.lists(one_name, unique=True, max_size=600)


@settings(max_examples=30)
@given(names, st.binary(min_size=1, max_size=3))
def test_every_name_is_found_and_no_other(present: list[bytes], other: bytes) -> None:
    built = TreeBuilder(HASH).build(OWN, [file(name) for name in present])
    reader = TreeIndexReader(Rows(built).get)
    index = built.directory.snapshot.index
    for name in present:
        found = reader.lookup(index, name)
        assert found is not None
        assert found.name == name
    assert (reader.lookup(index, other) is not None) == (other in present)
    assert [entry.name for _, entry in reader.iterate(index)] == sorted(present)
    assert reader.position_after(index, other) == sum(name <= other for name in present)


def test_preorder_numbers_count_what_is_below_each_entry() -> None:
    builder = TreeBuilder(HASH)
    inner = builder.build(OWN, [file(b"x"), file(b"y")])
    middle = builder.build(OWN, [file(b"z")], [(b"inner", inner.directory)])
    outer = builder.build(OWN, [file(b"a"), file(b"n")], [(b"middle", middle.directory)])
    reader = TreeIndexReader(Rows(inner, middle, outer).get)
    index = outer.directory.snapshot.index
    assert [(e.name, e.preorder, e.below) for _, e in reader.iterate(index)] == [
        (b"a", 1, 0),
        (b"middle", 2, 4),
        (b"n", 7, 0),
    ]
    assert outer.directory.below == reader.root(index).below == 7
    expected = [None, b"a", b"middle", b"middle", b"middle", b"middle", b"middle", b"n", None]
    assert [entry.name if (entry := reader.at_preorder(index, n)) else None for n in range(9)] == expected
    root = reader.root(index)
    assert (root.entries, root.files, root.bytes, root.subdirectories) == (3, 5, 5, 1)
    assert root.snapshot(index) == outer.directory.snapshot
    assert root.own == OWN
    child = reader.lookup(index, b"middle")
    assert child is not None
    assert (child.kind, child.child) == (DIRECTORY, middle.directory.snapshot.index)


def test_a_large_directory_is_looked_into_with_one_page() -> None:
    built = TreeBuilder(HASH).build(OWN, numbered(100_000))
    rows = Rows(built)
    reader = TreeIndexReader(rows.get)
    index = built.directory.snapshot.index
    found = reader.lookup(index, b"f077777")
    assert found is not None
    assert found.preorder == 77_778
    assert rows.asked == {Family.TREE: 1, Family.TREEPAGE: 1}
    assert reader.at_preorder(index, 77_778) == found
    position, entry = next(reader.iterate(index, 99_999))
    assert (position, entry.name) == (99_999, b"f099999")


def test_pages_are_kept_and_forgotten() -> None:
    built = TreeBuilder(HASH).build(OWN, numbered(PAGE_ENTRIES * 4))
    rows = Rows(built)
    reader = TreeIndexReader(rows.get, kept_pages=2)
    index = built.directory.snapshot.index
    for _ in range(3):
        reader.lookup(index, b"f000000")
    assert rows.asked == {Family.TREE: 1, Family.TREEPAGE: 1}
    assert len(list(reader.iterate(index))) == PAGE_ENTRIES * 4
    reader.lookup(index, b"f000000")
    assert rows.asked[Family.TREEPAGE] == 5
    reader.forget(index)
    reader.lookup(index, b"f000000")
    assert rows.asked == {Family.TREE: 2, Family.TREEPAGE: 6}


def test_decoding_one_page_takes_about_a_millisecond_at_most() -> None:
    built = TreeBuilder(HASH).build(OWN, numbered(PAGE_ENTRIES * 16))
    reader = TreeIndexReader(Rows(built).get, kept_pages=1)
    index = built.directory.snapshot.index
    started = time.perf_counter()
    for number in range(16):
        reader.page(index, number)
    each_ms = (time.perf_counter() - started) / 16 * 1000
    print(f"one page: {each_ms:.3f} ms")
    assert each_ms < 20, "an order of magnitude off"


def test_building_leaves_the_entries_it_was_given_alone() -> None:
    builder = TreeBuilder(HASH)
    entry = file(b"b")
    builder.build(OWN, [file(b"a"), entry])
    assert entry.preorder == 0


@given(st.permutations(numbered(6)))
def test_the_order_of_entries_does_not_matter(entries: list[IndexEntry]) -> None:
    builder = TreeBuilder(HASH)
    assert builder.build(OWN, entries) == builder.build(OWN, numbered(6))


def test_times_and_owners_change_the_attributes_and_not_the_tree() -> None:
    builder = TreeBuilder(HASH)
    first = builder.build(OWN, [file(b"a")]).directory.snapshot
    later = builder.build(OwnAttributes(0o700, 9, 9, 9), [file(b"a", mode=0o600)]).directory.snapshot
    assert first.tree == later.tree
    assert first.attributes != later.attributes
    assert first.index != later.index


def test_an_execute_bit_changes_the_tree() -> None:
    builder = TreeBuilder(HASH)
    plain, executable = (builder.build(OWN, [file(b"a", mode=mode)]).directory.snapshot for mode in (0o644, 0o744))
    assert plain.tree != executable.tree


def test_attributes_hold_special_files_and_links_and_are_decodable() -> None:
    fifo = IndexEntry(b"pipe", 1, 0o600, 1, 1, 1)
    link = IndexEntry(b"link", SYMLINK, 0o777, 1, 1, 1, 1, target=b"t", xattrs=())
    built = TreeBuilder(HASH).build(OWN, [link, fifo, file(b"a")], hard_links=[[b"b", b"a"]])
    assert built.attributes is not None
    attributes = decode_attributes(built.attributes)
    assert [(row.name, row.kind) for row in attributes.entries] == [(b"a", REGULAR), (b"link", SYMLINK), (b"pipe", 1)]
    assert attributes.hard_links == [[b"a", b"b"]]
    without = TreeBuilder(HASH, with_attributes=False).build(OWN, [link, fifo, file(b"a")])
    assert without.directory.snapshot.attributes is None
    assert without.directory.snapshot.tree == built.directory.snapshot.tree


def test_the_empty_directory_is_the_empty_blob() -> None:
    snapshot = TreeBuilder(HASH).build(OWN, []).directory.snapshot
    assert snapshot.tree == Digest("sha256", hashlib.sha256(b"").digest(), 0)


def test_a_missing_damaged_or_newer_row_is_said() -> None:
    built = TreeBuilder(HASH).build(OWN, numbered(3))
    index = built.directory.snapshot.index
    rows = Rows(built)
    root_key, page_key = list(rows.rows)
    with pytest.raises(TreeIndexMissing):
        TreeIndexReader(rows.get).root(b"?" * 32)
    newer = bytearray(rows.rows[root_key])
    assert newer[3] == 1, "array 16 header, then the version"
    newer[3] = 2
    rows.rows[root_key], old = bytes(newer), rows.rows[root_key]
    with pytest.raises(FormatTooNew):
        TreeIndexReader(rows.get).root(index)
    rows.rows[root_key] = old
    rows.rows[page_key] = rows.rows[page_key][:-3]
    with pytest.raises(TreeIndexMissing):
        TreeIndexReader(rows.get).lookup(index, b"f000001")
    del rows.rows[page_key]
    with pytest.raises(TreeIndexMissing):
        TreeIndexReader(rows.get).lookup(index, b"f000001")


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"/etc", b"../x", b"nul\0", b"n" * 256])
def test_a_page_with_a_name_that_leads_elsewhere_is_damaged(name: bytes) -> None:
    entries = sorted([file(b"good"), file(name)], key=lambda entry: entry.name)
    page = msgspec.msgpack.encode(TreeIndexPage(VERSION, entries))
    with pytest.raises(TreeIndexMissing, match="name"):
        decode_page(bytes(32), 0, page)


@pytest.mark.parametrize("names", [[b"b", b"a"], [b"a", b"a"]])
def test_a_page_out_of_order_is_damaged(names: list[bytes]) -> None:
    page = msgspec.msgpack.encode(TreeIndexPage(VERSION, [file(name) for name in names]))
    with pytest.raises(TreeIndexMissing, match="order"):
        decode_page(bytes(32), 0, page)


@pytest.mark.parametrize("target", [b"", b"a\0b"])
def test_a_page_with_a_target_that_no_symlink_has_is_damaged(target: bytes) -> None:
    link = IndexEntry(b"link", SYMLINK, 0o777, 0, 0, 0, len(target), target=target)
    with pytest.raises(TreeIndexMissing, match="target"):
        decode_page(bytes(32), 0, msgspec.msgpack.encode(TreeIndexPage(VERSION, [link])))
