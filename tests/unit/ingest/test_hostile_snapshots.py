"""Snapshots whose rows were made by a liar, and targets in which somebody else is at work."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace as replaced
from pathlib import Path

import msgspec
import pytest

from tests.unit.ingest.bench import Bench
from tvfs.content.attributes import OwnAttributes
from tvfs.content.reference import Content, ContentKind
from tvfs.content.snapshot import Snapshot
from tvfs.content.tree_builder import BuiltDirectory, Subdirectory, TreeBuilder
from tvfs.content.tree_index import (
    DIRECTORY,
    REGULAR,
    SYMLINK,
    VERSION,
    IndexEntry,
    TreeIndexMissing,
    TreeIndexPage,
    TreeIndexRoot,
    encode_page,
    encode_root,
    page_key,
)
from tvfs.digest import ChunkId, Digest
from tvfs.ingest.local_target import remove_tree, set_attributes_by_name
from tvfs.ingest.materialise import KEPT_OPEN, TargetInTheWay, TargetUnwritable, materialise
from tvfs.ingest.snapshot_source import MAX_BLOB_BYTES, ContentDamaged, SnapshotSource

OWN = OwnAttributes(0o755)


class Liar:
    """Rows that no commit takes, and a source that gives them out."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.builder = TreeBuilder(bench.settings.hash_function, with_attributes=False)
        self.rows: dict[tuple[str, bytes], bytes] = {}
        self.before_chunks: Callable[[], None] = lambda: None

    def build(self, entries: Sequence[IndexEntry] = (), directories: Sequence[tuple[bytes, Subdirectory]] = ()) -> BuiltDirectory:  # noqa: E501  # fmt: skip
        built = self.builder.build(OWN, entries, directories)
        self.rows.update(((family.value, key), value) for family, key, value in built.rows)
        return built

    def put(self, row: tuple[object, bytes, bytes]) -> None:
        self.rows[str(row[0]), row[1]] = row[2]

    def file(self, name: bytes, content: bytes) -> IndexEntry:
        with self.bench.ingest() as ingest:
            stored = ingest.add_bytes(content)
            ingest.finish()
        return IndexEntry(name, REGULAR, 0o644, -1, -1, -1, len(content), int(stored.kind), stored.hash)

    @property
    def source(self) -> SnapshotSource:
        def chunks(chunk_ids: Sequence[ChunkId]) -> list[bytes]:
            self.before_chunks()
            return self.bench.port.chunks(chunk_ids)

        return SnapshotSource(
            lambda keys: [self.rows.get(key) for key in keys], chunks, self.bench.settings.hash_function
        )

    def restore(self, snapshot: Snapshot, target: Path) -> int:
        return materialise(self.source, snapshot, os.fspath(target))


@pytest.fixture
def liar(bench: Bench) -> Liar:
    return Liar(bench)


def root_of(liar: Liar, built: BuiltDirectory) -> TreeIndexRoot:
    index = built.directory.snapshot.index
    return msgspec.msgpack.decode(liar.rows["tree", index], type=TreeIndexRoot)


def names_in(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*"))


@contextmanager
def few_descriptors(most: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_directory_that_holds_itself_is_not_followed_for_ever(liar: Liar, tmp_path: Path) -> None:
    inner = liar.build([IndexEntry(b"f", REGULAR, 0o644, -1, -1, -1)])
    built = liar.build([], [(b"d", inner.directory)])
    index = built.directory.snapshot.index
    entry = IndexEntry(b"d", DIRECTORY, 0o755, -1, -1, -1, child=index, preorder=1, below=2)
    liar.put(encode_page(index, 0, [entry]))
    with pytest.raises(TreeIndexMissing, match="other inode numbers"):
        liar.restore(built.directory.snapshot, tmp_path / "target")
    liar.put(encode_root(index, msgspec.structs.replace(root_of(liar, built), below=3)))
    with pytest.raises(TreeIndexMissing, match="3 below it, and 2 by what its parent says"):
        liar.restore(built.directory.snapshot, tmp_path / "target")
    assert names_in(tmp_path) == []


LIES: dict[str, Callable[[list[IndexEntry]], list[IndexEntry]]] = {
    "an entry more": lambda entries: [*entries, replace(entries[-1], name=b"zz", preorder=4)],
    "an entry less": lambda entries: entries[:-1],
    "none at all": lambda entries: [],
    "numbers that skip": lambda entries: [entries[0], replace(entries[1], preorder=5), entries[2]],
    "a number twice": lambda entries: [entries[0], replace(entries[1], preorder=1), entries[2]],
    "something below a file": lambda entries: [replace(entries[0], below=1), *entries[1:]],
    "a kind that is none": lambda entries: [replace(entries[0], kind=7), *entries[1:]],
    "a mode with a type in it": lambda entries: [replace(entries[0], mode=0o100644), *entries[1:]],
    "a size below zero": lambda entries: [replace(entries[0], size=-1), *entries[1:]],
    "a size beyond the kernel": lambda entries: [replace(entries[0], size=1 << 63), *entries[1:]],
    "a content of no kind": lambda entries: [replace(entries[0], content_kind=3), *entries[1:]],
    "a short hash": lambda entries: [replace(entries[0], content_kind=1, content_hash=b"x", size=1), *entries[1:]],
    "an owner beyond 32 bits": lambda entries: [replace(entries[0], uid=1 << 32), *entries[1:]],
    "a device beyond 32 bits": lambda entries: [replace(entries[0], kind=2, rdev=1 << 32), *entries[1:]],
    "a directory without an index": lambda entries: [replace(entries[0], kind=DIRECTORY), *entries[1:]],
    "another first name": lambda entries: [replace(entries[0], name=b"A"), *entries[1:]],
}
replace = msgspec.structs.replace


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_a_page_that_lies_is_damaged(liar: Liar, tmp_path: Path, lie: Callable[[list[IndexEntry]], list[IndexEntry]]) -> None:  # noqa: E501  # fmt: skip
    built = liar.build([IndexEntry(name, REGULAR, 0o644, -1, -1, -1) for name in (b"a", b"b", b"c")])
    index = built.directory.snapshot.index
    key = ("treepage", page_key(index, 0))
    entries = msgspec.msgpack.decode(liar.rows[key], type=TreeIndexPage).entries
    liar.rows[key] = msgspec.msgpack.encode(TreeIndexPage(VERSION, lie(entries)))
    with pytest.raises(TreeIndexMissing, match="damaged"):
        liar.restore(built.directory.snapshot, tmp_path / "target")
    assert names_in(tmp_path) == []


ROOT_LIES = {
    "more pages than entries": {"page_names": [b"a", b"b"], "page_preorders": [1, 2]},
    "no pages": {"page_names": [], "page_preorders": []},
    "pages in no order": {"entries": 257, "below": 300, "page_names": [b"b", b"a"], "page_preorders": [1, 257]},
    "numbers in no order": {"entries": 257, "below": 300, "page_names": [b"a", b"b"], "page_preorders": [1, 1]},
    "more entries than there are below": {"below": 0},
    "more below than can be numbered": {"below": 1 << 41},
    "more subdirectories than entries": {"subdirectories": 2},
    "more files than there are below": {"files": 10},
    "a hash that is none": {"tree_hash": b"short"},
    "no entries and something below": {"entries": 0, "files": 0, "page_names": [], "page_preorders": []},
    "a million hard links": {"hard_links": [[b"a"] * 1_000_001]},
}


@pytest.mark.parametrize("changes", ROOT_LIES.values(), ids=ROOT_LIES.keys())
def test_a_root_that_lies_is_damaged(liar: Liar, tmp_path: Path, changes: dict[str, object]) -> None:
    built = liar.build([IndexEntry(b"a", REGULAR, 0o644, -1, -1, -1)])
    index = built.directory.snapshot.index
    liar.put(encode_root(index, replace(root_of(liar, built), **changes)))
    with pytest.raises(TreeIndexMissing, match="damaged"):
        liar.restore(built.directory.snapshot, tmp_path / "target")
    assert names_in(tmp_path) == []


def test_hard_links_that_lead_elsewhere_link_nothing(liar: Liar, tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"victim")
    built = liar.build([liar.file(b"a", b"one"), liar.file(b"b", b"two")])
    index = built.directory.snapshot.index
    groups = [[b"../victim", b"a"], [b"/etc/passwd", b"b"], [b"b", b"../new"], [b"", b"a/../b"]]
    liar.put(encode_root(index, replace(root_of(liar, built), hard_links=groups)))
    liar.restore(built.directory.snapshot, tmp_path / "target")
    assert names_in(tmp_path) == ["target", "target/a", "target/b", "victim"]
    assert (tmp_path / "target/a").read_bytes() == b"one"
    assert (tmp_path / "victim").stat().st_nlink == 1


def test_content_of_another_length_than_the_row_says_is_damaged(liar: Liar, tmp_path: Path) -> None:
    entry = liar.file(b"a", b"one")
    for size in (2, 4, 1 << 60):
        built = liar.build([replace(entry, size=size)])
        with pytest.raises(ContentDamaged, match="length"):
            liar.restore(built.directory.snapshot, tmp_path / "target")
    assert names_in(tmp_path) == []


def test_a_content_that_is_said_to_be_endless_is_not_taken_into_memory(liar: Liar) -> None:
    with pytest.raises(ContentDamaged, match="too many"):
        liar.source.blob(Digest("blake3", bytes(32), MAX_BLOB_BYTES + 1))


def deep(liar: Liar, levels: int, bottom: IndexEntry) -> BuiltDirectory:
    built = liar.build([bottom])
    for _ in range(levels - 1):
        built = liar.build([], [(b"d", built.directory)])
    return built


def descend(start: Path) -> tuple[int, int]:
    """The descriptor of the lowest directory, and how many levels there are."""
    here = os.open(start, os.O_RDONLY)
    levels = 1
    while "d" in os.listdir(here):
        below = os.open("d", os.O_RDONLY | os.O_NOFOLLOW, dir_fd=here)
        os.close(here)
        here = below
        levels += 1
    return here, levels


def test_a_thousand_levels_are_written_and_taken_away_with_few_descriptors(liar: Liar, tmp_path: Path) -> None:
    built = deep(liar, 1200, liar.file(b"bottom", b"x"))
    with few_descriptors(256):
        assert liar.restore(built.directory.snapshot, tmp_path / "target") == 1
        lowest, levels = descend(tmp_path / "target")
        assert (os.listdir(lowest), levels) == (["bottom"], 1200)
        os.close(lowest)
        remove_tree(os.open(tmp_path, os.O_RDONLY), b"target")
        assert names_in(tmp_path) == []
        damaged = deep(liar, 1200, replace(liar.file(b"bottom", b"x"), size=7))
        with pytest.raises(ContentDamaged):
            liar.restore(damaged.directory.snapshot, tmp_path / "target")
        assert names_in(tmp_path) == [], "what was begun is taken away"


def test_deep_directories_that_nobody_may_enter_are_written(liar: Liar, tmp_path: Path) -> None:
    own = OwnAttributes(0o000)
    built = liar.build([liar.file(b"bottom", b"x")])
    for _ in range(3 * KEPT_OPEN):
        built = liar.builder.build(own, [], [(b"d", built.directory)])
        liar.rows.update(((family.value, key), value) for family, key, value in built.rows)
    liar.restore(built.directory.snapshot, tmp_path / "target")
    assert stat.S_IMODE((tmp_path / "target").stat().st_mode) == 0
    remove_tree(os.open(tmp_path, os.O_RDONLY), b"target")
    assert names_in(tmp_path) == []


def test_a_directory_replaced_by_a_symlink_meanwhile_is_not_followed(liar: Liar, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    target = tmp_path / "target"
    (target / "a" / "b").mkdir(parents=True)
    first = liar.build([liar.file(b"1", b"first")])
    second = liar.build([liar.file(b"2", b"second")], [(b"b", liar.build([liar.file(b"3", b"third")]).directory)])
    built = liar.build([], [(b"A", first.directory), (b"a", second.directory)])

    def swap() -> None:
        if (target / "a").is_dir() and not (target / "a").is_symlink():
            (target / "a").rename(tmp_path / "moved")
            (target / "a").symlink_to(tmp_path / "outside")

    liar.before_chunks = swap
    with pytest.raises(TargetInTheWay, match="target/a"):
        liar.restore(built.directory.snapshot, target)
    assert os.listdir(tmp_path / "outside") == []
    assert os.listdir(tmp_path / "moved/b") == []


def test_a_directory_moved_away_far_above_is_noticed_on_the_way_back(liar: Liar, tmp_path: Path) -> None:
    levels = 2 * KEPT_OPEN
    target = tmp_path / "target"
    target.joinpath(*["d"] * levels).mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    built = liar.build([liar.file(b"bottom", b"x")])
    late = liar.file(b"late", b"y")
    for _ in range(levels):
        built = liar.build([late], [(b"d", built.directory)])

    def move() -> None:
        # The lowest closed directory now lies in another: its `..` leads outside of the target.
        if (target / "d" / "d").exists() and not (tmp_path / "outside" / "d").exists():
            (target / "d" / "d").rename(tmp_path / "outside" / "d")

    liar.before_chunks = move
    with pytest.raises(TargetInTheWay):
        liar.restore(built.directory.snapshot, target)
    assert not (tmp_path / "outside" / "late").exists()


def test_the_mode_of_a_special_file_is_never_set_through_a_symlink(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.touch(mode=0o600)
    (tmp_path / "pipe").symlink_to(victim)
    directory = os.open(tmp_path, os.O_RDONLY)
    pipe = IndexEntry(b"pipe", stat.S_IFIFO >> 12, 0o666, -1, -1, -1)
    with pytest.raises(OSError, match="symbolic links"):
        set_attributes_by_name(directory, b"pipe", pipe, owner=False)
    assert stat.S_IMODE(victim.stat().st_mode) == 0o600
    (tmp_path / "pipe").unlink()
    os.mkfifo(tmp_path / "pipe", 0o600)
    set_attributes_by_name(directory, b"pipe", pipe, owner=False)
    assert stat.S_IMODE((tmp_path / "pipe").stat().st_mode) == 0o666
    os.close(directory)


def test_removing_follows_no_symlink(tmp_path: Path) -> None:
    (tmp_path / "outside/kept").mkdir(parents=True)
    place = tmp_path / "place"
    (place / "a/b").mkdir(parents=True)
    (place / "a/link").symlink_to(tmp_path / "outside")
    (place / "a/b/link").symlink_to(tmp_path / "outside/kept")
    directory = os.open(tmp_path, os.O_RDONLY)
    remove_tree(directory, b"place")
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    remove_tree(directory, b"link")
    os.close(directory)
    assert names_in(tmp_path) == ["link", "outside", "outside/kept"]


def test_a_symlink_in_a_tree_is_made_and_not_followed(liar: Liar, tmp_path: Path) -> None:
    link = IndexEntry(b"a", SYMLINK, 0o777, -1, -1, -1, 4, target=b"/etc")
    built = liar.build([link, liar.file(b"b", b"x")])
    liar.restore(built.directory.snapshot, tmp_path / "target")
    assert os.readlink(tmp_path / "target/a") == "/etc"
    within = liar.build([], [(b"a", liar.build([liar.file(b"passwd", b"x")]).directory)])
    with pytest.raises((TargetInTheWay, TargetUnwritable)):
        liar.restore(within.directory.snapshot, tmp_path / "target")


def test_a_manifest_of_another_size_than_its_root_says_is_damaged(liar: Liar) -> None:
    with liar.bench.ingest() as ingest:
        content = ingest.add_bytes(os.urandom(900_000))
        ingest.finish()
    assert content.kind is ContentKind.MANIFEST
    liar.rows.update({(str(f), k): v for f in ("blob", "page") for k, v in liar.bench.port.catalog.scan(f)})  # type: ignore[arg-type]
    assert sum(len(raw) for _, raw in liar.source.read(content)) == 900_000
    with pytest.raises(ContentDamaged, match="do not add up"):
        list(liar.source.read(replaced(content, size=900_001)))
    with pytest.raises(ContentDamaged, match="is gone"):
        list(liar.source.read(Content(ContentKind.MANIFEST, bytes(32), 5)))
