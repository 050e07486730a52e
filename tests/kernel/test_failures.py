"""What the mount survives: bugs, full disks, broken disks."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from tests.kernel.conftest import EVERY_WAY, GATHERING, Serve

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize(("name", "number"), [("raises", errno.EIO), ("bad-disk", errno.EREMOTEIO)])
def test_a_handler_that_raises_is_an_error_for_one_and_the_mount_lives(serve: Serve, name: str, number: int) -> None:
    server = serve()
    for _ in range(3):
        with pytest.raises(OSError) as failed:
            os.stat(server.work / name)
        assert failed.value.errno == number
    (server.work / "file").write_text("alive")
    assert (server.work / "file").read_text() == "alive"


@EVERY_WAY
def test_a_full_vault_tells_whoever_syncs_and_keeps_what_fits(serve: Serve) -> None:
    server = serve("--capacity", str(4 << 20))
    (server.work / "fits").write_bytes(bytes(1 << 20))
    with pytest.raises(OSError) as full:
        write_and_sync(server.work / "too big", 10 << 20)
    assert full.value.errno == errno.ENOSPC
    assert (server.work / "fits").read_bytes() == bytes(1 << 20)
    (server.work / "too big").unlink()
    # The kernel tells of a close when it likes, and only then the room is free.
    deadline = time.monotonic() + 10
    while free_bytes(server.point) < 2 << 20 and time.monotonic() < deadline:
        os.sched_yield()
    write_and_sync(server.work / "again", 2 << 20)


def free_bytes(point: Path) -> int:
    shown = os.statvfs(point)
    return shown.f_bavail * shown.f_frsize


def write_and_sync(path: Path, size: int) -> None:
    with open(path, "wb", buffering=0) as file:
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
        os.fsync(file.fileno())


def test_extended_attributes_are_off_unless_asked_for(serve: Serve, place: Path) -> None:
    (place / "file").touch()
    with pytest.raises(OSError) as off:
        os.setxattr(place / "file", "user.name", b"value")
    assert off.value.errno == errno.EOPNOTSUPP
    server = serve("--settings", '{"vault": "test", "xattrs": true}')
    file = server.work / "file"
    file.touch()
    os.setxattr(file, "user.name", b"value")
    with pytest.raises(FileExistsError):
        os.setxattr(file, "user.name", b"other", os.XATTR_CREATE)
    assert os.listxattr(file) == ["user.name"]
    assert os.getxattr(file, "user.name") == b"value"
    os.removexattr(file, "user.name")
    assert os.listxattr(file) == []


@GATHERING
def test_small_writes_cost_no_request_each(serve: Serve) -> None:
    server = serve()
    descriptor = os.open(server.work / "file", os.O_CREAT | os.O_WRONLY)
    for _ in range(1_000):
        os.write(descriptor, b"x" * 100)
    os.close(descriptor)
    counts = server.ask("counts", "counts")
    assert counts["write"] == 1
    assert counts["getxattr"] <= 1
    assert counts["flush"] <= 1


def test_what_the_kernel_knows_it_does_not_ask_again(serve: Serve) -> None:
    server = serve()
    (server.work / "file").write_bytes(b"x" * 10_000)
    for _ in range(2):
        (server.work / "file").read_bytes()
        (server.work / "absent").exists()
    before = server.ask("counts", "counts")
    for _ in range(100):
        assert (server.work / "file").stat().st_size == 10_000
        assert not (server.work / "absent").exists()
        assert (server.work / "file").read_bytes() == b"x" * 10_000
    after = server.ask("counts", "counts")
    more = {kind: after[kind] - before[kind] for kind in before if kind != "kind" and after[kind] != before[kind]}
    # With a writeback cache the kernel distrusts the count of blocks after each close: that is the getattr.
    assert {"open", "release"} <= set(more) <= {"open", "release", "getattr"}
    assert more["open"] == 100
    assert more.get("getattr", 0) <= 100
