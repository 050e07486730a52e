"""A real vault under the mount: what was written is there again, however the server ended."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.kernel.conftest import EVERY_WAY, GATHERING, Serve, Server

pytestmark = pytest.mark.kernel


@pytest.fixture
def home(tmp_path: Path) -> tuple[str, str]:
    return "--vault", str(tmp_path / "vault")


def end(server: Server) -> None:
    server.send_signal(signal.SIGTERM)
    server.answer("ended")
    assert server.wait() == 0


def contents(server: Server) -> dict[str, bytes]:
    return {str(path.relative_to(server.work)): path.read_bytes() for path in server.work.rglob("*") if path.is_file()}


def fill(server: Server) -> dict[str, bytes]:
    (server.work / "directory").mkdir()
    for number in range(30):
        (server.work / "directory" / f"file-{number}").write_bytes(os.urandom(number * 9_973))
    return contents(server)


@EVERY_WAY
def test_everything_is_there_after_an_orderly_end(serve: Serve, home: tuple[str, str]) -> None:
    server = serve(*home)
    written = fill(server)
    os.utime(server.work / "directory" / "file-7", ns=(1, 1_600_000_000_123_456_789))
    end(server)
    server = serve(*home)
    assert contents(server) == written
    assert (server.work / "directory" / "file-7").stat().st_mtime_ns == 1_600_000_000_123_456_789


@GATHERING
def test_sigterm_loses_nothing_of_an_open_dirty_file(serve: Serve, home: tuple[str, str]) -> None:
    server = serve(*home)
    descriptor = os.open(server.work / "dirty", os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, b"not yet with the filesystem")
    assert server.ask("counts", "counts")["write"] == 0
    end(server)
    with suppress(OSError):
        os.close(descriptor)
    assert contents(serve(*home)) == {"dirty": b"not yet with the filesystem"}


@EVERY_WAY
def test_a_killed_server_loses_nothing_that_was_closed_or_synced(serve: Serve, home: tuple[str, str]) -> None:
    server = serve(*home)
    written = fill(server)
    descriptor = os.open(server.work / "synced", os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, b"synced")
    os.fsync(descriptor)
    server.kill()
    with suppress(OSError):
        os.close(descriptor)
    assert contents(serve(*home)) == {**written, "synced": b"synced"}


def test_an_open_file_without_a_name_is_gone_after_a_kill(serve: Serve, home: tuple[str, str]) -> None:
    server = serve(*home)
    descriptor = os.open(server.work / "temporary", os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, b"x" * 100_000)
    (server.work / "temporary").unlink()
    server.kill()
    with suppress(OSError):
        os.close(descriptor)
    server = serve(*home)
    assert contents(server) == {}
    assert not [path for path in Path(home[1], "staging").rglob("*") if path.is_file()]


@EVERY_WAY
def test_a_full_vault_tells_whoever_syncs_and_works_on(serve: Serve, home: tuple[str, str]) -> None:
    server = serve(*home, "--capacity", str(64 << 20))
    (server.work / "fits").write_bytes(b"x" * (1 << 20))
    descriptor = os.open(server.work / "too big", os.O_CREAT | os.O_WRONLY)
    with pytest.raises(OSError) as full:
        write_random_and_sync(descriptor, 96)
    assert full.value.errno == errno.ENOSPC
    with suppress(OSError):
        os.close(descriptor)
    (server.work / "too big").unlink()
    assert (server.work / "fits").read_bytes() == b"x" * (1 << 20)
    # The kernel tells of the last close and of the last reference after the fact.
    while free_bytes(server) < 32 << 20:
        os.sched_yield()
    descriptor = os.open(server.work / "again", os.O_CREAT | os.O_WRONLY)
    write_random_and_sync(descriptor, 4)
    os.close(descriptor)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 96 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_full_disk_can_be_emptied_through_the_mount(serve: Serve, small_disk: Path) -> None:
    home = "--vault", str(small_disk / "vault")
    server = serve(*home)
    kept = {f"kept-{number}": os.urandom(1 << 20) for number in range(4)}
    for name, content in kept.items():
        (server.work / name).write_bytes(content)
    filled = [server.work / f"{size}-{number}" for size in (1 << 20, 2000) for number in range(800)]
    for path in filled:
        with suppress(OSError):
            write_random_file(path, int(path.name.partition("-")[0]))
    with pytest.raises(OSError, match="No space left"):
        write_random_file(server.work / "one more", 2 << 20)
    assert free_bytes(server) < 2 << 20
    for path in filled:
        path.unlink(missing_ok=True)
    (server.work / "one more").unlink(missing_ok=True)
    while free_bytes(server) < 8 << 20:
        os.sched_yield()
    server.kill()
    server = serve(*home)
    (server.work / "again").write_bytes(b"again")
    assert contents(server) == kept | {"again": b"again"}


def write_random_file(path: Path, size: int) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    try:
        os.write(descriptor, os.urandom(size))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_bytes(server: Server) -> int:
    statistics = os.statvfs(server.work)
    return statistics.f_bavail * statistics.f_frsize


def write_random_and_sync(descriptor: int, mebibytes: int) -> None:
    for _ in range(mebibytes):
        os.write(descriptor, os.urandom(1 << 20))
    os.fsync(descriptor)
