"""How long, how deep, how many and how big things may be, and what is said of more."""

from __future__ import annotations

import errno
import os
import socket
import stat
import threading
from pathlib import Path

import pytest

pytestmark = pytest.mark.kernel
TIB = 1 << 40
LONGEST_FILE = (1 << 63) - 1


def refusal(act: object, *arguments: object) -> int:
    """Return the errno with which something is refused, 0 if it is not."""
    assert callable(act)
    try:
        act(*arguments)
    except OSError as exc:
        return exc.errno or -1
    return 0


def test_a_name_has_at_most_255_bytes(place: Path) -> None:
    for longest, longer in (("n" * 255, "n" * 256), ("ü" * 127 + "n", "ü" * 128)):
        there = place / "there"
        there.touch()
        for make in (Path.touch, Path.mkdir, lambda path: path.symlink_to("x"), os.mkfifo):
            make(place / longest)
            assert os.listdir(place).count(longest) == 1
            (place / longest).rmdir() if (place / longest).is_dir() else (place / longest).unlink()
            assert refusal(make, place / longer) == errno.ENAMETOOLONG
        for act in (os.rename, os.link):
            assert refusal(act, there, place / longer) == errno.ENAMETOOLONG
            assert refusal(act, there, place / longest) == 0
            (there if there.exists() and act is os.link else place / longest).unlink()
            there.touch()
        for act in (os.stat, os.unlink, os.rmdir, os.readlink, os.listdir):
            assert refusal(act, place / longer) == errno.ENAMETOOLONG
    assert os.statvfs(place).f_namemax == 255


def test_a_path_has_at_most_4095_bytes(place: Path) -> None:
    deep = os.open(place, os.O_RDONLY)
    for _ in range(40):  # deeper than one path can say
        os.mkdir("d" * 200, dir_fd=deep)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = inner
    os.mkdir("end", dir_fd=deep)
    assert os.stat("end", dir_fd=deep).st_nlink == 2
    os.close(deep)
    assert refusal(os.stat, str(place) + "/" + "/".join(["d" * 200] * 21)) == errno.ENAMETOOLONG
    assert refusal(os.symlink, "t" * 4096, place / "link") == errno.ENAMETOOLONG
    os.symlink("t" * 4095, place / "link")
    assert len(os.readlink(place / "link")) == (place / "link").lstat().st_size == 4095


def test_links_that_lead_in_a_circle_lead_nowhere(place: Path) -> None:
    (place / "a").symlink_to("b")
    (place / "b").symlink_to("a")
    (place / "self").symlink_to("self")
    for name in ("a", "b", "self", "a/below"):
        for act in (os.stat, os.listdir, lambda path: os.truncate(path, 0), lambda path: os.chmod(path, 0o600)):
            assert refusal(act, place / name) == errno.ELOOP
    (place / "last").touch()
    for number in range(45):
        (place / f"link{number}").symlink_to(f"link{number + 1}" if number < 44 else "last")
    assert refusal(os.stat, place / "link10") == 0
    assert refusal(os.stat, place / "link0") == errno.ELOOP
    assert refusal(lambda path: os.open(path, os.O_RDONLY | os.O_NOFOLLOW), place / "link44") == errno.ELOOP


@pytest.mark.parametrize("shared_server", ["pyfuse3-vault", "kernel-vault", "kernel-passthrough"], indirect=True)
def test_a_file_may_be_far_longer_than_what_is_in_it(place: Path) -> None:
    path = place / "file"
    path.write_bytes(b"begin")
    for size in (5 * TIB, 3 * TIB):
        os.truncate(path, size)
        assert path.stat().st_size == size
        assert path.stat().st_blocks * 512 <= 1 << 20
    with open(path, "r+b") as file:
        assert file.read(10) == b"begin" + bytes(5)
        file.seek(3 * TIB - 4)
        file.write(b"last!")
        assert os.pread(file.fileno(), 100, 2 * TIB) == bytes(100)
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert file.read(10) == b"begin" + bytes(5)
        assert os.pread(file.fileno(), 10, 3 * TIB - 6) == bytes(2) + b"last!"
    assert path.stat().st_size == 3 * TIB + 1
    path.write_bytes(b"")
    assert path.stat().st_size == 0


def test_a_file_cannot_be_longer_than_files_can_be(place: Path) -> None:
    path = place / "file"
    path.write_bytes(b"content")
    assert refusal(os.truncate, path, LONGEST_FILE) == errno.EFBIG
    with open(path, "r+b") as file:
        assert refusal(os.pwrite, file.fileno(), b"two", LONGEST_FILE - 1) in (errno.EFBIG, errno.EINVAL)
    assert refusal(os.truncate, path, -1) == errno.EINVAL
    assert path.read_bytes() == b"content"


def test_a_file_may_have_many_names(place: Path) -> None:
    (place / "file").write_text("content")
    (place / "names").mkdir()
    for number in range(300):
        os.link(place / "file", place / "names" / str(number))
    assert (place / "file").stat().st_nlink == 301
    for number in range(299):
        (place / "names" / str(number)).unlink()
    (place / "file").unlink()
    assert (place / "names" / "299").read_text() == "content"
    assert (place / "names" / "299").stat().st_nlink == 1


def test_links_are_counted_through_every_change_of_names(place: Path) -> None:
    (place / "one").touch()
    os.link(place / "one", place / "two")
    (place / "other").touch()
    file = os.open(place / "one", os.O_RDONLY)
    os.rename(place / "other", place / "one")
    assert os.fstat(file).st_nlink == 1
    os.rename(place / "two", place / "two")
    assert os.fstat(file).st_nlink == 1
    os.unlink(place / "two")
    assert os.fstat(file).st_nlink == 0
    assert refusal(os.link, f"/proc/self/fd/{file}", place / "back") in (errno.ENOENT, errno.EXDEV)
    os.close(file)
    (place / "a" / "b").mkdir(parents=True)
    (place / "empty").mkdir()
    directory = os.open(place / "empty", os.O_RDONLY)
    os.rename(place / "a" / "b", place / "empty")
    assert os.fstat(directory).st_nlink == 0
    assert (place / "a").stat().st_nlink == 2
    os.close(directory)
    assert refusal(os.link, place / "a", place / "c") == errno.EPERM


def test_a_special_file_is_what_it_was_made(place: Path) -> None:
    kinds = {stat.S_IFIFO: 0, stat.S_IFSOCK: 0, stat.S_IFCHR: os.makedev(1, 3), stat.S_IFBLK: os.makedev(259, 70_000)}
    for kind, device in kinds.items():
        path = place / f"{kind:o}"
        before = place.stat().st_mtime_ns
        os.mknod(path, kind | 0o640, device)
        made = path.lstat()
        assert (stat.S_IFMT(made.st_mode), stat.S_IMODE(made.st_mode), made.st_nlink) == (kind, 0o640, 1)
        assert made.st_size == 0
        if device:
            assert made.st_rdev == device
        assert place.stat().st_mtime_ns >= before
        assert refusal(os.mknod, path, kind | 0o640, device) == errno.EEXIST
        assert refusal(os.truncate, path, 0) == errno.EINVAL
        os.link(path, place / "another")
        os.rename(place / "another", place / "moved")
        assert stat.S_IFMT((place / "moved").lstat().st_mode) == kind
        (place / "moved").unlink()
        path.unlink()
    assert refusal(os.mknod, place / "directory", stat.S_IFDIR | 0o755) in (errno.EINVAL, errno.EPERM)
    os.mknod(place / "regular", stat.S_IFREG | 0o604)
    assert stat.S_IMODE((place / "regular").stat().st_mode) == 0o604


def test_a_pipe_and_a_socket_carry_bytes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(place / "fifo")
    writer = threading.Thread(target=lambda: (place / "fifo").write_bytes(b"through the pipe"))
    writer.start()
    assert (place / "fifo").read_bytes() == b"through the pipe"
    writer.join(10)
    monkeypatch.chdir(place)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as calling:
        listening.bind("socket")
        listening.listen()
        calling.connect("socket")
        calling.sendall(b"through the socket")
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.recv(100) == b"through the socket"
        with socket.socket(socket.AF_UNIX) as second, pytest.raises(OSError) as taken:
            second.bind("socket")
        assert taken.value.errno == errno.EADDRINUSE
    assert stat.S_ISSOCK((place / "socket").stat().st_mode)
