"""The values that the filesystem speaks in: POSIX, no FUSE.

`msgspec.Struct`s, because several are built for each request: 0.1 µs where a frozen dataclass takes 0.8.
"""

from __future__ import annotations

from typing import NewType

import msgspec

Ino = NewType("Ino", int)
"""Inode number; never reused."""

ROOT = Ino(1)
WORK = Ino(2)
KEYS = Ino(3)
RUNS = Ino(4)
SNAPSHOTS = Ino(5)
CAS = Ino(6)
PREPARED = Ino(7)
"""Where the owner prepares what a client then publishes by rename: `MOUNT/.taskvault`, reachable but not listed."""
TRASH = Ino(8)
"""Not reachable through the mount; its children are removed in slices."""
FIRST_FREE = Ino(64)

Handle = NewType("Handle", int)
"""One open file or directory; counts from 1."""

LONG_TIMEOUT_S = 3600.0 * 24
"""How long the kernel may keep what only it can change."""


class Caller(msgspec.Struct, frozen=True, gc=False):
    """Who makes a request, as the kernel tells it."""

    uid: int
    gid: int
    pid: int = 0


class FileAttributes(msgspec.Struct, frozen=True, gc=False):
    """What stat shows.  Times in nanoseconds since 1970."""

    ino: Ino
    mode: int
    """File type and permission bits, as in `st_mode`."""
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    blocks: int
    """Units of 512 bytes; holes do not count."""
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    born_ns: int = 0
    """0 if nobody knows."""


class Found(msgspec.Struct, frozen=True, gc=False):
    """The answer to a look-up."""

    attributes: FileAttributes
    timeout_s: float = LONG_TIMEOUT_S
    """How long the kernel may believe the name and the attributes: 0 where the owner changes names itself."""


class Absent(msgspec.Struct, frozen=True, gc=False):
    """The answer to a look-up that found nothing."""

    timeout_s: float = LONG_TIMEOUT_S
    """How long the kernel may believe it."""


class DirectoryEntry(msgspec.Struct, frozen=True, gc=False):
    """One name in a listing."""

    name: bytes
    found: Found
    next_cookie: int
    """Where a listing that stops after this entry continues."""


class AttributeChanges(msgspec.Struct, frozen=True, gc=False):
    """What a setattr changes; None leaves a field alone."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    ctime_ns: int | None = None


class FilesystemStatistics(msgspec.Struct, frozen=True, gc=False):
    """What statfs shows; bytes and counts."""

    capacity_bytes: int
    free_bytes: int
    files: int
    free_files: int


RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
