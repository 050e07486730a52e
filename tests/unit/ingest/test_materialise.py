from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.unit.ingest.bench import Bench, describe
from tvfs.catalog.catalog import Family
from tvfs.chunks.store import ChunkMissing
from tvfs.content.attributes import OwnAttributes
from tvfs.content.reference import Content, ContentKind
from tvfs.content.snapshot import Snapshot
from tvfs.content.tree_builder import TreeBuilder
from tvfs.content.tree_index import REGULAR, IndexEntry, TreeIndexMissing
from tvfs.digest import ChunkId
from tvfs.ingest.materialise import SubpathMissing, TargetInTheWay, TargetUnwritable, materialise
from tvfs.ingest.snapshot_source import ContentDamaged, SnapshotSource


@pytest.fixture
def original(tmp_path: Path) -> Path:
    base = tmp_path / "original"
    for path in ("a/b/c", "a/d", "e"):
        (base / path).parent.mkdir(parents=True, exist_ok=True)
        (base / path).write_bytes(path.encode())
    (base / "a/link").symlink_to("d")
    (base / "long").write_bytes(random.Random(1).randbytes(900_000))
    return base


@pytest.fixture
def snapshot(bench: Bench, original: Path) -> Snapshot:
    return bench.save(original)


def leftovers(place: Path) -> list[Path]:
    return [path for path in place.rglob("*") if path.name.startswith(".tv-partial")]


def test_an_existing_directory_is_merged_and_keeps_what_else_it_holds(
    bench: Bench, snapshot: Snapshot, original: Path, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    (target / "a").mkdir(parents=True, mode=0o700)
    (target / "a/kept").write_bytes(b"kept")
    (target / "a/d").write_bytes(b"replaced")
    (target / "a/link").symlink_to("elsewhere")
    os.utime(target / "a", ns=(7, 7))
    bench.restore(snapshot, target)
    found, wanted = describe(target), describe(original)
    assert found.pop(b"a/kept")[5] == b"kept"
    assert os.stat(target / "a").st_mode & 0o777 == 0o700
    for path in wanted.keys() - {b".", b"a"}:
        assert found[path] == wanted[path]
    assert not leftovers(target)


@pytest.mark.parametrize("subpath", ["long", ""])
def test_what_is_not_complete_has_the_name_that_was_asked_for(
    bench: Bench, snapshot: Snapshot, tmp_path: Path, subpath: str
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    seen: set[str] = set()
    source, read = bench.source, bench.source.read

    def watched(content: Content) -> Iterator[tuple[int, bytes]]:
        seen.update(os.listdir(place))
        return read(content)

    source.read = watched  # type: ignore[method-assign]
    materialise(source, snapshot, os.fspath(place / "made"), subpath=subpath, temporary=".ours-")
    assert [name[:6] for name in seen] == [".ours-"]
    assert os.listdir(place) == ["made"]


def test_what_was_open_before_a_merge_keeps_its_content(bench: Bench, snapshot: Snapshot, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target/e").write_bytes(b"old")
    with open(tmp_path / "target/e", "rb") as opened:
        bench.restore(snapshot, tmp_path / "target")
        assert opened.read() == b"old"
    assert (tmp_path / "target/e").read_bytes() == b"e"


def test_a_symlink_in_the_target_is_never_followed(bench: Bench, snapshot: Snapshot, tmp_path: Path) -> None:
    outside, target = tmp_path / "outside", tmp_path / "target"
    outside.mkdir()
    target.mkdir()
    (target / "a").symlink_to(outside)
    with pytest.raises(TargetInTheWay, match="target/a"):
        bench.restore(snapshot, target)
    (target / "a").unlink()
    (target / "e").symlink_to(outside / "victim")
    (outside / "victim").write_bytes(b"untouched")
    bench.restore(snapshot, target)
    assert (outside / "victim").read_bytes() == b"untouched"
    assert not (target / "e").is_symlink()
    assert os.listdir(outside) == ["victim"]


def test_the_target_itself_may_be_a_symlink_to_a_directory(bench: Bench, snapshot: Snapshot, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "target").symlink_to("real")
    bench.restore(snapshot, tmp_path / "target")
    assert (tmp_path / "real/e").read_bytes() == b"e"


def test_another_type_in_the_way_is_an_error(bench: Bench, snapshot: Snapshot, tmp_path: Path) -> None:
    for blocked, make in (("e", Path.mkdir), ("a", Path.touch), ("a/link", lambda path: path.mkdir(parents=True))):
        target = tmp_path / f"target-{blocked.replace('/', '-')}"
        target.mkdir()
        make(target / blocked)
        with pytest.raises(TargetInTheWay, match=blocked):
            bench.restore(snapshot, target)
        assert not leftovers(target)


def test_a_target_below_a_file_is_an_error(bench: Bench, snapshot: Snapshot, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises((TargetInTheWay, TargetUnwritable)):
        bench.restore(snapshot, tmp_path / "file/target")
    with pytest.raises(TargetInTheWay):
        bench.restore(snapshot, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b""


def test_missing_parents_of_the_target_are_made(
    bench: Bench, snapshot: Snapshot, original: Path, tmp_path: Path
) -> None:
    bench.restore(snapshot, tmp_path / "x/y/target")
    assert describe(tmp_path / "x/y/target") == describe(original)


@pytest.mark.parametrize("subpath", ["a", "a/b", "/a/b/"])
def test_a_directory_inside_is_written_to_the_target(
    bench: Bench, snapshot: Snapshot, original: Path, tmp_path: Path, subpath: str
) -> None:
    bench.restore(snapshot, tmp_path / "target", subpath)
    assert describe(tmp_path / "target") == describe(original / subpath.strip("/"))


@pytest.mark.parametrize("subpath", ["e", "a/b/c", "long", "a/link"])
def test_a_file_inside_is_written_to_the_target(
    bench: Bench, snapshot: Snapshot, original: Path, tmp_path: Path, subpath: str
) -> None:
    bench.restore(snapshot, tmp_path / "target", subpath)
    assert describe(tmp_path / "target") == describe(original / subpath)


@pytest.mark.parametrize("subpath", ["none", "a/none", "e/none", "a//b", "../e", "."])
def test_a_path_that_the_snapshot_does_not_hold_is_said(
    bench: Bench, snapshot: Snapshot, tmp_path: Path, subpath: str
) -> None:
    with pytest.raises(SubpathMissing):
        bench.restore(snapshot, tmp_path / "target", subpath)


def test_hard_links_inside_a_part_of_the_snapshot_are_restored(bench: Bench, original: Path, tmp_path: Path) -> None:
    os.link(original / "a/d", original / "a/b/d2")
    os.link(original / "a/d", original / "d3")
    bench.restore(bench.save(original), tmp_path / "target", "a")
    assert os.stat(tmp_path / "target/d").st_nlink == 2
    assert os.path.samefile(tmp_path / "target/d", tmp_path / "target/b/d2")


def test_hard_links_are_restored_across_merged_and_new_directories(
    bench: Bench, original: Path, tmp_path: Path
) -> None:
    os.link(original / "a/b/c", original / "z")
    os.link(original / "a/b/c", original / "a/y")
    os.link(original / "a/link", original / "linked-link", follow_symlinks=False)
    (tmp_path / "target/a").mkdir(parents=True)
    (tmp_path / "target/z").write_bytes(b"in the way")
    bench.restore(bench.save(original), tmp_path / "target")
    assert os.stat(tmp_path / "target/a/b/c").st_nlink == 3
    assert os.path.samefile(tmp_path / "target/a/b/c", tmp_path / "target/z")
    assert os.lstat(tmp_path / "target/linked-link").st_ino == os.lstat(tmp_path / "target/a/link").st_ino


class Broken:
    """A source of chunks that spoils one: another byte, another length, or none at all."""

    def __init__(self, bench: Bench, spoilt: bytes, damage: str) -> None:
        self._bench = bench
        self._spoilt = spoilt
        self._damage = damage

    def __call__(self, chunk_ids: Sequence[ChunkId]) -> list[bytes]:
        chunks = self._bench.port.chunks(chunk_ids)
        if self._spoilt in chunk_ids and self._damage == "missing":
            raise ChunkMissing(ChunkId(self._spoilt))
        return [self._spoil(raw) if key == self._spoilt else raw for key, raw in zip(chunk_ids, chunks, strict=True)]

    def _spoil(self, raw: bytes) -> bytes:
        return raw[:-1] if self._damage == "shorter" else bytes([raw[0] ^ 1]) + raw[1:]


@pytest.mark.parametrize("path", [b"e", b"long"])
@pytest.mark.parametrize("damage", ["missing", "shorter", "flipped"])
def test_a_damaged_chunk_is_never_written_and_no_half_directory_appears(
    bench: Bench, snapshot: Snapshot, tmp_path: Path, path: bytes, damage: str
) -> None:
    entry = bench.source.lookup(snapshot.index, path)
    assert entry is not None
    spoilt = bench.source.pieces(entry.content)[-1].chunk_id
    assert spoilt is not None
    bench.source = SnapshotSource(bench.port.rows, Broken(bench, spoilt, damage), bench.settings.hash_function)
    for target in (tmp_path / "new", tmp_path / "existing"):
        if target.name == "existing":
            target.mkdir()
            (target / os.fsdecode(path)).write_bytes(b"old")
        with pytest.raises((ContentDamaged, ChunkMissing)):
            bench.restore(snapshot, target)
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "existing" / os.fsdecode(path)).read_bytes() == b"old"
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("existing", [False, True])
def test_a_new_directory_appears_only_when_it_is_complete(
    bench: Bench, original: Path, snapshot: Snapshot, tmp_path: Path, existing: bool
) -> None:
    target = tmp_path / "target"
    new = target / "a" if existing else target
    if existing:
        target.mkdir()
    asked: list[int] = []

    def watch(chunk_ids: Sequence[ChunkId]) -> list[bytes]:
        if not new.exists():
            asked.append(len(chunk_ids))
        else:
            assert describe(new) == describe(original / "a")
        return bench.port.chunks(chunk_ids)

    bench.source = SnapshotSource(bench.port.rows, watch, bench.settings.hash_function)
    bench.restore(snapshot, target)
    assert asked
    assert describe(new) == describe(original / "a" if existing else original)


@pytest.mark.parametrize("name", [b"..", b"../escaped", b"sub/../../escaped", b"/tmp/escaped-from-a-tree"])
def test_a_name_that_leads_out_of_the_target_is_refused(bench: Bench, tmp_path: Path, name: bytes) -> None:
    """The rows are those of a liar: no commit takes them."""
    entry = IndexEntry(name, REGULAR, 0o644, -1, -1, -1, content_kind=ContentKind.EMPTY)
    own = OwnAttributes(0o755)
    built = TreeBuilder(bench.settings.hash_function).build(own, [entry])
    rows = {(family.value, key): value for family, key, value in built.rows}
    source = SnapshotSource(lambda keys: [rows[key] for key in keys], bench.port.chunks, bench.settings.hash_function)
    (tmp_path / "place").mkdir()
    with pytest.raises(TreeIndexMissing, match="damaged"):
        materialise(source, built.directory.snapshot, str(tmp_path / "place/target"))
    assert [path.name for path in tmp_path.rglob("*")] == ["place"]


def test_nothing_is_written_through_a_symlink_of_the_tree_itself(bench: Bench, tmp_path: Path) -> None:
    """One snapshot has a symlink where the other, written over it, has a directory."""
    (tmp_path / "one").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "one/sub").symlink_to(tmp_path / "outside")
    (tmp_path / "two/sub").mkdir(parents=True)
    (tmp_path / "two/sub/file").write_bytes(b"x")
    bench.restore(bench.save(tmp_path / "one"), tmp_path / "target")
    with pytest.raises(TargetInTheWay):
        bench.restore(bench.save(tmp_path / "two"), tmp_path / "target")
    assert not list((tmp_path / "outside").iterdir())


def test_a_missing_index_is_said(bench: Bench, snapshot: Snapshot, tmp_path: Path) -> None:
    page = next(iter(bench.port.catalog.scan(Family.TREEPAGE)))[0]
    whole = bench.port.rows
    bench.source = SnapshotSource(
        lambda keys: [None if key[1] == page else value for key, value in zip(keys, whole(keys), strict=True)],
        bench.port.chunks,
        bench.settings.hash_function,
    )
    with pytest.raises(TreeIndexMissing):
        bench.restore(snapshot, tmp_path / "target")
    assert not (tmp_path / "target").exists()
    assert not leftovers(tmp_path)


def test_a_full_disk_is_said_with_the_path(bench: Bench, snapshot: Snapshot) -> None:
    with pytest.raises(TargetUnwritable, match="/proc/target"):
        bench.restore(snapshot, Path("/proc/target"))
