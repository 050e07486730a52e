"""What programs do with names and directories, through the kernel."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
import threading
from pathlib import Path

import pytest

pytestmark = pytest.mark.kernel
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
_libc = ctypes.CDLL(None, use_errno=True)


def renameat2(old: Path, new: Path, flags: int) -> None:
    if _libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def test_a_hard_link_is_the_same_file(place: Path) -> None:
    (place / "one").write_text("content")
    os.link(place / "one", place / "two")
    assert os.path.samefile(place / "one", place / "two")
    assert (place / "one").stat().st_nlink == 2
    (place / "two").write_text("changed")
    assert (place / "one").read_text() == "changed"
    (place / "one").unlink()
    assert (place / "two").stat().st_nlink == 1
    assert (place / "two").read_text() == "changed"


def test_a_symlink_leads_to_its_target(place: Path) -> None:
    (place / "target").write_text("content")
    (place / "link").symlink_to("target")
    assert (place / "link").readlink() == Path("target")
    assert (place / "link").read_text() == "content"
    assert (place / "link").lstat().st_size == len("target")
    (place / "dangling").symlink_to("x" * 4000)
    assert len(os.readlink(place / "dangling")) == 4000


def test_a_directory_with_names_is_not_removed(place: Path) -> None:
    (place / "directory").mkdir()
    (place / "directory" / "file").touch()
    with pytest.raises(OSError) as refused:
        (place / "directory").rmdir()
    assert refused.value.errno == errno.ENOTEMPTY
    (place / "directory" / "file").unlink()
    (place / "directory").rmdir()
    assert os.listdir(place) == []


def test_links_of_a_directory_count_its_subdirectories(place: Path) -> None:
    assert place.stat().st_nlink == 2
    (place / "a").mkdir()
    (place / "b").mkdir()
    (place / "file").touch()
    assert place.stat().st_nlink == 4
    (place / "a").rename(place / "b" / "a")
    assert place.stat().st_nlink == 3
    assert (place / "b").stat().st_nlink == 3
    (place / "b" / "a").rmdir()
    assert (place / "b").stat().st_nlink == 2


def test_a_rename_replaces_atomically(place: Path) -> None:
    """A reader finds the old file or the new one, and never none."""
    (place / "file").write_text("0")
    stop = threading.Event()
    missing = []

    def read() -> None:
        while not stop.is_set():
            try:
                (place / "file").read_text()
            except FileNotFoundError as exc:
                missing.append(exc)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(200):
        (place / "new").write_text(str(number))
        (place / "new").rename(place / "file")
    stop.set()
    reader.join(10)
    assert not missing


@pytest.mark.parametrize(
    ("old", "new", "number"),
    [
        ("directory", "file", errno.ENOTDIR),
        ("file", "directory", errno.EISDIR),
        ("directory", "full", errno.ENOTEMPTY),
        ("full", "full/inner", errno.EINVAL),
        ("missing", "file", errno.ENOENT),
    ],
)
def test_a_rename_that_makes_no_sense_changes_nothing(place: Path, old: str, new: str, number: int) -> None:
    (place / "directory").mkdir()
    (place / "full" / "inner").mkdir(parents=True)
    (place / "file").touch()
    with pytest.raises(OSError) as refused:
        (place / old).rename(place / new)
    assert refused.value.errno == number
    assert sorted(os.listdir(place)) == ["directory", "file", "full"]


def test_a_rename_may_refuse_to_replace(place: Path) -> None:
    (place / "a").write_text("a")
    (place / "b").write_text("b")
    with pytest.raises(FileExistsError):
        renameat2(place / "a", place / "b", NOREPLACE)
    renameat2(place / "a", place / "c", NOREPLACE)
    assert (place / "c").read_text() == "a"
    assert (place / "b").read_text() == "b"


def test_a_rename_may_exchange(place: Path) -> None:
    (place / "file").write_text("file")
    (place / "sub" / "directory").mkdir(parents=True)
    renameat2(place / "file", place / "sub", EXCHANGE)
    assert (place / "sub").read_text() == "file"
    assert (place / "file" / "directory").is_dir()


def test_a_rename_with_whiteout_is_refused(place: Path) -> None:
    (place / "a").touch()
    with pytest.raises(OSError) as refused:
        renameat2(place / "a", place / "b", WHITEOUT)
    assert refused.value.errno == errno.EINVAL


def test_a_moved_directory_takes_what_is_in_it_along(place: Path) -> None:
    (place / "a" / "b").mkdir(parents=True)
    (place / "a" / "b" / "file").write_text("content")
    descriptor = os.open(place / "a" / "b", os.O_RDONLY)
    (place / "x").mkdir()
    (place / "a").rename(place / "x" / "y")
    assert (place / "x" / "y" / "b" / "file").read_text() == "content"
    with open(os.open("file", os.O_RDONLY, dir_fd=descriptor)) as file:
        assert file.read() == "content"
    assert os.stat("..", dir_fd=descriptor).st_ino == (place / "x" / "y").stat().st_ino
    os.close(descriptor)


def test_changes_show_in_the_times_that_posix_says(place: Path) -> None:
    def times(path: Path) -> tuple[int, int]:
        status = path.stat()
        return status.st_mtime_ns, status.st_ctime_ns

    def age(path: Path) -> None:
        os.utime(path, ns=(1, 1))

    (place / "file").touch()
    (place / "directory").mkdir()
    changes = [
        (lambda: (place / "directory" / "new").touch(), place / "directory", "mc"),
        (lambda: os.link(place / "file", place / "directory" / "link"), place / "directory", "mc"),
        (lambda: os.chmod(place / "file", 0o600), place / "file", "c"),
        (lambda: os.chown(place / "file", os.getuid(), os.getgid()), place / "file", "c"),
        (lambda: os.link(place / "file", place / "another"), place / "file", "c"),
        (lambda: (place / "another").unlink(), place / "file", "c"),
        (lambda: (place / "file").rename(place / "renamed"), place / "renamed", "c"),
        (lambda: os.truncate(place / "renamed", 10), place / "renamed", "mc"),
        (lambda: (place / "directory" / "new").unlink(), place / "directory", "mc"),
    ]
    for number, (change, path, changed) in enumerate(changes):
        observed = place / "file" if path.name == "renamed" and not path.exists() else path
        age(observed)
        before = observed.stat()
        wait_for_a_tick()
        change()
        mtime, ctime = times(path)
        assert (mtime != 1) == ("m" in changed), f"mtime after change {number}"
        assert (ctime > before.st_ctime_ns) == ("c" in changed), f"ctime after change {number}"


def wait_for_a_tick() -> None:
    """Until the coarse clock that files are stamped with has moved, twice: who stamps them may see it a tick later."""
    import time

    coarse = 5
    for _ in range(2):
        before = time.clock_gettime_ns(coarse)
        while time.clock_gettime_ns(coarse) == before:
            pass


def test_a_directory_with_the_group_bit_gives_its_group_to_what_is_made_in_it(place: Path) -> None:
    os.chown(place, -1, 4321)
    os.chmod(place, 0o2775)
    (place / "file").touch()
    (place / "directory").mkdir()
    assert (place / "file").stat().st_gid == 4321
    assert (place / "directory").stat().st_gid == 4321
    assert (place / "directory").stat().st_mode & stat.S_ISGID


def test_a_listing_has_every_name_once(place: Path) -> None:
    names = [f"name-{number:05}" for number in range(2_000)]
    for name in names:
        (place / name).touch()
    assert sorted(os.listdir(place)) == names
    with os.scandir(place) as listed:
        assert all(entry.is_file() and entry.inode() == entry.stat().st_ino for entry in listed)


def test_a_listing_survives_removal_while_it_runs(place: Path) -> None:
    for number in range(1_000):
        (place / f"name-{number:05}").touch()
    seen = []
    with os.scandir(place) as listed:
        for entry in listed:
            seen.append(entry.name)
            os.unlink(entry.path)
    assert len(seen) == len(set(seen)) == 1_000
    assert os.listdir(place) == []


def test_two_removals_of_one_big_tree_meet_no_trouble(place: Path) -> None:
    for directory in range(4):
        (place / "tree" / str(directory)).mkdir(parents=True)
        for number in range(500):
            (place / "tree" / str(directory) / f"{number}").touch()
    removers = [threading.Thread(target=shutil.rmtree, args=(place / "tree", True)) for _ in range(2)]
    for remover in removers:
        remover.start()
    for remover in removers:
        remover.join(30)
    shutil.rmtree(place / "tree", ignore_errors=True)
    assert os.listdir(place) == []


def test_a_removed_directory_that_is_still_entered_takes_no_new_names(place: Path) -> None:
    (place / "gone").mkdir()
    descriptor = os.open(place / "gone", os.O_RDONLY)
    (place / "gone").rmdir()
    with pytest.raises(FileNotFoundError):
        os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor)
    os.close(descriptor)


def test_the_fixed_places_cannot_be_changed(place: Path) -> None:
    mount = place.parent.parent
    assert {"work", "keys", "runs", "snapshots", "cas"} <= set(os.listdir(mount))
    with pytest.raises(OSError):
        (mount / "new").mkdir()
    with pytest.raises(OSError):
        (mount / "keys" / "new").mkdir()
