from __future__ import annotations

import time
import tracemalloc
from dataclasses import replace

import pytest

from tests.unit.content.foreign import MemorySource, digest_of, message
from tvfs.content.attributes import UNKNOWN, OwnAttributes
from tvfs.content.directory_message import TreeLimits
from tvfs.content.ingress import Ingress, IngressLimits, TreeForeign, TreeIncomplete, TreeRefused
from tvfs.content.reference import ContentKind
from tvfs.content.tree_builder import TreeBuilder
from tvfs.content.tree_index import DIRECTORY, PAGE_ENTRIES, REGULAR, SYMLINK, IndexEntry
from tvfs.digest import Digest

SMALL = IngressLimits(max_depth=8, max_directories=50, max_below=1000, max_entries=2000)


@pytest.fixture
def source() -> MemorySource:
    return MemorySource()


async def take(source: MemorySource, tree: Digest, limits: IngressLimits | None = None) -> bytes:
    return (await Ingress(source, limits).take(tree)).index


async def refusal(source: MemorySource, tree: Digest, limits: IngressLimits | None = None) -> str:
    with pytest.raises(TreeRefused) as refused:
        await take(source, tree, limits)
    assert not any(key == Ingress(source).index_of(tree.hash) for _, key in source.rows), "nothing leads to it"
    return str(refused.value)


async def test_a_foreign_tree_gets_the_index_that_the_same_local_tree_has(source: MemorySource) -> None:
    hello, script = source.add(b"hello"), source.add(b"#!/bin/sh")
    deep = source.directory({"b.sh": script}, {}, {"é": "../a"})
    tree = source.directory({"a": hello, "empty": digest_of(b"")}, {"deep": deep, "none": digest_of(b"")})
    snapshot = await Ingress(source).take(tree)

    own = OwnAttributes(0o755, UNKNOWN, UNKNOWN, UNKNOWN)
    builder = TreeBuilder(source.hash_function, with_attributes=False)
    link = IndexEntry("é".encode(), SYMLINK, 0o777, UNKNOWN, UNKNOWN, UNKNOWN, 4, target=b"../a")
    inner = builder.build(own, [file(b"b.sh", script, 0o755), link])
    nothing = builder.build(own, [])
    entries = [file(b"a", hello), IndexEntry(b"empty", REGULAR, 0o644, UNKNOWN, UNKNOWN, UNKNOWN, 0, 0, bytes(32))]
    outer = builder.build(own, entries, [(b"deep", inner.directory), (b"none", nothing.directory)])
    assert snapshot == outer.directory.snapshot
    assert source.rows == {row[:2]: row[2] for built in (inner, nothing, outer) for row in built.rows}


def file(name: bytes, digest: Digest, mode: int = 0o644) -> IndexEntry:
    return IndexEntry(
        name, REGULAR, mode, UNKNOWN, UNKNOWN, UNKNOWN, digest.size, int(ContentKind.CHUNK), digest.hash
    )  # fmt: skip


async def test_a_tree_that_was_taken_is_not_read_again(source: MemorySource) -> None:
    tree = source.directory({"a": source.add(b"a")}, {"d": source.directory({"b": source.add(b"b")})})
    first = await take(source, tree)
    source.read_bytes = 0
    assert await take(source, tree) == first
    assert source.read_bytes == 0
    wider = source.directory({}, {"old": tree, "x": digest_of(b"")})
    await take(source, wider)
    assert source.read_bytes <= 2 * wider.size, "only the new directory was read"


async def test_names_that_are_not_utf8_and_all_kinds_are_sorted_by_their_bytes(source: MemorySource) -> None:
    one = source.add(b"1")
    tree = source.directory(
        {"\x01%80": one, "\x01%FF": one, "a": one, "ä": one}, {"\x01%81": digest_of(b""), "b": digest_of(b"")},
        {"A": "t", "Z": "t", "\U0001f600": "t"},
    )  # fmt: skip
    index = await take(source, tree)
    names = [entry.name for _, entry in source.reader.iterate(index)]
    assert names == sorted([b"\x80", b"\xff", b"a", "ä".encode(), b"\x81", b"b", b"A", b"Z", "😀".encode()])


HEX = "ab" * 32
BAD_MESSAGES = {
    "a name that is ..": (message({"..": digest_of(b"")}), "cannot be the name"),
    "a name that is .": (message({}, {".": digest_of(b"")}), "cannot be the name"),
    "an empty name": (message({}, {}, {"": "t"}), "a name is empty"),
    "a name with a slash": (message({"a/b": digest_of(b"")}), "slash or a NUL"),
    "an absolute name": (message({}, {"/etc": digest_of(b"")}), "slash or a NUL"),
    "a name with a NUL": (message({"a\0b": digest_of(b"")}), "slash or a NUL"),
    "an escaped ..": (message({"\x01..": digest_of(b"")}), "not properly escaped"),
    "an escaped slash": (message({"\x01%FF/x": digest_of(b"")}), "slash or a NUL"),
    "an escaped NUL": (message({"\x01%FF%00": digest_of(b"")}), "slash or a NUL"),
    "an escape that hides a plain name": (message({"\x01%61": digest_of(b"")}), "not properly escaped"),
    "a name too long": (message({"n" * 256: digest_of(b"")}), "255 are allowed"),
    "wrong order": (message({"b": digest_of(b""), "a": digest_of(b"")}), "not sorted"),
    "a file twice": (message({"a": digest_of(b"")}) * 2, "occurs twice"),
    "a file and a directory of one name": (message({"a": digest_of(b"")}, {"a": digest_of(b"")}), "occurs twice"),
    "a directory and a symlink of one name": (message({}, {"a": digest_of(b"")}, {"a": "t"}), "occurs twice"),
    "a file and a symlink of one name": (message({"a": digest_of(b"")}, {}, {"a": "t"}), "occurs twice"),
    "kinds out of order": (message({}, {}, {"l": "t"}) + message({"a": digest_of(b"")}), "order of their numbers"),
    "a target with a NUL": (message({}, {}, {"l": "a\0b"}), "target of the symlink"),
    "a target too long": (message({}, {}, {"l": "t" * 4096}), "target of the symlink"),
    "no target": (message({}, {}, {"l": ""}), "target of the symlink"),
    "an unknown field": (message({"a": digest_of(b"")}) + b"\x3a\x00", "not a Directory message"),
    "an unknown field in an entry": (b"\x1a\x08\x0a\x01l\x12\x01t\x78\x01", "unknown fields"),
    "a length in two ways": (b"\x1a\x86\x00\x0a\x01l\x12\x01t", "unknown fields, or is not written the one way"),
    "truncated": (message({"a": digest_of(b"")})[:-1], "end too early"),
    "a huge length": (b"\x0a\xff\xff\xff\xff\x0f" + b"x" * 50, "end too early"),
    "a length without an end": (b"\x0a" + b"\xff" * 20, "a length cannot be read"),
    "not protobuf": (b"#!/bin/sh\necho\n", "not a Directory message"),
    "a size below zero": (
        b"\x0a\x52\x0a\x01a\x12\x4d\x0a\x40" + HEX.encode() + b"\x10" + b"\xff" * 9 + b"\x01",
        "the size of b'a' is -1",
    ),
    "an upper-case digest": (message({"a": digest_of(b"")}).replace(b"e3b0c4", b"E3B0C4"), "lower-case hexadecimal"),
    "an entry of megabytes": (message({"a": digest_of(b"")}, {}, {"l": "t" * (1 << 21)}), "an entry has"),
}


@pytest.mark.parametrize(("encoded", "reason"), BAD_MESSAGES.values(), ids=BAD_MESSAGES.keys())
async def test_what_breaks_a_rule_is_refused_with_its_place(source: MemorySource, encoded: bytes, reason: str) -> None:
    assert reason in await refusal(source, source.add(encoded))
    tree = source.directory({}, {"outer": source.directory({}, {"bad": source.add(encoded)})})
    said = await refusal(source, tree)
    assert reason in said
    assert "in 'outer/bad'" in said


@pytest.mark.parametrize("target", ["/etc/passwd", "../../..", "//", "a\n", "\x01%FF"])
async def test_a_symlink_may_point_anywhere_since_only_who_follows_it_goes_there(
    source: MemorySource, target: str
) -> None:
    index = await take(source, source.directory({}, {}, {"link": target}))
    found = source.reader.lookup(index, b"link")
    assert found is not None
    assert found.target == (b"\xff" if target.startswith("\x01") else target.encode())


async def test_node_properties_are_left_out(source: MemorySource) -> None:
    # FileNode.node_properties: unix_mode 04777, field 3 of NodeProperties, a UInt32Value.
    properties = b"\x1a\x03\x08\xff\x13"
    file_ = message({"a": source.add(b"a")})[2:] + b"\x32" + bytes([len(properties)]) + properties
    tree = source.add(b"\x0a" + bytes([len(file_)]) + file_)
    found = source.reader.lookup(await take(source, tree), b"a")
    assert found is not None
    assert found.mode == 0o644


async def test_sizes_that_lie_are_refused_and_name_the_path(source: MemorySource) -> None:
    seven = source.add(b"7 bytes")
    for wrong in (6, 8, 1 << 40):
        lying = source.directory({"x": replace(seven, size=wrong)})
        assert f"in 'd/x', {wrong} bytes are told of a content that has 7" in await refusal(
            source, source.directory({}, {"d": lying})
        )
    assert "in 'x', the file is said to have 0 bytes" in await refusal(
        source, source.directory({"x": replace(seven, size=0)})
    )
    empty = replace(digest_of(b""), size=5)
    assert "another digest" in await refusal(source, source.directory({"x": empty}))
    inner = source.directory({"x": seven})
    said = await refusal(source, source.directory({}, {"d": replace(inner, size=inner.size + 1)}))
    assert f"in 'd', {inner.size + 1} bytes are told of a content that has {inner.size}" in said
    await take(source, inner)
    said = await refusal(source, source.directory({}, {"d": replace(inner, size=inner.size - 1)}))
    assert "bytes are told of" in said, "also where the true one is known already"
    assert "another digest" in await refusal(source, source.directory({}, {"d": replace(inner, size=0)}))
    assert "another digest" in await refusal(source, source.directory({}, {"d": replace(digest_of(b""), size=3)}))
    with pytest.raises(TreeRefused, match=r"its root, .* bytes are told"):
        await take(source, replace(inner, size=3))


async def test_what_is_absent_is_named(source: MemorySource) -> None:
    gone = digest_of(b"never uploaded")
    for tree in (
        source.directory({"gone": gone}),
        source.directory({}, {"gone": gone}),
    ):
        with pytest.raises(TreeIncomplete, match=r"'gone'.*upload it first") as incomplete:
            await take(source, tree)
        assert incomplete.value.missing == gone
    with pytest.raises(TreeIncomplete, match="its root"):
        await take(source, gone)
    with pytest.raises(TreeForeign, match="under sha256, the vault's hash function"):
        await take(source, Digest("blake3", gone.hash, 3))
    with pytest.raises(TreeForeign):
        await take(source, Digest("md5", gone.hash, 3))


async def test_bytes_that_do_not_have_the_hash_they_are_kept_under_are_refused(source: MemorySource) -> None:
    source.in_chunks = False
    tree = source.directory({"a": source.add(b"a")})
    await take(source, tree)
    source.rows.clear()
    source.blobs[tree.hash] = message({"b": source.add(b"a")})
    assert "do not have its hash" in await refusal(source, tree)


def nested(source: MemorySource, levels: int) -> Digest:
    """A tree of so many levels, the root included."""
    tree = digest_of(b"")
    for _ in range(levels - 1):
        tree = source.directory({}, {"d": tree})
    return tree


async def test_a_thousand_levels_are_taken_and_one_more_refused(source: MemorySource) -> None:
    index = await take(source, nested(source, 1000))
    root = source.reader.root(index)
    assert (root.below, root.height) == (999, 999)
    fresh = MemorySource()
    said = await refusal(fresh, nested(fresh, 1001))
    assert "more than 1000 levels" in said
    assert len(said) < 500, "a path of a thousand names is not shown whole"
    deeper = source.directory({}, {"x": nested(source, 1000)})
    assert "more than 1000 levels" in await refusal(source, deeper), "also on top of what was taken before"


async def test_a_directory_that_is_there_many_times_is_read_once(source: MemorySource) -> None:
    tree = source.directory({"f": source.add(b"f")})
    total = tree.size
    for _ in range(28):
        tree = source.directory({}, {"left": tree, "right": tree})
        total += tree.size
    started = time.perf_counter()
    root = source.reader.root(await take(source, tree))
    assert time.perf_counter() - started < 5
    assert source.read_bytes == 2 * total, "twice: to check, and to write"
    assert (root.below, root.files) == (3 * 2**28 - 2, 2**28)


async def test_more_entries_than_there_are_numbers_are_refused(source: MemorySource) -> None:
    tree = digest_of(b"")
    for _ in range(64):
        tree = source.directory({}, dict.fromkeys("abcdefgh", tree))
    assert "more than 4294967296 entries" in await refusal(source, tree)
    long = Digest("sha256", source.add(b"l").hash, 1)
    tree = source.directory(dict.fromkeys("abcdefgh", long))
    for _ in range(4):
        tree = source.directory({}, dict.fromkeys("abcdefgh", tree))
    assert "more than 1000 entries" in await refusal(source, tree, SMALL)


async def test_counts_of_directories_and_entries_are_bounded(source: MemorySource) -> None:
    many = {f"{n:03}": source.directory({f"{n}": source.add(b"x")}) for n in range(60)}
    assert "more than 50 different directories" in await refusal(source, source.directory({}, many), SMALL)
    wide = source.directory({f"{n:04}": source.add(b"x") for n in range(2001)})
    assert "more than 2000 entries" in await refusal(source, wide, SMALL)
    narrow = IngressLimits(directory=TreeLimits(max_entries=10, max_bytes=1 << 20))
    assert "11 entries or more, and 10 are allowed" in await refusal(
        source, source.directory({f"{n:02}": source.add(b"x") for n in range(11)}), narrow
    )
    short = IngressLimits(directory=TreeLimits(max_bytes=100))
    assert "and 100 are allowed" in await refusal(source, wide, short)
    waiting = IngressLimits(max_waiting_bytes=1000)
    assert "too many different directories in each other" in await refusal(source, source.directory({}, many), waiting)
    odd = source.directory({f"\x01%FF{n:03}": source.add(b"x") for n in range(11)})
    few = IngressLimits(directory=TreeLimits(max_escaped=10))
    assert "more than 10 of its names are not UTF-8" in await refusal(source, odd, few)


async def test_forty_thousand_entries_take_little_memory_and_are_numbered_across_pages(
    source: MemorySource,
) -> None:
    one = source.add(b"one")
    directory = source.directory({"inner": one})
    names = [f"entry-{n:06}" for n in range(40_000)]
    tree = source.directory(
        dict.fromkeys(names[::2], one), dict.fromkeys(names[1::4], directory), dict.fromkeys(names[3::4], "t")
    )  # fmt: skip
    source.in_chunks = False
    tracemalloc.start()
    try:
        index = await take(source, tree)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    rows_bytes = sum(map(len, source.rows.values()))
    assert peak_bytes - rows_bytes < 20 << 20, "pages go out as they fill"
    reader = source.reader
    root = reader.root(index)
    assert (root.entries, root.below, root.subdirectories) == (40_000, 50_000, 10_000)
    found = [entry for _, entry in reader.iterate(index)]
    assert [entry.name.decode() for entry in found] == names
    assert {entry.kind for entry in found} == {REGULAR, DIRECTORY, SYMLINK}
    assert max(source.commits) <= 1024
    assert len(root.page_names) == -(-40_000 // PAGE_ENTRIES)
