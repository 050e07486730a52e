"""Long files that are read often are read past the daemon, and nobody can tell but by the clock.

The kernel answers EIO to an open that breaks its rules about this: every test here would meet one.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import random
import threading
from pathlib import Path

import pytest

from tests.kernel.conftest import Serve, Server
from tests.waiting import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.parametrize("transport", ["kernel"], indirect=True)]
SIZE = 3 << 20


class Hot:
    """A file with a copy that the kernel reads, and what it should hold."""

    def __init__(self, server: Server, vault: Path, seed: int) -> None:
        self.server = server
        self.copies = vault / "hot"
        self.path = server.work / "file"
        self.content = bytearray(random.Random(seed).randbytes(SIZE))
        self.path.write_bytes(self.content)
        wait_until(lambda: not staged(vault))
        for _ in range(2):
            assert self.path.read_bytes() == self.content
        wait_until(lambda: is_copied(vault))

    def direct_opens(self) -> int:
        return int(self.server.ask("counts", "counts")["direct opens"])

    def write(self, offset: int, piece: bytes) -> None:
        with open(self.path, "r+b", buffering=0) as file:
            assert os.pwrite(file.fileno(), piece, offset) == len(piece)
        self.content[offset : offset + len(piece)] = piece


class Mapping:
    """A shared mapping that, unlike Python's own, does not keep the file open."""

    def __init__(self, descriptor: int, protection: int) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.mmap.restype = ctypes.c_void_p
        size, zero = ctypes.c_size_t(SIZE), ctypes.c_int64(0)
        self._address = self._libc.mmap(None, size, protection, mmap.MAP_SHARED, descriptor, zero)
        assert self._address != ctypes.c_void_p(-1).value

    def read(self) -> bytes:
        return ctypes.string_at(self._address, SIZE)

    def write(self, offset: int, piece: bytes) -> None:
        ctypes.memmove(self._address + offset, piece, len(piece))

    def close(self) -> None:
        self._libc.munmap(ctypes.c_void_p(self._address), ctypes.c_size_t(SIZE))


def is_copied(vault: Path) -> bool:
    return vault.joinpath("hot").is_dir() and [path.suffix for path in vault.joinpath("hot").iterdir()] == [""]


def staged(vault: Path) -> list[Path]:
    return [path for path in (vault / "staging").rglob("*") if path.is_file()]


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    return tmp_path / "vault"


@pytest.fixture
def hot(serve: Serve, vault: Path, seed: int) -> Hot:
    server = serve("--vault", str(vault), "--settings", json.dumps({"vault": "test", "passthrough": True}))
    return Hot(server, vault, seed)


def test_a_file_that_is_read_again_is_read_past_the_daemon(hot: Hot) -> None:
    before = hot.server.ask("counts", "counts")["read"]
    with open(hot.path, "rb") as file:
        assert file.read() == hot.content
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert mapped[:] == hot.content
    assert hot.server.ask("counts", "counts")["read"] == before
    assert hot.direct_opens() == 1


def test_what_is_written_is_seen_by_those_who_had_the_file_open(hot: Hot) -> None:
    with open(hot.path, "rb", buffering=0) as reader:
        assert os.pread(reader.fileno(), 4, 100) == hot.content[100:104]
        hot.write(100, b"new!")
        assert os.pread(reader.fileno(), SIZE, 0) == hot.content
        with open(hot.path, "ab") as writer:
            writer.write(b"more")
        assert os.pread(reader.fileno(), 99, SIZE) == b"more"
        assert os.fstat(reader.fileno()).st_size == SIZE + 4
    assert hot.path.read_bytes() == hot.content + b"more"


def test_what_is_written_is_seen_in_mappings_whose_file_is_closed(hot: Hot) -> None:
    with open(hot.path, "rb") as file:
        mapped = Mapping(file.fileno(), mmap.PROT_READ)
    hot.write(SIZE - 4, b"end.")
    assert mapped.read() == hot.content
    hot.write(0, b"begin")
    assert mapped.read() == hot.content
    mapped.close()


def test_truncating_is_seen_by_those_who_had_the_file_open(hot: Hot) -> None:
    with open(hot.path, "rb", buffering=0) as reader:
        os.truncate(hot.path, 10)
        assert reader.read() == hot.content[:10]
        with open(hot.path, "wb") as writer:
            assert os.fstat(reader.fileno()).st_size == 0
            writer.write(b"anew")
            writer.flush()
            assert os.pread(reader.fileno(), 99, 0) == b"anew"
    assert hot.path.read_bytes() == b"anew"


def test_a_shared_mapping_for_writing_is_no_writing_to_the_copy_but_to_the_file(hot: Hot, vault: Path) -> None:
    with open(hot.path, "rb", buffering=0) as reader:
        with open(hot.path, "r+b") as writer:
            mapped = Mapping(writer.fileno(), mmap.PROT_READ | mmap.PROT_WRITE)
        mapped.write(5, b"mmap")
        hot.content[5:9] = b"mmap"
        assert os.pread(reader.fileno(), SIZE, 0) == hot.content
    # The files are closed and the mapping writes on: it is not sealed before that has ended.
    threading.Event().wait(0.6)
    mapped.write(0, b"last")
    hot.content[0:4] = b"last"
    assert staged(vault)
    mapped.close()
    wait_until(lambda: not staged(vault))
    assert hot.path.read_bytes() == hot.content


def test_a_written_file_is_sealed_and_hot_again(hot: Hot, vault: Path) -> None:
    with open(hot.path, "rb"):
        hot.write(7, b"change")
    wait_until(lambda: not staged(vault))
    for _ in range(2):
        assert hot.path.read_bytes() == hot.content
    before = hot.direct_opens()

    def read_past() -> bool:
        assert hot.path.read_bytes() == hot.content
        return hot.direct_opens() > before

    wait_until(read_past)


def test_two_files_with_one_content_do_not_share_what_is_written(hot: Hot, vault: Path) -> None:
    other = hot.server.work / "other"
    other.write_bytes(hot.content)
    wait_until(lambda: not staged(vault))
    before = bytes(hot.content)
    with open(hot.path, "rb", buffering=0) as first, open(other, "rb", buffering=0) as second:
        hot.write(50, b"first")
        assert os.pread(first.fileno(), SIZE, 0) == hot.content
        assert os.pread(second.fileno(), SIZE, 0) == before
    assert other.read_bytes() == before


def test_a_file_that_is_open_through_the_page_cache_stays_so(hot: Hot) -> None:
    with open(hot.path, "r+b", buffering=0) as writer, open(hot.path, "rb", buffering=0) as reader:
        os.pwrite(writer.fileno(), b"cached", 0)
        hot.content[:6] = b"cached"
        assert reader.read() == hot.content
    assert hot.direct_opens() == 0


def test_a_file_that_is_read_through_the_page_cache_stays_so_when_a_copy_is_there(serve: Serve, vault: Path) -> None:
    server = serve("--vault", str(vault), "--settings", json.dumps({"vault": "test", "passthrough": True}))
    path, twin, content = server.work / "file", server.work / "twin", random.Random(1).randbytes(SIZE)
    path.write_bytes(content)
    twin.write_bytes(content)
    wait_until(lambda: not staged(vault))
    with open(path, "rb", buffering=0) as cached:
        # Its twin's opens have the copy made that both could be read from.
        assert twin.read_bytes() == content
        wait_until(lambda: is_copied(vault))
        assert path.read_bytes() == content
        assert cached.read() == content
    assert path.read_bytes() == content
    assert server.ask("counts", "counts")["direct opens"] == 1


def test_direct_reads_need_not_be_aligned_also_of_a_hot_file(hot: Hot) -> None:
    descriptor = os.open(hot.path, os.O_RDONLY | os.O_DIRECT)
    try:
        assert os.pread(descriptor, 1000, 333) == hot.content[333:1333]
    finally:
        os.close(descriptor)


def test_an_unlinked_file_is_read_on(hot: Hot) -> None:
    with open(hot.path, "rb", buffering=0) as reader:
        hot.path.unlink()
        assert reader.read() == hot.content


def test_times_of_writing_are_the_daemons_where_the_kernel_gathers_nothing(hot: Hot) -> None:
    old = 1_000_000_000
    small = hot.server.work / "small"
    small.write_bytes(b"x")
    os.utime(small, (old, old))
    with open(small, "ab", buffering=0) as file:
        file.write(b"y")
        assert os.fstat(file.fileno()).st_mtime > old
    assert small.stat().st_mtime > old


def test_nothing_of_the_copies_is_left_after_a_restart(hot: Hot, serve: Serve, vault: Path) -> None:
    hot.write(9, b"kept")
    hot.server.kill()
    again = serve("--vault", str(vault), "--settings", json.dumps({"vault": "test", "passthrough": True}))
    assert not hot.copies.exists()
    assert (again.work / "file").read_bytes() == hot.content


def test_a_killed_daemon_loses_nothing_of_what_was_taken_over(hot: Hot, serve: Serve, vault: Path) -> None:
    with open(hot.path, "rb"):
        hot.write(9, b"taken over")
        hot.server.kill()
    again = serve("--vault", str(vault))
    assert (again.work / "file").read_bytes() == hot.content
