from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.ingest.bench import SETTINGS, Bench, describe
from tvfs.catalog.catalog import Family
from tvfs.clock import SystemClock
from tvfs.content.trees import parse_directory
from tvfs.digest import Digest
from tvfs.ingest.local_file import FileChanged, PathUnreadable
from tvfs.ingest.save_plan import PathsConflict
from tvfs.ingest.tree_walk import PathMissing, hash_paths
from tvfs.plugin_api import HashFunction


def make(base: Path, *paths: str) -> Path:
    for path in paths:
        (base / path).parent.mkdir(parents=True, exist_ok=True)
        (base / path).write_bytes(path.encode())
    return base


def held(bench: Bench, index: bytes, prefix: str = "") -> set[str]:
    found = set()
    for entry in bench.source.entries(index, bench.source.root(index)):
        path = prefix + os.fsdecode(entry.name)
        found.add(path)
        if entry.child:
            found |= held(bench, entry.child, path + "/")
    return found


def test_paths_lie_where_they_lie_below_the_base(bench: Bench, tmp_path: Path) -> None:
    make(tmp_path, "a/b/c", "a/d", "e", "f/g", "f/h")
    snapshot = bench.save(tmp_path, "a/b", "f/g", str(tmp_path / "e"), "a/b/c")
    assert held(bench, snapshot.index) == {"a", "a/b", "a/b/c", "e", "f", "f/g"}
    bench.restore(snapshot, tmp_path / "restored")
    kept = describe(tmp_path / "restored")
    original = describe(tmp_path)
    assert all(kept[path] == original[path] for path in kept if path != b".")


def test_a_path_outside_lies_at_the_root_under_its_last_name(bench: Bench, tmp_path: Path) -> None:
    make(tmp_path, "base/a", "other/b/c", "other/d")
    snapshot = bench.save(tmp_path / "base", "a", "../other/b", "../other/d")
    assert held(bench, snapshot.index) == {"a", "b", "b/c", "d"}


def test_a_dot_is_everything_in_the_base(bench: Bench, tmp_path: Path) -> None:
    make(tmp_path, "a/b", "c")
    assert held(bench, bench.save(tmp_path, ".", "a").index) == {"a", "a/b", "c"}


def test_two_paths_for_one_place_are_refused(bench: Bench, tmp_path: Path) -> None:
    make(tmp_path, "base/d", "x/d", "y/d")
    for paths in (["../x/d", "../y/d"], ["d", "../x/d"]):
        with pytest.raises(PathsConflict):
            bench.save(tmp_path / "base", *paths)


def test_what_is_missing_is_said(bench: Bench, tmp_path: Path) -> None:
    make(tmp_path, "a/b")
    for path in ("none", "a/none", "none/none"):
        with pytest.raises(PathMissing, match="none"):
            bench.save(tmp_path, path)
    with pytest.raises(PathMissing):
        bench.save(tmp_path / "none")
    with pytest.raises(PathUnreadable):
        bench.save(tmp_path, "a/b/c")


def test_a_symlink_that_is_named_is_saved_as_one_and_one_on_the_way_is_followed(bench: Bench, tmp_path: Path) -> None:
    make(tmp_path, "real/file")
    (tmp_path / "link").symlink_to("real")
    snapshot = bench.save(tmp_path, "link")
    found = bench.source.lookup(snapshot.index, b"link")
    assert found is not None
    assert found.target == b"real"
    snapshot = bench.save(tmp_path, "link/file")
    assert held(bench, snapshot.index) == {"link", "link/file"}


def test_select_leaves_out_what_it_says(bench: Bench, tmp_path: Path) -> None:
    make(tmp_path, "a/x.o", "a/x.c", "b/y.c", "b/c/z.o")
    asked: dict[bytes, bool] = {}

    def select(path: bytes, is_directory: bool) -> bool:
        asked[path] = is_directory
        return path != b"b/c" and not path.endswith(b".o")

    assert held(bench, bench.save(tmp_path, select=select).index) == {"a", "a/x.c", "b", "b/y.c"}
    assert asked == {b"a": True, b"b": True, b"a/x.o": False, b"a/x.c": False, b"b/y.c": False, b"b/c": True}


def test_what_is_mounted_below_is_left_out_unless_asked_for(bench: Bench) -> None:
    def only_self(path: bytes, is_directory: bool) -> bool:
        return path in (b"proc", b"proc/self")

    assert held(bench, bench.save(Path("/"), select=only_self).index) == {"proc"}
    crossed = bench.save(Path("/"), select=only_self, cross_mounts=True)
    assert "proc/self" in held(bench, crossed.index)


def test_the_digest_of_a_tree_depends_on_content_names_and_execute_bits_only(bench: Bench, tmp_path: Path) -> None:
    names = [f"d{n % 5}/f{n}" for n in range(50)]
    first = make(tmp_path / "first", *names)
    random.Random(1).shuffle(names)
    second = make(tmp_path / "second", *names)
    os.utime(second / "d0", ns=(1, 1))
    (second / "d1/f1").chmod(0o600)
    digest = bench.save(first).tree
    assert bench.save(second).tree == digest
    for threads in (1, 2, 4):
        other = Bench(threads=threads)
        assert other.save(second).tree == digest
        assert hash_paths(other.settings, os.fspath(first), ["."]) == digest
        other.port.close()
    (second / "d1/f1").chmod(0o700)
    assert bench.save(second).tree != digest


def test_hashing_gives_the_digest_of_saving_for_long_files_too(bench: Bench, tmp_path: Path) -> None:
    for size in (0, 1, 65_536, 65_537, 1 << 20, (1 << 20) + 1, (4 << 20) + 70_000):
        (tmp_path / str(size)).write_bytes(random.Random(size).randbytes(size))
    (tmp_path / "zeros").write_bytes(bytes(9 << 20))
    assert hash_paths(SETTINGS, os.fspath(tmp_path), ["."]) == bench.save(tmp_path).tree


def test_trees_and_attributes_are_blobs_of_the_vault(bench: Bench, tmp_path: Path) -> None:
    make(tmp_path, "a/b", "c")
    snapshot = bench.save(tmp_path)
    listing = parse_directory(bench.source.blob(snapshot.tree))
    assert [f.name for f in listing.files] == [b"c"]
    assert snapshot.attributes is not None
    assert bench.source.blob(snapshot.attributes)


def test_a_blob_that_begins_with_a_hole_is_whole(bench: Bench, tmp_path: Path) -> None:
    content = bytes(3_000_000) + b"end"
    (tmp_path / "zeros").write_bytes(content)
    bench.save(tmp_path)
    hash_function = bench.settings.hash_function
    assert bench.source.blob(Digest(hash_function.name, hash_function.digest(content), len(content))) == content


def test_a_directory_of_several_pages_is_found_whole(bench: Bench, tmp_path: Path) -> None:
    make(tmp_path, *(f"f{n:04}" for n in range(1000)))
    snapshot = bench.save(tmp_path)
    assert len(held(bench, snapshot.index)) == 1000
    assert len(list(bench.port.catalog.scan(Family.TREEPAGE))) == 4


class Disturbing:
    """A hash function that does something whenever it is asked for a hash of `what`."""

    def __init__(self, inner: HashFunction, what: bytes, disturb: Callable[[], None]) -> None:
        self._inner = inner
        self._what = what
        self._disturb = disturb
        self.name = inner.name
        self.hasher = inner.hasher

    def digest(self, content: bytes | bytearray | memoryview, /) -> bytes:
        if bytes(content[: len(self._what)]) == self._what:
            self._disturb()
        return self._inner.digest(content)


def test_a_file_that_changes_once_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"first")

    def once() -> None:
        (tmp_path / "log").write_bytes(b"second and longer")

    bench = Bench(hash_function=Disturbing(SETTINGS.hash_function, b"first", once))
    bench.restore(bench.save(tmp_path), tmp_path / "restored")
    assert (tmp_path / "restored/log").read_bytes() == b"second and longer"
    bench.port.close()


def test_a_file_that_never_stops_changing_is_an_error(tmp_path: Path) -> None:
    def grow() -> None:
        with open(tmp_path / "log", "ab") as file:
            file.write(b"x")

    (tmp_path / "log").write_bytes(b"first")
    bench = Bench(hash_function=Disturbing(SETTINGS.hash_function, b"first", grow))
    with pytest.raises(FileChanged, match="log"):
        bench.save(tmp_path)
    bench.port.close()


def test_a_file_with_several_names_is_read_once_and_stays_one(bench: Bench, tmp_path: Path) -> None:
    make(tmp_path, "original/a/x")
    os.link(tmp_path / "original/a/x", tmp_path / "original/y")
    (tmp_path / "original/b").mkdir()
    os.link(tmp_path / "original/a/x", tmp_path / "original/b/z")
    snapshot = bench.save(tmp_path / "original")
    assert bench.source.root(snapshot.index).hard_links == [[b"a/x", b"b/z", b"y"]]
    bench.restore(snapshot, tmp_path / "restored")
    assert os.stat(tmp_path / "restored/y").st_nlink == 3
    assert describe(tmp_path / "restored") == describe(tmp_path / "original")


@pytest.fixture
def public_place() -> Iterator[Path]:
    """A directory that another user may enter, unlike pytest's."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


def test_an_unreadable_file_is_said(bench: Bench, public_place: Path) -> None:
    (public_place / "secret").touch(mode=0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root reads everything
    try:
        with pytest.raises(PathUnreadable, match="secret"):
            bench.save(public_place)
    finally:
        os.seteuid(user)


def test_no_descriptor_is_left_open(bench: Bench, tmp_path: Path) -> None:
    make(tmp_path, "a/b/c", "a/d", "e")
    before = len(os.listdir("/proc/self/fd"))
    snapshot = bench.save(tmp_path)
    bench.restore(snapshot, tmp_path / "restored")
    with pytest.raises(PathMissing):
        bench.save(tmp_path, "a", "none")
    opened = len(bench.port._packs)  # the twin keeps its packs
    assert len(os.listdir("/proc/self/fd")) <= before + opened


def test_a_file_is_read_only_when_another_write_would_show(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began_ns: list[int] = []
    pread = os.pread

    def watched(*arguments: int) -> bytes:
        began_ns.append(SystemClock().now_ns())
        return pread(*arguments)

    monkeypatch.setattr(os, "pread", watched)
    written = tmp_path / "written"
    for number in range(3):
        began_ns.clear()
        written.write_bytes(bytes([number + 1]) * 500_000)
        bench.save(tmp_path)
        assert began_ns[0] > os.stat(written).st_ctime_ns


def test_holes_are_not_read(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_bytes = 0
    pread = os.pread

    def watched(fd: int, length: int, offset: int) -> bytes:
        nonlocal read_bytes
        part = pread(fd, length, offset)
        read_bytes += len(part)
        return part

    place = tmp_path / "tree"
    place.mkdir()
    with open(place / "sparse", "wb") as sparse:
        sparse.write(b"start")
        sparse.seek(40 << 20)
        sparse.write(b"middle" * 50_000)
        sparse.truncate(64 << 20)
    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", watched)
        snapshot = bench.save(place)
    assert 300_000 < read_bytes < 1 << 20
    bench.restore(snapshot, tmp_path / "back")
    assert (tmp_path / "back/sparse").read_bytes() == (place / "sparse").read_bytes()
    assert hash_paths(bench.settings, str(place), ["."]) == snapshot.tree
