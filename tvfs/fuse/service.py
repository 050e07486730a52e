"""What a request means to the filesystem, whichever transport it came by.

What the kernel is told to remember makes the mount fast: names, attributes, pages and absence stay in its caches
until it changes them itself.  Handles are those of the filesystem, and there are none of directories; references to
inodes are counted here.  What a transport only hands on it asks `filesystem` for directly.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, TypeVar

from tvfs.filesystem.lookups import LookupCounts
from tvfs.filesystem.model import Absent, AttributeChanges, Caller, FileAttributes, Found, Ino
from tvfs.filesystem.posix_error import Exists, NoAttribute, NoSpace
from tvfs.fuse.refusals import NotServed, NotSupported
from tvfs.fuse.served_filesystem import ServedFilesystem

T = TypeVar("T")
NAMING_ATTEMPTS = 8
"""How often others may take the room that was made for a name."""
PREFERRED_IO_BYTES = 64 * 1024
"""`st_blksize`: what stdio buffers.  From 128 KiB on malloc would map and unmap memory for each file."""
STATFS_BLOCK_BYTES = 4096
NAME_BYTES_MAX = 255
_CAPABILITIES = b"security.capability"


class Capacity(NamedTuple):
    """What statfs shows, in blocks."""

    block_bytes: int
    blocks: int
    free_blocks: int
    files: int
    free_files: int
    name_bytes: int


class FilesystemService:
    """One mount's requests; each method may raise what `errno_of` knows to answer."""

    def __init__(self, filesystem: ServedFilesystem, lookups: LookupCounts, *, xattrs: bool) -> None:
        """Without `xattrs` each request for one is answered ENOSYS, and the kernel asks no more."""
        self.filesystem = filesystem
        self.lookups = lookups
        self._xattrs = xattrs

    # --- names and attributes

    def lookup(self, parent: Ino, name: bytes) -> Found | Absent:
        """Find a name; absence is an answer too, which the kernel remembers."""
        if name == b".":
            # A file server that has only the number asks so; everything it then needs is in the attributes.
            return self.entered(Found(*self.attributes(parent)))
        found = self.filesystem.lookup(parent, name)
        if found.__class__ is Absent:
            return found
        assert isinstance(found, Found)
        self.lookups.add(found.attributes.ino)
        return found

    def entered(self, found: Found) -> Found:
        """Count what the kernel is given by an answer that names an inode."""
        self.lookups.add(found.attributes.ino)
        return found

    async def naming(self, make: Callable[[], T]) -> T:
        """Do what adds a name; if there is no room for it, wait until some has been made, and do it then."""
        for _ in range(NAMING_ATTEMPTS):
            with suppress(NoSpace):
                return make()
            if not await self.filesystem.make_room_for_names():
                break
        return make()

    def forget(self, ino: Ino, count: int) -> bool:
        """The kernel gives references back; return whether it was the last, which may free the inode."""
        last = self.lookups.drop(ino, count)
        if last:
            self.filesystem.forgotten(ino)
        return last

    def attributes(self, ino: Ino) -> tuple[FileAttributes, float]:
        """Return the attributes and how long the kernel may believe them, in seconds."""
        return self.filesystem.getattr(ino), self.filesystem.attribute_timeout_s(ino)

    def capacity(self) -> Capacity:
        """Return capacity and use."""
        statistics = self.filesystem.statfs()
        return Capacity(
            STATFS_BLOCK_BYTES,
            statistics.capacity_bytes // STATFS_BLOCK_BYTES,
            statistics.free_bytes // STATFS_BLOCK_BYTES,
            statistics.files + statistics.free_files,
            statistics.free_files,
            NAME_BYTES_MAX,
        )

    def drop_privileges(self, ino: Ino, caller: Caller) -> None:
        """Clear what lets a file run as somebody else, as a kernel does whose filesystem does not: KILLPRIV_V2."""
        mode = self.filesystem.getattr(ino).mode
        kept = without_privileges(mode)
        if kept != mode:
            self.filesystem.setattr_nowait(ino, AttributeChanges(mode=kept), caller)

    # --- extended attributes

    def getxattr(self, ino: Ino, name: bytes) -> bytes:
        """Return an extended attribute."""
        self._refuse_unless_xattrs()
        if name == _CAPABILITIES:
            # The kernel asks before a write; files here never carry capabilities.
            raise _NO_CAPABILITIES.with_traceback(None)
        return self.filesystem.getxattr(ino, name)

    def setxattr(self, ino: Ino, name: bytes, value: bytes, flags: int = 0) -> None:
        """Set an extended attribute, except what only the kernel could give a meaning to; `flags` are XATTR_*."""
        self._refuse_unless_xattrs()
        if name == _CAPABILITIES or name.startswith(b"system."):
            raise NotSupported
        if flags & (os.XATTR_CREATE | os.XATTR_REPLACE):
            there = name in self.filesystem.listxattr(ino)
            if flags & os.XATTR_CREATE and there:
                raise Exists("The extended attribute exists already.")
            if flags & os.XATTR_REPLACE and not there:
                raise NoAttribute("There is no such extended attribute.")
        self.filesystem.setxattr(ino, name, value)

    def listxattr(self, ino: Ino) -> list[bytes]:
        """Name the extended attributes."""
        self._refuse_unless_xattrs()
        return self.filesystem.listxattr(ino)

    def removexattr(self, ino: Ino, name: bytes) -> None:
        """Remove an extended attribute."""
        self._refuse_unless_xattrs()
        self.filesystem.removexattr(ino, name)

    def _refuse_unless_xattrs(self) -> None:
        if not self._xattrs:
            raise NotServed


_NO_CAPABILITIES = NoAttribute("Files here carry no capabilities.")


def without_privileges(mode: int) -> int:
    """Return the mode without set-user-id, and without set-group-id if the group may execute, as Linux drops them."""
    if stat.S_ISDIR(mode):
        return mode
    kept = mode & ~stat.S_ISUID
    return kept & ~stat.S_ISGID if mode & stat.S_IXGRP else kept
