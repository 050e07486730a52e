"""What is done with the files of the staging area on the disk, and what the disk's errors mean to a program."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import trio

from tvfs import failpoints
from tvfs.catalog.catalog import Catalog
from tvfs.filesystem.descriptors import Descriptors
from tvfs.filesystem.posix_error import IoFailed, NoSpace, PosixError, TooBig
from tvfs.filesystem.staged_file import BLOCK_OF_DISK, StagedFile
from tvfs.plugin_api.buffer import Buffer


class GrowsMore(Exception):
    """A write takes more of the disk than it was promised."""


def map_of(path: Path) -> Path:
    """Return where the map of a staging file lies."""
    return path.with_name(path.name + ".map")


def read_at(descriptor: int, offset: int, length: int) -> bytes:
    """Return bytes, with zeros for what is beyond the end."""
    with translated():
        found = os.pread(descriptor, length, offset)
    # Shorter than asked for only where another system call was cut off: what is missing is read again.
    while len(found) < length:
        more = os.pread(descriptor, length - len(found), offset + len(found))
        if not more:
            return found.ljust(length, b"\0")
        found += more
    return found


def write_at(descriptor: int, parts: list[tuple[int, Buffer]], size_before: int) -> None:
    """Write all parts, or leave the length of the file as it was before."""
    with translated():
        try:
            failpoints.reach("stage.write")
            for offset, part in parts:
                view = memoryview(part)
                while view:
                    written = os.pwrite(descriptor, view, offset)
                    view = view[written:]
                    offset += written
        except OSError:
            # The length is the logical size: half a write must not be found by the next start.
            if os.fstat(descriptor).st_size > size_before:
                os.ftruncate(descriptor, size_before)
            raise


def seek_in(descriptor: int, offset: int, data: bool) -> int | None:
    """Return where data begin, or a hole does; None if there is nothing but a hole."""
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA if data else os.SEEK_HOLE)
    except OSError:  # ENXIO: nothing but a hole; any other error: look no further
        return None


def allocated_bytes_of(descriptor: int, file: StagedFile) -> int:
    """Return what a staging file and its map take of the disk, in bytes."""
    # The map is a few bytes: one block of the disk, from the first entry on.
    return os.fstat(descriptor).st_blocks * 512 + (BLOCK_OF_DISK if file.blocks else 0)


def sync_file(descriptor: int, path: Path, with_map: bool, with_directory: bool) -> None:
    """Let the bytes of a staging file survive a power loss, and how it is found."""
    failpoints.reach("fsync.before_data")
    os.fdatasync(descriptor)
    failpoints.reach("fsync.after_file")
    paths = [map_of(path)] if with_map else []
    if with_directory:
        # The file's directory, and the one above: it may be new as well.
        paths += [path.parent, path.parent.parent]
    for each in paths:
        synced = os.open(each, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(synced)
        finally:
            os.close(synced)


async def sync_staged(
    file: StagedFile, descriptor: int, catalog: Catalog, threads: trio.CapacityLimiter, more: tuple[bool, bool]
) -> None:
    """Call `sync_file` for a file in a thread, `more` being its last two arguments; after an error nothing is believed.

    The kernel says once that bytes could not be written, and may have dropped them: the next sync would prove nothing,
    and what is read now may be what the disk will not have.
    """
    with translated():
        try:
            await trio.to_thread.run_sync(sync_file, descriptor, file.path, *more, limiter=threads)
        except OSError as exc:
            file.sync_failed = True
            if exc.errno not in NO_ROOM:
                catalog.fail(f"a file's bytes could not be written: {exc.strerror}")
            raise


def make_file(descriptors: Descriptors, path: Path, content: bytes) -> None:
    """Make a staging file with this content, or none."""
    with translated():
        descriptor = descriptors.create(path)
    with discarded_on_error(descriptors, path):
        write_at(descriptor, [(0, content)], 0)


def append_to_map(path: Path, blocks: list[int]) -> None:
    """Note in the map of a staging file that it has these blocks."""
    with translated():
        failpoints.reach("stage.before_map")
        with open(map_of(path), "ab") as sidecar:
            sidecar.write(b"".join(block.to_bytes(8, "big") for block in blocks))
    failpoints.reach("stage.after_map")


@contextmanager
def discarded_on_error(descriptors: Descriptors, path: Path) -> Iterator[None]:
    """Remove a staging file that nothing leads to if the body fails."""
    try:
        yield
    except BaseException:
        discard(descriptors, path)
        raise


def discard(descriptors: Descriptors, path: Path) -> None:
    """Remove a staging file that nothing leads to."""
    descriptors.close(path)
    with suppress(OSError):
        path.unlink(missing_ok=True)


def remove_all(paths: list[Path]) -> None:
    """Remove staging files with their maps."""
    for path in paths:
        path.unlink(missing_ok=True)
        map_of(path).unlink(missing_ok=True)


NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Errors of a disk that is full, and otherwise sound."""


@contextmanager
def translated() -> Iterator[None]:
    """Raise what a program is to be told of the disk's errors."""
    try:
        yield
    except OSError as exc:
        raise _posix(exc) from exc


def _posix(exc: OSError) -> PosixError:
    if exc.errno in NO_ROOM:
        return NoSpace()
    if exc.errno == errno.EFBIG:
        return TooBig("The disk below the vault does not take files as long as this.")
    return IoFailed(f"The staging area of the vault failed ({exc.strerror}); look at the disk.")
