"""Read one local file as it was at one moment, or say that it changed."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from typing import NamedTuple

from tvfs.clock import SystemClock
from tvfs.content.attributes import Xattrs
from tvfs.content.reference import Content
from tvfs.errors import TaskVaultError
from tvfs.ingest.ingest import Ingest

ATTEMPTS = 3
"""How often a file that changes while it is read is begun again."""
_COARSE_CLOCK = SystemClock()
LONGEST_TICK_NS = 10_000_000
"""Of the kernel's coarse clock, at 100 Hz; a file from further in the future was given its time by another machine."""
OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""Not blocking: what was a file a moment ago may be a fifo now."""


class PathUnreadable(TaskVaultError):
    """A path could not be read."""

    def __init__(self, path: bytes, error: OSError) -> None:
        super().__init__(
            f"{os.fsdecode(path)} could not be read ({error.strerror}); make it readable, or leave it out."
        )
        self.path = path
        self.errno = error.errno


class FileChanged(TaskVaultError):
    """A file was written while it was read, again and again."""

    def __init__(self, path: bytes) -> None:
        super().__init__(f"{os.fsdecode(path)} changes while it is read; wait for whoever writes it, or leave it out.")
        self.path = path


class StoredFile(NamedTuple):
    """A file's content, and the attributes that it had with exactly this content."""

    content: Content
    status: os.stat_result


def store_file(ingest: Ingest, fd: int, path: bytes) -> StoredFile:
    """Add the content of an open regular file, and close it; raise `FileChanged` or `PathUnreadable`."""
    try:
        for _ in range(ATTEMPTS):
            before = os.fstat(fd)
            wait_for_next_tick(before)
            content = _add(ingest, fd, before.st_size)
            after = os.fstat(fd)
            if content is not None and content.size == after.st_size and unchanged(before, after):
                return StoredFile(content, after)
            os.lseek(fd, 0, os.SEEK_SET)
    except OSError as exc:
        raise PathUnreadable(path, exc) from exc
    finally:
        os.close(fd)
    raise FileChanged(path)


def unchanged(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether the file is the same one and nobody wrote it, as far as its times can tell."""
    return (
        before.st_mtime_ns == after.st_mtime_ns
        and before.st_ctime_ns == after.st_ctime_ns
        and before.st_size == after.st_size
        and before.st_ino == after.st_ino
        and before.st_dev == after.st_dev
    )


def _add(ingest: Ingest, fd: int, size: int) -> Content | None:
    if size > ingest.single_chunk_bytes:
        return ingest.add_stream(_reader_of(fd), size)
    # One read: a byte more than expected would show that the file has grown.
    whole = os.read(fd, size + 1)
    return ingest.add_bytes(whole) if len(whole) == size else None


def _reader_of(fd: int) -> Callable[[int], bytes]:
    """Return what reads on from the start; holes are told from data by the file system, and cost no reading."""
    position = data_end = 0

    def read(length: int) -> bytes:
        nonlocal position, data_end
        if position >= data_end:
            data_start, data_end = _data_after(fd, position)
            if data_start > position:
                zeros = min(length, data_start - position)
                position, data_end = position + zeros, 0
                return bytes(zeros)
        # At the end one byte is asked for: it is there if the file has grown.
        part = os.pread(fd, min(length, max(data_end - position, 1)), position)
        position += len(part)
        return part

    return read


def _data_after(fd: int, position: int) -> tuple[int, int]:
    """Return where data begins from a position on, and where it ends; the end of the file for both if none does."""
    try:
        start = os.lseek(fd, position, os.SEEK_DATA)
        return start, os.lseek(fd, start, os.SEEK_HOLE)
    except OSError as exc:
        if exc.errno != errno.ENXIO:
            raise
        size = os.fstat(fd).st_size
        return size, size


def wait_for_next_tick(status: os.stat_result) -> None:
    """Return when another write of the file would be given another time than the last one was; 10 ms at most.

    File systems take their times from a clock that stands still for a tick, so of two writes in one tick the second
    would not be noticed.
    """
    while 0 <= status.st_ctime_ns - _COARSE_CLOCK.now_ns() < LONGEST_TICK_NS:
        time.sleep(0.001)


class XattrReader:
    """Reads the `user.` attributes of open files; silently none where the file system has none."""

    def __init__(self) -> None:
        self._without: set[int] = set()

    def read(self, fd: int, status: os.stat_result) -> Xattrs:
        """Return the attributes sorted by name.  Those of other namespaces belong to the machine, not to the file."""
        if status.st_dev in self._without or stat.S_IFMT(status.st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
            return ()
        try:
            names = os.listxattr(fd)
        except OSError as exc:
            if exc.errno == errno.ENOTSUP:
                self._without.add(status.st_dev)
            return ()
        wanted = sorted(name for name in names if name.startswith("user."))
        return tuple((os.fsencode(name), value) for name in wanted if (value := _xattr(fd, name)) is not None)


def _xattr(fd: int, name: str) -> bytes | None:
    try:
        return os.getxattr(fd, name)
    except OSError:
        # Removed since it was listed, or not ours to read: as if it were not there.
        return None
