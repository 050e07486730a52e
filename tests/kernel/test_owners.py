"""Who may do what to whose files, and what a file loses when it changes hands: as a disk's own filesystem has it."""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.kernel
OWNER, STRANGER = 54_321, 54_322
GROUP, OTHER_GROUP = 65_001, 65_002
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def acting_as(uid: int, gid: int) -> Iterator[None]:
    """Let this thread reach files as somebody without root's rights."""
    _libc.setfsgid(gid)
    _libc.setfsuid(uid)
    try:
        yield
    finally:
        _libc.setfsuid(0)
        _libc.setfsgid(0)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def overwrite(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(b"other")


@pytest.fixture
def shared(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory where everybody may make names; entered, since what is above it is closed to strangers."""
    place.chmod(0o777)
    monkeypatch.chdir(place)
    return Path()


def make_each_kind(place: Path) -> dict[str, Path]:
    paths = {kind: place / kind for kind in ("file", "fifo", "socket", "char", "block")}
    paths["file"].write_bytes(b"content")
    os.mknod(paths["fifo"], stat.S_IFIFO | 0o644)
    os.mknod(paths["socket"], stat.S_IFSOCK | 0o644)
    os.mknod(paths["char"], stat.S_IFCHR | 0o644, os.makedev(1, 3))
    os.mknod(paths["block"], stat.S_IFBLK | 0o644, os.makedev(1, 3))
    return paths


def test_whatever_changes_hands_loses_what_lets_it_run_as_somebody_else(place: Path) -> None:
    for kind, path in make_each_kind(place).items():
        for way in (lambda path=path: os.chown(path, OWNER, GROUP), lambda path=path: os.chown(path, -1, OTHER_GROUP)):
            path.chmod(0o6755)
            assert mode_of(path) == 0o6755
            way()
            assert mode_of(path) == 0o755, kind
    (place / "directory").mkdir()
    (place / "directory").chmod(0o6755)
    os.chown(place / "directory", OWNER, GROUP)
    assert mode_of(place / "directory") == 0o6755


def test_a_change_of_hands_that_names_no_hands_is_one_all_the_same(place: Path) -> None:
    for kind, path in make_each_kind(place).items():
        path.chmod(0o6711)
        os.chown(path, -1, -1, follow_symlinks=False)
        assert mode_of(path) == 0o711, kind
    (place / "directory").mkdir()
    (place / "directory").chmod(0o6711)
    os.chown(place / "directory", -1, -1)
    assert mode_of(place / "directory") == 0o6711


def test_a_file_that_a_stranger_changes_loses_it_too(shared: Path) -> None:
    path = shared / "file"
    changes: dict[str, Callable[[], object]] = {
        "cut": lambda: os.truncate(path, 3),
        "overwritten": lambda: overwrite(path),
        "emptied": lambda: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC)),
    }
    for what, change in changes.items():
        path.write_bytes(b"content")
        path.chmod(0o6777)
        with acting_as(STRANGER, OTHER_GROUP):
            change()
        assert mode_of(path) == 0o777, what
    path.chmod(0o6777)
    path.write_bytes(b"by root")
    os.truncate(path, 2)
    assert mode_of(path) == 0o6777


def test_an_owner_may_give_a_file_to_a_group_of_its_own_and_nothing_else(shared: Path) -> None:
    path = shared / "file"
    path.touch()
    os.chown(path, OWNER, GROUP)
    with acting_as(OWNER, OTHER_GROUP):
        os.chown(path, -1, OTHER_GROUP)
        for uid, gid in ((STRANGER, -1), (-1, GROUP), (0, 0)):
            with pytest.raises(PermissionError):
                os.chown(path, uid, gid)
        path.chmod(0o700)
    with acting_as(STRANGER, OTHER_GROUP):
        for refused in (lambda: path.chmod(0o777), lambda: os.chown(path, STRANGER, -1), path.read_bytes):
            with pytest.raises(PermissionError):
                refused()
    assert (path.stat().st_uid, path.stat().st_gid, mode_of(path)) == (OWNER, OTHER_GROUP, 0o700)


def test_the_group_bit_is_refused_to_who_is_not_in_the_group(shared: Path) -> None:
    path = shared / "file"
    path.touch()
    os.chown(path, OWNER, GROUP)
    with acting_as(OWNER, OTHER_GROUP):
        path.chmod(0o2755)
    assert mode_of(path) == 0o755
    with acting_as(OWNER, GROUP):
        path.chmod(0o2755)
    assert mode_of(path) == 0o2755


def test_in_a_sticky_directory_only_owners_take_names_away(shared: Path) -> None:
    shared.chmod(0o1777)
    for name in ("file", "directory", "mine"):
        owner = STRANGER if name == "mine" else OWNER
        with acting_as(owner, GROUP):
            (shared / name).mkdir() if name == "directory" else (shared / name).touch()
    with acting_as(STRANGER, OTHER_GROUP):
        for refused in (
            lambda: (shared / "file").unlink(),
            lambda: (shared / "directory").rmdir(),
            lambda: (shared / "file").rename(shared / "new"),
            lambda: (shared / "mine").rename(shared / "file"),
        ):
            with pytest.raises(PermissionError):
                refused()
        (shared / "mine").rename(shared / "still mine")
        (shared / "still mine").unlink()
    with acting_as(OWNER, GROUP):
        (shared / "file").rename(shared / "new")
        (shared / "new").unlink()
        (shared / "directory").rmdir()
    assert os.listdir() == []


def test_names_need_the_right_to_write_and_paths_the_right_to_search(shared: Path) -> None:
    closed = shared / "closed"
    (closed / "inner").mkdir(parents=True)
    (closed / "file").write_text("content")
    with acting_as(STRANGER, OTHER_GROUP):
        assert (closed / "file").read_text() == "content"
        for refused in (
            lambda: (closed / "new").touch(),
            lambda: (closed / "file").unlink(),
            lambda: os.link(closed / "file", shared / "link"),
            lambda: (closed / "inner").rename(shared / "inner"),
            lambda: os.utime(closed / "file", (1, 1)),
        ):
            with pytest.raises(PermissionError):
                refused()
    closed.chmod(0o600)
    with acting_as(STRANGER, OTHER_GROUP), pytest.raises(PermissionError):
        (closed / "file").stat()


def test_what_somebody_makes_is_theirs(shared: Path) -> None:
    with acting_as(OWNER, GROUP):
        (shared / "file").touch()
        (shared / "directory").mkdir()
        (shared / "link").symlink_to("file")
        os.mkfifo(shared / "fifo")
    for name in ("file", "directory", "link", "fifo"):
        made = (shared / name).lstat()
        assert (made.st_uid, made.st_gid) == (OWNER, GROUP), name
