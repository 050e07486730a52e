"""What the kernel's own protocol can do and libfuse's binding cannot."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.kernel.conftest import ROOT, Serve, Server
from tests.waiting import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.parametrize("transport", ["kernel"], indirect=True)]
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
BLOCK = 128 << 10
"""Unit in which an overwritten sealed file is copied up."""


def fallocate(path: Path, mode: int, offset: int, length: int) -> int:
    """Return the errno of fallocate(2), 0 if it worked."""
    libc = ctypes.CDLL(None, use_errno=True)
    number = ctypes.c_int64
    with open(path, "r+b") as file:
        failed = libc.fallocate64(file.fileno(), mode, number(offset), number(length))
    return ctypes.get_errno() if failed else 0


def from_daemon(path: Path) -> bytes:
    """What the daemon has, rather than the kernel's page cache."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return file.read()


def counts(server: Server) -> dict[str, int]:
    return {kind: count for kind, count in server.ask("counts", "counts").items() if kind != "kind"}


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    return tmp_path / "vault"


def sealed(path: Path, content: bytes, vault: Path) -> None:
    path.write_bytes(content)
    wait_until(lambda: not any(each.is_file() for each in (vault / "staging").rglob("*")))


@pytest.fixture(params=[False, True], ids=["writeback", "passthrough"])
def server(serve: Serve, vault: Path, request: pytest.FixtureRequest) -> Server:
    settings = {"vault": "test", "passthrough": request.param, "xattrs": True}
    return serve("--vault", str(vault), "--settings", json.dumps(settings))


def test_room_is_reserved_without_writing(server: Server) -> None:
    path = server.work / "file"
    path.write_bytes(b"begin")
    os.posix_fallocate(os.open(path, os.O_RDWR), 0, 1 << 20)
    assert from_daemon(path) == b"begin".ljust(1 << 20, b"\0")
    assert path.stat().st_blocks * 512 >= 1 << 20
    assert counts(server)["fallocate"] == 1


def test_a_directory_that_was_listed_is_listed_again_without_asking(server: Server) -> None:
    for number in range(3):
        (server.work / f"d{number}").mkdir()
        (server.work / f"d{number}/file").touch()
        assert os.listdir(server.work / f"d{number}") == ["file"]
    before = counts(server)
    assert before.get("opendir", 0) == 1, "that one is asked about, to learn that none need be"
    assert before.get("releasedir", 0) == 0
    assert [os.listdir(server.work / f"d{number}") for number in range(3)] == 3 * [["file"]]
    after = counts(server)
    assert [after[kind] - before[kind] for kind in ("opendir", "readdir", "readdirplus") if kind in before] == [0, 0, 0]


def test_no_more_room_is_reserved_than_the_vault_has(serve: Serve, vault: Path) -> None:
    server = serve("--vault", str(vault), "--capacity", str(64 << 20))
    path = server.work / "file"
    path.touch()
    assert fallocate(path, 0, 0, 1 << 30) == errno.ENOSPC
    assert path.stat().st_size == 0


@pytest.mark.parametrize("state", ["staged", "sealed"])
def test_a_cleared_range_reads_as_zeros(serve: Serve, vault: Path, state: str) -> None:
    server = serve("--vault", str(vault))
    ranges = ((10, 100), (BLOCK - 5, 10), (BLOCK // 2, 3 * BLOCK), (0, 10 * BLOCK))
    modes = (PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE)
    contents = {
        (mode, offset, length): bytearray(os.urandom(4 * BLOCK + 77)) for mode in modes for offset, length in ranges
    }
    paths = {case: server.work / "-".join(map(str, case)) for case in contents}
    for case, content in contents.items():
        paths[case].write_bytes(content)
    if state == "sealed":
        sealed(server.work / "other", b"x", vault)
    for case, content in contents.items():
        mode, offset, length = case
        assert fallocate(paths[case], mode, offset, length) == 0
        end = offset + length
        if not mode & KEEP_SIZE:
            content.extend(bytes(max(0, end - len(content))))
        content[offset : min(end, len(content))] = bytes(max(0, min(end, len(content)) - offset))
        assert from_daemon(paths[case]) == content, case
    sealed(server.work / "another", b"x", vault)
    assert all(from_daemon(paths[case]) == content for case, content in contents.items())


def test_modes_of_fallocate_that_are_not_served_are_refused(server: Server) -> None:
    path = server.work / "file"
    path.write_bytes(b"content")
    assert fallocate(path, KEEP_SIZE, 0, 1 << 20) == errno.EOPNOTSUPP
    assert path.read_bytes() == b"content"


def test_a_sealed_file_is_copied_by_reference(server: Server, vault: Path) -> None:
    content = os.urandom(5 << 20)
    source, target = server.work / "source", server.work / "target"
    sealed(source, content, vault)
    before = counts(server)
    with open(source, "rb") as reader, open(target, "wb") as writer:
        assert os.copy_file_range(reader.fileno(), writer.fileno(), 1 << 30) == len(content)
    assert counts(server)["write"] == before["write"]
    assert from_daemon(target) == content
    with open(target, "r+b") as writer:
        writer.write(b"changed")
    assert target.read_bytes() == b"changed" + content[7:]
    assert source.read_bytes() == content


@pytest.mark.parametrize("staged", [True, False])
def test_what_cannot_be_copied_by_reference_is_copied(server: Server, vault: Path, staged: bool) -> None:
    content = os.urandom(300_000)
    source, target = server.work / "source", server.work / "target"
    source.write_bytes(content)
    if not staged:
        sealed(source, content, vault)
        target.write_bytes(b"not empty")
    with open(source, "rb") as reader, open(target, "wb" if staged else "r+b") as writer:
        assert os.copy_file_range(reader.fileno(), writer.fileno(), 1000, 10, 3) == 1000
    wanted = content[10:1010]
    assert target.read_bytes() == (bytes(3) if staged else b"not") + wanted


def test_cp_makes_a_clone(server: Server, vault: Path) -> None:
    content = os.urandom(3 << 20)
    sealed(server.work / "source", content, vault)
    before = counts(server)
    subprocess.run(["cp", server.work / "source", server.work / "target"], check=True, timeout=20)
    assert (server.work / "target").read_bytes() == content
    assert counts(server)["write"] == before["write"]


def test_holes_are_found_where_the_kernel_gathers_nothing(serve: Serve, vault: Path) -> None:
    server = serve("--vault", str(vault), "--settings", '{"vault": "test", "passthrough": true}')
    path = server.work / "sparse"
    with open(path, "wb") as file:
        file.write(b"x" * 4096)
        file.seek(20 << 20)
        file.write(b"end")
    for _ in range(2):
        with open(path, "rb") as file:
            hole = os.lseek(file.fileno(), 0, os.SEEK_HOLE)
            assert 4096 <= hole <= 20 << 20
            data = os.lseek(file.fileno(), hole, os.SEEK_DATA)
            assert hole < data <= 20 << 20
            assert os.lseek(file.fileno(), data, os.SEEK_HOLE) == (20 << 20) + 3
            with pytest.raises(OSError) as past:
                os.lseek(file.fileno(), (20 << 20) + 3, os.SEEK_DATA)
            assert past.value.errno == errno.ENXIO
        sealed(server.work / "other", b"wait", vault)


def test_data_that_the_kernel_has_not_sent_yet_are_no_hole(serve: Serve) -> None:
    server = serve("--settings", '{"vault": "test", "passthrough": false}')
    with open(server.work / "file", "w+b", buffering=0) as file:
        os.pwrite(file.fileno(), b"dirty" * 1000, 512 << 10)
        assert counts(server)["write"] == 0
        at = os.lseek(file.fileno(), 0, os.SEEK_DATA)
        assert at <= 512 << 10
        assert os.lseek(file.fileno(), at, os.SEEK_HOLE) > 512 << 10


def test_small_writes_cost_no_request_each_with_extended_attributes_on(serve: Serve) -> None:
    server = serve("--settings", '{"vault": "test", "passthrough": false, "xattrs": true}')
    descriptor = os.open(server.work / "file", os.O_CREAT | os.O_WRONLY)
    for _ in range(1_000):
        os.write(descriptor, b"x" * 100)
    os.close(descriptor)
    asked = counts(server)
    assert asked["write"] == 1
    assert asked["getxattr"] <= 2


@pytest.mark.parametrize("change", ["write", "truncate", "open", "chown"])
def test_whoever_changes_a_file_takes_its_privileges_away(server: Server, change: str) -> None:
    code = """
import os, sys
path, change = sys.argv[1:]
os.chdir(os.path.dirname(path))
path = os.path.basename(path)
os.setuid(65534)
if change == "write":
    with open(path, "r+b", buffering=0) as file: file.write(b"x")
elif change == "truncate": os.truncate(path, 1)
elif change == "open": open(path, "wb").close()
"""
    path = server.work / "program"
    path.write_bytes(b"#!/bin/sh\n")
    path.chmod(0o6777)
    assert stat.S_IMODE(path.stat().st_mode) == 0o6777
    if change == "chown":
        os.chown(path, 1, 1)
    else:
        subprocess.run([sys.executable, "-I", "-S", "-c", code, path, change], check=True, timeout=20)
    assert stat.S_IMODE(path.stat().st_mode) == 0o777


def test_root_writes_and_privileges_stay(server: Server) -> None:
    path = server.work / "program"
    path.write_bytes(b"#!/bin/sh\n")
    path.chmod(0o4755)
    with open(path, "ab") as file:
        file.write(b"true\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o4755


def test_a_file_says_when_it_was_made_whatever_is_done_to_it(serve: Serve, vault: Path) -> None:
    server = serve("--vault", str(vault))
    file = server.work / "file"
    before_s = time.time()
    file.write_bytes(b"x")
    born = subprocess.run(["stat", "-c", "%.9W", file], capture_output=True, check=True).stdout
    # The kernel's coarse clock may be a tick behind.
    assert before_s - 0.1 < float(born) < time.time() + 0.1
    os.utime(file, (1, 1))
    file.rename(server.work / "renamed")
    with (server.work / "renamed").open("ab") as opened:
        opened.write(b"y")
    # The kernel forgets the inode and asks again.
    subprocess.run(["sh", "-c", "echo 2 > /proc/sys/vm/drop_caches"], check=True)
    again = subprocess.run(["stat", "-c", "%.9W %s %.9Y", server.work / "renamed"], capture_output=True, check=True)
    assert again.stdout.split()[:2] == [born.strip(), b"2"]
    assert counts(server)["statx"] >= 2


def test_a_listing_is_kept_by_the_kernel_and_never_out_of_date(server: Server) -> None:
    directory = server.work / "directory"
    directory.mkdir()
    names = {f"{number}" for number in range(300)}
    for name in names:
        (directory / name).touch()
    assert set(os.listdir(directory)) == names
    before = counts(server)
    for _ in range(10):
        assert set(os.listdir(directory)) == names
    after = counts(server)
    assert after["readdir"] + after["readdirplus"] == before["readdir"] + before["readdirplus"]
    (directory / "7").unlink()
    (directory / "new").touch()
    (directory / "8").rename(directory / "eight")
    assert set(os.listdir(directory)) == names - {"7", "8"} | {"new", "eight"}
    (directory / "0").rename(server.work / "elsewhere")
    assert "0" not in os.listdir(directory)


def test_names_are_looked_up_in_parallel_while_a_listing_waits(server: Server) -> None:
    """PARALLEL_DIROPS: without it the kernel takes one after the other."""
    directory = server.work / "directory"
    directory.mkdir()
    for number in range(2000):
        (directory / f"{number}").touch()
    threads = [threading.Thread(target=lambda: [os.stat(directory / f"{n}") for n in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert len(os.listdir(directory)) == 2000
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def test_a_reader_that_is_killed_does_not_wait_for_the_disk(serve: Serve) -> None:
    server = serve("--slow-reads")
    (server.work / "file").write_bytes(b"x" * 4096)
    code = "import sys\nprint(flush=True)\nopen(sys.argv[1], 'rb').read()"
    subprocess.run(["sh", "-c", "echo 1 > /proc/sys/vm/drop_caches"], check=True)
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code, server.work / "file"], stdout=subprocess.PIPE
    ) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        wait_until(lambda: counts(server)["read"] == 1)
        reader.send_signal(signal.SIGKILL)
        assert reader.wait(10) == -signal.SIGKILL
    (server.work / "still").write_text("alive")


def test_another_user_mounts_through_the_helper(tmp_path: Path, transport: str) -> None:
    """fusermount3 mounts and passes the descriptor.  In a mount namespace where everybody may open /dev/fuse."""
    point = Path("/mnt/point")
    prepared = """
set -e
mknod -m 666 "$1/fuse" c 10 229; mount --bind "$1/fuse" /dev/fuse
mount -t tmpfs -o mode=1777 tmpfs /mnt; mkdir /mnt/point; chown 65534:65534 /mnt/point
shift; exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"
"""
    command = ["unshare", "--mount", "sh", "-c", prepared, "sh", str(tmp_path), sys.executable]
    command += [str(Path(__file__).parent / "serve.py"), str(point), "--transport", transport]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}", "PYTHONDONTWRITEBYTECODE": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment, cwd="/") as served:
        assert served.stdout is not None
        try:
            assert json.loads(served.stdout.readline()) == {"kind": "mounted", "point": str(point)}
            enter = ["nsenter", f"--mount=/proc/{served.pid}/ns/mnt", "setpriv", "--reuid=65534"]
            enter += ["--regid=65534", "--clear-groups"]
            listed = subprocess.run([*enter, "ls", point], check=True, capture_output=True, timeout=20).stdout
            assert listed.split() == [b"cas", b"keys", b"runs", b"snapshots", b"work"]
            served.terminate()
            assert json.loads(served.stdout.readline())["kind"] == "ended"
        finally:
            served.kill()
