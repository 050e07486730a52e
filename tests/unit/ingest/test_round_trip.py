"""What is saved comes back the same, whatever it was."""

from __future__ import annotations

import os
import random
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.ingest.bench import Bench, describe

name = st.binary(min_size=1, max_size=8).filter(lambda n: b"/" not in n and b"\0" not in n and n not in (b".", b".."))
name |= st.sampled_from([b"a", b"b", "ä".encode(), b"\x01a", b"\xff", b"%41", b"x" * 255])


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    size = draw(st.sampled_from([0, 1, 100, 65_536, 65_537, 300_000, 1_200_000]))
    return random.Random(draw(st.integers(0, 3))).randbytes(size)


mode = st.sampled_from([0o644, 0o755, 0o600, 0o4755, 0o000, 0o444])
mtime = st.integers(0, 4 * 10**18)
file = st.tuples(st.just("file"), contents(), mode, mtime)
symlink = st.tuples(st.just("symlink"), st.binary(min_size=1, max_size=30).filter(lambda t: b"\0" not in t), mtime)
fifo = st.tuples(st.just("fifo"), mode, mtime)
link = st.tuples(st.just("link"))
tree = st.recursive(
    st.dictionaries(name, file | symlink | fifo | link, max_size=4),
    lambda below: st.dictionaries(name, file | link | st.tuples(st.just("directory"), below, mode, mtime), max_size=4),
    max_leaves=12,
)


def write(directory: bytes, entries: dict[bytes, tuple], written: list[bytes]) -> None:  # type: ignore[type-arg]
    for entry_name, entry in entries.items():
        path = os.path.join(directory, entry_name)
        match entry:
            case ("file", content, permissions, time_ns):
                with open(path, "wb") as opened:
                    opened.write(content)
                os.chmod(path, permissions)
                os.utime(path, ns=(time_ns, time_ns))
                written.append(path)
            case ("symlink", target, time_ns):
                os.symlink(target, path)
                os.utime(path, ns=(time_ns, time_ns), follow_symlinks=False)
            case ("fifo", permissions, time_ns):
                os.mkfifo(path)
                os.chmod(path, permissions)
                os.utime(path, ns=(time_ns, time_ns))
            case ("link",):
                if written:
                    os.link(written[-1], path)
            case ("directory", below, permissions, time_ns):
                os.mkdir(path)
                write(path, below, written)
                os.chmod(path, permissions | 0o700)
                os.utime(path, ns=(time_ns, time_ns))


@settings(max_examples=60, deadline=None)
@given(tree, st.sampled_from([1, 2]))
def test_a_tree_comes_back_as_it_was(entries: dict[bytes, tuple], threads: int) -> None:  # type: ignore[type-arg]
    bench = Bench(threads=threads)
    with tempfile.TemporaryDirectory() as place:
        original = os.path.join(os.fsencode(place), b"original")
        os.mkdir(original)
        write(original, entries, [])
        os.utime(original, ns=(5, 5))
        snapshot = bench.save(original)
        bench.restore(snapshot, Path(place) / "restored")
        assert describe(Path(place) / "restored") == describe(original)
        assert bench.save(Path(place) / "restored") == snapshot
        assert snapshot.files == sum(stat.S_ISREG(int(one[0])) for one in describe(original).values())  # type: ignore[call-overload]
    bench.port.close()


def test_extended_attributes_come_back(bench: Bench, tmp_path: Path) -> None:
    original = tmp_path / "original"
    (original / "sub").mkdir(parents=True)
    (original / "file").write_bytes(b"x")
    try:
        os.setxattr(original / "file", "user.colour", b"red\0")
        os.setxattr(original / "sub", "user.colour", b"blue")
    except OSError:
        # This file system has none: then there must be none in the snapshot, and no error.
        pass
    bench.restore(bench.save(original), tmp_path / "restored")
    assert describe(tmp_path / "restored") == describe(original)


def test_sockets_come_back(bench: Bench, tmp_path: Path) -> None:
    original = tmp_path / "original"
    original.mkdir()
    with socket.socket(socket.AF_UNIX) as bound:
        before = os.getcwd()
        os.chdir(original)  # a socket's path is at most 108 bytes long
        try:
            bound.bind("socket")
        finally:
            os.chdir(before)
        bench.restore(bench.save(original), tmp_path / "restored")
    assert describe(tmp_path / "restored") == describe(original)


def test_a_sparse_file_comes_back_sparse_and_takes_no_space_in_the_vault(bench: Bench, tmp_path: Path) -> None:
    original = tmp_path / "original"
    original.mkdir()
    with open(original / "sparse", "wb") as file:
        file.truncate(64 << 20)
        file.seek(40 << 20)
        file.write(b"in the middle")
    snapshot = bench.save(original)
    assert snapshot.size == 64 << 20
    assert bench.port.stored_bytes() < 10_000
    bench.restore(snapshot, tmp_path / "restored")
    assert os.stat(tmp_path / "restored" / "sparse").st_blocks * 512 < 2 << 20
    assert describe(tmp_path / "restored") == describe(original)


def test_a_very_deep_tree_comes_back(bench: Bench, tmp_path: Path) -> None:
    original = tmp_path / "original"
    original.mkdir()
    fd = os.open(original, os.O_RDONLY)
    for _ in range(300):  # the whole path is longer than PATH_MAX in one piece would be with longer names
        os.mkdir("d" * 30, dir_fd=fd)
        below = os.open("d" * 30, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    snapshot = bench.save(original)
    bench.restore(snapshot, tmp_path / "restored")
    assert bench.save(tmp_path / "restored").tree == snapshot.tree
    root = bench.source.root(snapshot.index)
    assert root.below == 300


@pytest.fixture
def fast_place(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such a place: what is measured is this code, not the disk."""
    memory = Path("/dev/shm")
    place = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else tmp_path))
    yield place
    shutil.rmtree(place)


def test_many_files_are_saved_and_restored_in_a_moment(fast_place: Path) -> None:
    original = fast_place / "original"
    for directory in range(50):
        (original / str(directory)).mkdir(parents=True)
        for number in range(100):
            (original / str(directory) / str(number)).write_bytes(b"%d" % (directory * 100 + number) * 200)
    bench = Bench(threads=2)
    for what in ("first save", "second save"):
        started = time.perf_counter()
        snapshot = bench.save(original)
        print(f"{what}: {(time.perf_counter() - started) / 5000 * 1e6:.0f} µs a file")
    started = time.perf_counter()
    assert bench.restore(snapshot, fast_place / "restored") == 5000
    print(f"restore: {(time.perf_counter() - started) / 5000 * 1e6:.0f} µs a file")
    assert describe(fast_place / "restored") == describe(original)
    bench.port.close()


@pytest.mark.parametrize("size", [4 << 20, (4 << 20) + 1, 9 << 20])
def test_files_of_several_windows_come_back(bench: Bench, tmp_path: Path, size: int) -> None:
    original = tmp_path / "original"
    original.mkdir()
    (original / "long").write_bytes(random.Random(1).randbytes(size))
    bench.restore(bench.save(original), tmp_path / "restored")
    assert describe(tmp_path / "restored") == describe(original)
