"""The times of files: what sets them, and what leaves them alone."""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernel.test_names import wait_for_a_tick
from tests.kernel.test_owners import OWNER, STRANGER, acting_as

pytestmark = pytest.mark.kernel
NOW, OMIT = (1 << 30) - 1, (1 << 30) - 2
SECOND = 1_000_000_000
_libc = ctypes.CDLL(None, use_errno=True)


class Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def utimensat(path: Path, atime: tuple[int, int], mtime: tuple[int, int], *, follow: bool = True) -> None:
    times = (Timespec * 2)(Timespec(*atime), Timespec(*mtime))
    if _libc.utimensat(-100, os.fsencode(path), times, 0 if follow else 0x100):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def shown(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_atime_ns, status.st_mtime_ns


@pytest.mark.parametrize("kind", ["file", "directory", "fifo", "symlink"])
def test_each_time_can_be_set_left_or_be_now(place: Path, kind: str) -> None:
    path = place / kind
    {
        "file": path.touch,
        "directory": path.mkdir,
        "fifo": lambda: os.mkfifo(path),
        "symlink": lambda: path.symlink_to("nowhere"),
    }[kind]()
    utimensat(path, (1, 2), (3, 999_999_999), follow=False)
    assert shown(path) == (1 * SECOND + 2, 3 * SECOND + 999_999_999)
    before = path.lstat().st_ctime_ns
    wait_for_a_tick()
    utimensat(path, (0, OMIT), (5, 0), follow=False)
    assert shown(path) == (1 * SECOND + 2, 5 * SECOND)
    assert path.lstat().st_ctime_ns > before
    utimensat(path, (7, 0), (0, OMIT), follow=False)
    assert shown(path) == (7 * SECOND, 5 * SECOND)
    utimensat(path, (0, NOW), (0, OMIT), follow=False)
    assert shown(path)[0] >= before
    assert shown(path)[1] == 5 * SECOND
    changed = path.lstat().st_ctime_ns
    utimensat(path, (0, OMIT), (0, OMIT), follow=False)
    assert path.lstat().st_ctime_ns == changed


@pytest.mark.parametrize("seconds", [-1, 0, (1 << 31) - 1, 1 << 31, 1 << 32, (1 << 33) + 5])
def test_times_before_1970_and_after_2038_are_kept(place: Path, seconds: int) -> None:
    (place / "file").touch()
    utimensat(place / "file", (seconds, 1), (seconds, 999_999_999))
    assert shown(place / "file") == (seconds * SECOND + 1, seconds * SECOND + 999_999_999)


def test_now_needs_the_right_to_write_and_any_other_time_the_owner(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    path = Path("file")
    path.touch()
    os.chown(path, OWNER, -1)
    path.chmod(0o644)
    with acting_as(STRANGER, 1):
        with pytest.raises(PermissionError):
            os.utime(path)
        with pytest.raises(PermissionError):
            utimensat(path, (1, 0), (1, 0))
    path.chmod(0o646)
    with acting_as(STRANGER, 1):
        os.utime(path)
        with pytest.raises(PermissionError):
            utimensat(path, (1, 0), (1, 0))
        with pytest.raises(PermissionError):
            utimensat(path, (0, NOW), (0, OMIT))
    with acting_as(OWNER, 1):
        utimensat(path, (1, 0), (1, 0))


def test_what_is_refused_changes_no_time(place: Path) -> None:
    (place / "full" / "inner").mkdir(parents=True)
    (place / "file").write_text("content")
    refused: list[Callable[[], object]] = [
        lambda: (place / "full").rmdir(),
        lambda: (place / "file").mkdir(),
        lambda: (place / "full").rename(place / "full" / "inner" / "x"),
        lambda: os.link(place / "file", place / "full"),
        lambda: (place / "full").unlink(),
        lambda: os.open(place / "file", os.O_CREAT | os.O_EXCL),
        lambda: os.open(place / "file", os.O_RDONLY | os.O_DIRECTORY),
    ]
    before = [(path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in (place, place / "full", place / "file")]
    wait_for_a_tick()
    for number, act in enumerate(refused):
        with pytest.raises(OSError):
            act()
        after = [(path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in (place, place / "full", place / "file")]
        assert after == before, number


def test_content_and_mode_change_the_times_that_posix_says(place: Path) -> None:
    path = place / "file"
    path.write_bytes(b"content")

    def write(flags: int, content: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY | flags)
        os.write(descriptor, content)
        os.close(descriptor)

    changes: list[tuple[str, str, Callable[[], object]]] = [
        ("overwritten", "mc", lambda: write(0, b"other")),
        ("appended", "mc", lambda: write(os.O_APPEND, b"more")),
        ("nothing written", "", lambda: write(0, b"")),
        ("shortened", "mc", lambda: os.truncate(path, 2)),
        ("lengthened", "mc", lambda: os.truncate(path, 9)),
        ("emptied by open", "mc", lambda: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))),
        ("emptied again by open", "mc", lambda: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))),
        ("opened", "", lambda: os.close(os.open(path, os.O_RDWR))),
        ("mode set", "c", lambda: path.chmod(0o600)),
        ("mode set to the same", "c", lambda: path.chmod(0o600)),
        ("owner set to the same", "c", lambda: os.chown(path, os.getuid(), -1)),
        ("looked at", "", path.stat),
    ]
    for what, expected, change in changes:
        os.utime(path, ns=(1, 1))
        before = path.stat().st_ctime_ns
        wait_for_a_tick()
        change()
        after = path.stat()
        changed = "m" * (after.st_mtime_ns != 1) + "c" * (after.st_ctime_ns > before)
        assert changed == expected, (what, before, after.st_ctime_ns, after.st_mtime_ns)


def test_a_name_that_replaces_another_changes_both_directories(place: Path) -> None:
    for name in ("from", "to"):
        (place / name).mkdir()
        (place / name / "file").touch()
    os.link(place / "to" / "file", place / "kept")
    old = {path: path.stat().st_ctime_ns for path in (place / "from", place / "to", place / "kept")}
    moved = (place / "from" / "file").stat().st_ctime_ns
    wait_for_a_tick()
    (place / "from" / "file").rename(place / "to" / "file")
    assert all(path.stat().st_ctime_ns > ctime for path, ctime in old.items())
    assert (place / "from").stat().st_mtime_ns > old[place / "from"]
    assert (place / "to").stat().st_mtime_ns > old[place / "to"]
    assert (place / "to" / "file").stat().st_ctime_ns > moved
    assert stat.S_ISREG((place / "kept").stat().st_mode)
