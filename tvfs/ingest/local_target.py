"""Single steps of writing to a local directory, by descriptor or relative to one."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from tvfs.content.attributes import UNKNOWN, OwnAttributes
from tvfs.content.tree_index import SYMLINK, IndexEntry

OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
CREATE_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def set_attributes(fd: int, own: OwnAttributes, *, owner: bool) -> None:
    """Give an open file or directory its attributes, its owner only if `owner`; raise `OSError`."""
    for name, value in own.xattrs:
        _set_xattr(fd, name, value)
    if owner and own.uid != UNKNOWN:
        os.fchown(fd, own.uid, own.gid)
    # After the owner: changing that clears the set-id bits.
    os.fchmod(fd, own.mode)
    if own.mtime_ns != UNKNOWN:
        os.utime(fd, ns=(own.mtime_ns, own.mtime_ns))


def set_attributes_by_name(dir_fd: int, name: bytes, entry: IndexEntry, *, owner: bool) -> None:
    """Give a symlink or special file, which cannot be opened, its attributes; raise `OSError`."""
    if owner and entry.uid != UNKNOWN:
        os.chown(name, entry.uid, entry.gid, dir_fd=dir_fd, follow_symlinks=False)
    if entry.kind != SYMLINK:
        _set_mode(dir_fd, name, entry.mode)
    if entry.mtime_ns != UNKNOWN:
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=dir_fd, follow_symlinks=False)


def write_all(fd: int, raw: bytes, offset: int) -> None:
    """Write all of `raw` at an offset; raise `OSError`."""
    written = os.pwrite(fd, raw, offset)
    while written < len(raw):
        written += os.pwrite(fd, memoryview(raw)[written:], offset + written)


def _set_xattr(fd: int, name: bytes, value: bytes) -> None:
    try:
        os.setxattr(fd, name, value)
    except OSError as exc:
        # A file system without extended attributes is no reason to withhold the content.
        if exc.errno != errno.ENOTSUP:
            raise


def _set_mode(dir_fd: int, name: bytes, mode: int) -> None:
    """Change the mode of exactly what has the name, whether or not it may be opened; raise `OSError`.

    `chmod` by name would follow a symlink that somebody has put there since.
    """
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        if stat.S_ISLNK(os.fstat(fd).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        os.chmod(f"/proc/self/fd/{fd}", mode)
    finally:
        os.close(fd)


def remove_tree(parent_fd: int, name: bytes) -> None:
    """Remove a directory of our own making, as far as possible: what cannot be removed is left.

    Of any depth with two descriptors: directories move up until none is in another.
    """
    moved_as = b".tv-removed-" + os.urandom(8).hex().encode()
    with suppress(OSError):
        fd = _open_own(parent_fd, name)
        try:
            count = 0
            while directories := _remove_files(fd):
                for directory in directories:
                    below = _open_own(fd, directory)
                    try:
                        for inner in _remove_files(below):
                            # A directory that changes its parent must be writable itself.
                            _set_mode(below, inner, 0o700)
                            count += 1
                            os.rename(inner, b"%s-%d" % (moved_as, count), src_dir_fd=below, dst_dir_fd=fd)
                    finally:
                        os.close(below)
                    os.rmdir(directory, dir_fd=fd)
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=parent_fd)


def _open_own(dir_fd: int, name: bytes) -> int:
    _set_mode(dir_fd, name, 0o700)
    return os.open(name, OPEN_DIRECTORY, dir_fd=dir_fd)


def _remove_files(fd: int) -> list[bytes]:
    """Remove what is no directory, and return the directories."""
    with os.scandir(fd) as found:
        items = list(found)
    directories = []
    for item in items:
        if item.is_dir(follow_symlinks=False):
            directories.append(os.fsencode(item.name))
        else:
            os.unlink(item.name, dir_fd=fd)
    return directories
