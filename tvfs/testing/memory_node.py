"""The inodes of the filesystem in dictionaries."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field

from sortedcontainers import SortedDict

from tvfs.filesystem import posix_error as refused
from tvfs.filesystem.model import FileAttributes, Ino

_NAME_BYTES_MAX = 255


@dataclass(slots=True)
class MemoryNode:
    """One inode."""

    ino: Ino
    mode: int
    uid: int
    gid: int
    nlink: int = 1
    rdev: int = 0
    size: int = 0
    atime_ns: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    content: bytearray = field(default_factory=bytearray)
    """May end before `size`: zeros follow."""
    target: bytes = b""
    names: dict[bytes, tuple[Ino, int]] = field(default_factory=dict)
    """Child and cookie of each name."""
    by_cookie: SortedDict = field(default_factory=SortedDict)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    opened: int = 0


def shown(node: MemoryNode) -> FileAttributes:
    """Return what stat shows."""
    return FileAttributes(
        ino=node.ino,
        mode=node.mode,
        nlink=node.nlink,
        uid=node.uid,
        gid=node.gid,
        rdev=node.rdev,
        size=node.size,
        blocks=-(-len(node.content) // 512),
        atime_ns=node.atime_ns,
        mtime_ns=node.mtime_ns,
        ctime_ns=node.ctime_ns,
    )


def checked_name(name: bytes) -> bytes:
    """Return a name that is not too long."""
    if len(name) > _NAME_BYTES_MAX:
        raise refused.NameTooLong("A name has at most 255 bytes.")
    return name


def check_replaceable(node: MemoryNode, replaced: MemoryNode) -> None:
    """Refuse a rename over something that may not be replaced by this."""
    if stat.S_ISDIR(node.mode) and not stat.S_ISDIR(replaced.mode):
        raise refused.NotADirectory("A directory replaces only a directory.")
    if stat.S_ISDIR(replaced.mode) and not stat.S_ISDIR(node.mode):
        raise refused.IsADirectory("Only a directory replaces a directory.")
    if replaced.names:
        raise refused.NotEmpty("The directory to replace still has names in it.")
