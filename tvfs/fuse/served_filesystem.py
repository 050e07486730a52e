"""What the adapter asks of a filesystem; the real one and its twin in memory both answer it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from tvfs.filesystem.model import (
    Absent,
    AttributeChanges,
    Caller,
    DirectoryEntry,
    FileAttributes,
    FilesystemStatistics,
    Found,
    Handle,
    Ino,
)
from tvfs.plugin_api.buffer import Buffer


class ServedFilesystem(Protocol):
    """Refusals are `PosixError`.  What is not `async` never waits and is atomic."""

    def lookup(self, parent: Ino, name: bytes) -> Found | Absent:
        """Find a name in a directory."""
        ...

    def getattr(self, ino: Ino) -> FileAttributes:
        """Return what stat shows."""
        ...

    def attribute_timeout_s(self, ino: Ino) -> float:
        """How long the kernel may believe the attributes."""
        ...

    def setattr_nowait(self, ino: Ino, changes: AttributeChanges, caller: Caller) -> FileAttributes | None:
        """Change attributes, or return None, and nothing has happened, if that must wait: a change of size may."""
        ...

    async def setattr(self, ino: Ino, changes: AttributeChanges, caller: Caller) -> FileAttributes:
        """Change attributes; a change of size truncates."""
        ...

    def readlink(self, ino: Ino) -> bytes:
        """Return a symlink's target."""
        ...

    def mkdir(self, parent: Ino, name: bytes, mode: int, caller: Caller) -> Found:
        """Make a directory."""
        ...

    def symlink(self, parent: Ino, name: bytes, target: bytes, caller: Caller) -> Found:
        """Make a symlink."""
        ...

    def mknod(self, parent: Ino, name: bytes, mode: int, rdev: int, caller: Caller) -> Found:
        """Make a regular or special file."""
        ...

    def link(self, ino: Ino, parent: Ino, name: bytes) -> Found:
        """Give an inode another name."""
        ...

    def unlink(self, parent: Ino, name: bytes) -> None:
        """Take a name away; the inode lives on while it is open or the kernel refers to it."""
        ...

    def rmdir(self, parent: Ino, name: bytes) -> None:
        """Remove an empty directory."""
        ...

    def rename(self, parent: Ino, name: bytes, new_parent: Ino, new_name: bytes, flags: int) -> None:
        """Move a name; flags as in renameat2."""
        ...

    async def create(self, parent: Ino, name: bytes, mode: int, flags: int, caller: Caller) -> tuple[Handle, Found]:
        """Make a regular file and open it."""
        ...

    def create_nowait(self, parent: Ino, name: bytes, mode: int, flags: int, caller: Caller) -> tuple[Handle, Found]:
        """Do the same; it never has to wait."""
        ...

    def open_nowait(self, ino: Ino, flags: int, caller: Caller) -> Handle | None:
        """Open a file, or return None, and nothing has happened, if that must wait."""
        ...

    async def open(self, ino: Ino, flags: int, caller: Caller) -> Handle:
        """Open a file; O_TRUNC truncates."""
        ...

    def read_nowait(self, handle: Handle, offset: int, length: int) -> Buffer | None:
        """Read, or return None if that must wait."""
        ...

    async def read(self, handle: Handle, offset: int, length: int) -> Buffer:
        """Read; shorter than asked only at the end of the file."""
        ...

    def write_nowait(self, handle: Handle, offset: int, data: Buffer) -> int | None:
        """Write and return how much, or return None if that must wait."""
        ...

    async def write(self, handle: Handle, offset: int, data: Buffer) -> int:
        """Write and return how much."""
        ...

    async def fsync(self, handle: Handle, data_only: bool) -> None:
        """Let what was written survive a power loss."""
        ...

    def written(self, ino: Ino) -> None:
        """Let the times be now: a kernel without a writeback cache leaves them to us."""
        ...

    async def allocate(self, handle: Handle, mode: int, offset: int, length: int) -> None:
        """Reserve room, or let a range be zeros; modes as in fallocate(2)."""
        ...

    def clone_nowait(self, source: Handle, target: Handle, length: int) -> int | None:
        """Let an empty file have the whole content of another; return its size, or None if it cannot be had so."""
        ...

    async def seek(self, handle: Handle, offset: int, whence: int) -> int:
        """Return where the next data begin, or the next hole: SEEK_DATA and SEEK_HOLE of lseek(2)."""
        ...

    def begin_direct(self, handle: Handle) -> int | None:
        """Return a descriptor of an ordinary file that has the file's content and will have it until `end_direct`.

        None if there is none.  The caller closes the descriptor.
        """
        ...

    def end_direct(self, ino: Ino) -> None:
        """The kernel has closed what it read past us; it may still have it mapped."""
        ...

    async def make_room_for_names(self) -> bool:
        """Wait while room is made for a name that was refused; return whether there is some now."""
        ...

    def release(self, handle: Handle) -> None:
        """Close a file."""
        ...

    def readdir(self, ino: Ino, cookie: int) -> Iterator[DirectoryEntry]:
        """List what comes after `cookie` (0: all), without `.` and `..`."""
        ...

    async def fsyncdir(self, ino: Ino) -> None:
        """Let a directory's names survive a power loss."""
        ...

    def statfs(self) -> FilesystemStatistics:
        """Return capacity and use."""
        ...

    def getxattr(self, ino: Ino, name: bytes) -> bytes:
        """Return an extended attribute."""
        ...

    def setxattr(self, ino: Ino, name: bytes, value: bytes) -> None:
        """Set an extended attribute."""
        ...

    def listxattr(self, ino: Ino) -> list[bytes]:
        """Name the extended attributes."""
        ...

    def removexattr(self, ino: Ino, name: bytes) -> None:
        """Remove an extended attribute."""
        ...

    def forgotten(self, ino: Ino) -> None:
        """The kernel has no reference any more: an inode without a name may go."""
        ...
