"""A filesystem in dictionaries: the model that the real one is compared with, and a mount without a vault."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from tvfs.clock import Clock
from tvfs.filesystem import posix_error as refused
from tvfs.filesystem.lookups import LookupCounts
from tvfs.filesystem.model import (
    CAS,
    FIRST_FREE,
    KEYS,
    LONG_TIMEOUT_S,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    ROOT,
    RUNS,
    SNAPSHOTS,
    WORK,
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
from tvfs.testing.memory_node import MemoryNode, check_replaceable, checked_name, shown

_FIXED = {b"work": WORK, b"keys": KEYS, b"runs": RUNS, b"snapshots": SNAPSHOTS, b"cas": CAS}
_KEEP_SIZE = 1
_PUNCH_HOLE = 2


class MemoryFilesystem:
    """Keeps every promise of the filesystem that the mount relies on, except that it ends with the process."""

    def __init__(self, *, clock: Clock, lookups: LookupCounts, capacity_bytes: int = 1 << 30) -> None:
        """No sum of contents passes `capacity_bytes`."""
        self._clock = clock
        self._lookups = lookups
        self._capacity_bytes = capacity_bytes
        self._used_bytes = 0
        self._nodes: dict[Ino, MemoryNode] = {}
        self._next_ino = FIRST_FREE
        self._next_cookie = 1
        self._handles: dict[Handle, Ino] = {}
        self._next_handle = 1
        self._add_node(ROOT, stat.S_IFDIR | 0o755, Caller(0, 0)).nlink = 2
        for name, ino in _FIXED.items():
            self._add_node(ino, stat.S_IFDIR | 0o777, Caller(0, 0)).nlink = 2
            self._enter(self._nodes[ROOT], name, self._nodes[ino])

    # --- names and attributes

    def lookup(self, parent: Ino, name: bytes) -> Found | Absent:
        """Find a name in a directory."""
        entry = self._directory(parent).names.get(checked_name(name))
        return Absent() if entry is None else self._found(self._nodes[entry[0]])

    def getattr(self, ino: Ino) -> FileAttributes:
        """Return what stat shows."""
        return shown(self._node(ino))

    def attribute_timeout_s(self, ino: Ino) -> float:
        """How long the kernel may believe the attributes."""
        return LONG_TIMEOUT_S

    async def setattr(self, ino: Ino, changes: AttributeChanges, caller: Caller) -> FileAttributes:
        """Change attributes; a change of size truncates."""
        return self.setattr_nowait(ino, changes, caller)

    def setattr_nowait(self, ino: Ino, changes: AttributeChanges, caller: Caller) -> FileAttributes:
        """Change attributes; a change of size truncates."""
        node, now = self._node(ino), self._clock.now_ns()
        if changes.size is not None:
            self._resize(node, changes.size)
            node.mtime_ns = now
        if changes.mode is not None:
            node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(changes.mode)
        node.uid = node.uid if changes.uid is None else changes.uid
        node.gid = node.gid if changes.gid is None else changes.gid
        node.atime_ns = node.atime_ns if changes.atime_ns is None else changes.atime_ns
        node.mtime_ns = node.mtime_ns if changes.mtime_ns is None else changes.mtime_ns
        node.ctime_ns = now if changes.ctime_ns is None else changes.ctime_ns
        return shown(node)

    def readlink(self, ino: Ino) -> bytes:
        """Return a symlink's target."""
        node = self._node(ino)
        if not stat.S_ISLNK(node.mode):
            raise refused.Invalid("Only a symlink has a target.")
        return node.target

    # --- changes of the namespace

    def mkdir(self, parent: Ino, name: bytes, mode: int, caller: Caller) -> Found:
        """Make a directory."""
        directory = self._writable(parent, name, new=True)
        inherited = directory.mode & stat.S_ISGID
        node = self._make(directory, name, stat.S_IFDIR | stat.S_IMODE(mode) | inherited, caller)
        node.nlink = 2
        return self._found(node)

    def symlink(self, parent: Ino, name: bytes, target: bytes, caller: Caller) -> Found:
        """Make a symlink."""
        if len(target) > 4095:
            raise refused.NameTooLong("A symlink's target has at most 4,095 bytes.")
        node = self._make(self._writable(parent, name, new=True), name, stat.S_IFLNK | 0o777, caller)
        node.target, node.size = target, len(target)
        return self._found(node)

    def mknod(self, parent: Ino, name: bytes, mode: int, rdev: int, caller: Caller) -> Found:
        """Make a regular or special file."""
        node = self._make(self._writable(parent, name, new=True), name, mode, caller)
        node.rdev = rdev
        return self._found(node)

    def link(self, ino: Ino, parent: Ino, name: bytes) -> Found:
        """Give an inode another name."""
        node = self._node(ino)
        if stat.S_ISDIR(node.mode):
            raise refused.NotPermitted("A directory has one name only.")
        if not node.nlink:
            raise refused.NotFound("What has no name any more gets no other.")
        directory = self._writable(parent, name, new=True)
        node.nlink += 1
        node.ctime_ns = self._clock.now_ns()
        self._enter(directory, name, node)
        return self._found(node)

    def unlink(self, parent: Ino, name: bytes) -> None:
        """Take a name away."""
        directory = self._writable(parent, name)
        node = self._child(directory, name)
        if stat.S_ISDIR(node.mode):
            raise refused.IsADirectory("A directory is removed by rmdir.")
        self._leave(directory, name)
        self._unnamed(node)

    def rmdir(self, parent: Ino, name: bytes) -> None:
        """Remove an empty directory."""
        directory = self._writable(parent, name)
        node = self._child(directory, name)
        if not stat.S_ISDIR(node.mode):
            raise refused.NotADirectory("Only a directory is removed by rmdir.")
        if node.names:
            raise refused.NotEmpty("The directory still has names in it.")
        self._leave(directory, name)
        self._unnamed(node)

    def rename(self, parent: Ino, name: bytes, new_parent: Ino, new_name: bytes, flags: int) -> None:
        """Move a name; flags as in renameat2."""
        if flags & ~(RENAME_EXCHANGE | RENAME_NOREPLACE) or flags == RENAME_EXCHANGE | RENAME_NOREPLACE:
            raise refused.Invalid("Of the flags of renameat2 there are NOREPLACE and EXCHANGE, one at a time.")
        source, target = self._writable(parent, name), self._writable(new_parent, new_name)
        node = self._child(source, name)
        there = target.names.get(new_name)
        replaced = None if there is None else self._nodes[there[0]]
        self._check_not_below(node, new_parent)
        if flags == RENAME_EXCHANGE:
            if replaced is None:
                raise refused.NotFound("There is nothing to exchange with.")
            self._check_not_below(replaced, parent)
            self._leave(source, name)
            self._leave(target, new_name)
            self._enter(source, name, replaced)
            replaced.ctime_ns = self._clock.now_ns()
        elif replaced is node:
            return
        elif replaced is not None:
            if flags == RENAME_NOREPLACE:
                raise refused.Exists("The new name is taken.")
            check_replaceable(node, replaced)
            self._leave(source, name)
            self._leave(target, new_name)
            self._unnamed(replaced)
        else:
            self._leave(source, name)
        self._enter(target, new_name, node)
        node.ctime_ns = self._clock.now_ns()

    # --- files

    async def create(self, parent: Ino, name: bytes, mode: int, flags: int, caller: Caller) -> tuple[Handle, Found]:
        """Make a regular file and open it; one that exists is opened, unless O_EXCL."""
        return self.create_nowait(parent, name, mode, flags, caller)

    def create_nowait(self, parent: Ino, name: bytes, mode: int, flags: int, caller: Caller) -> tuple[Handle, Found]:
        """Make a regular file and open it; one that exists is opened, unless O_EXCL."""
        there = self._directory(parent).names.get(checked_name(name))
        if there is not None and not flags & os.O_EXCL:
            node = self._nodes[there[0]]
            return self.open_nowait(node.ino, flags, caller), self._found(node)
        directory = self._writable(parent, name, new=True)
        node = self._make(directory, name, stat.S_IFREG | stat.S_IMODE(mode), caller)
        return self._open(node), self._found(node)

    async def open(self, ino: Ino, flags: int, caller: Caller) -> Handle:
        """Open a file; O_TRUNC truncates."""
        return self.open_nowait(ino, flags, caller)

    def open_nowait(self, ino: Ino, flags: int, caller: Caller) -> Handle:
        """Open a file; O_TRUNC truncates."""
        node = self._node(ino)
        if stat.S_ISDIR(node.mode):
            raise refused.IsADirectory("A directory is opened for listing only.")
        if flags & os.O_TRUNC:
            self._resize(node, 0)
            node.mtime_ns = node.ctime_ns = self._clock.now_ns()
        return self._open(node)

    def read_nowait(self, handle: Handle, offset: int, length: int) -> bytes | None:
        """Read."""
        node = self._opened(handle)
        wanted = max(0, min(length, node.size - offset))
        # A copy: a view would forbid the array to grow.
        return bytes(node.content[offset : offset + wanted]).ljust(wanted, b"\0")

    async def read(self, handle: Handle, offset: int, length: int) -> bytes:
        """Read."""
        content = self.read_nowait(handle, offset, length)
        assert content is not None
        return content

    def write_nowait(self, handle: Handle, offset: int, data: Buffer) -> int | None:
        """Write.  Times stay: the kernel sends them."""
        node = self._opened(handle)
        end = offset + len(data)
        if end > len(node.content):
            self._grow(node, end)
        node.content[offset:end] = data
        node.size = max(node.size, end)
        return len(data)

    async def write(self, handle: Handle, offset: int, data: Buffer) -> int:
        """Write."""
        written = self.write_nowait(handle, offset, data)
        assert written is not None
        return written

    async def fsync(self, handle: Handle, data_only: bool) -> None:
        """Nothing lasts longer than the process."""
        self._opened(handle)

    def written(self, ino: Ino) -> None:
        """Let the times be now."""
        node = self._node(ino)
        node.mtime_ns = node.ctime_ns = self._clock.now_ns()

    async def allocate(self, handle: Handle, mode: int, offset: int, length: int) -> None:
        """Reserve room, or let a range be zeros."""
        node, end = self._opened(handle), offset + length
        if mode & ~(_KEEP_SIZE | _PUNCH_HOLE) or mode == _KEEP_SIZE:
            raise refused.Unsupported("Of the modes of fallocate there are 0 and PUNCH_HOLE.")
        if mode & _PUNCH_HOLE:
            last = min(end, len(node.content))
            node.content[offset:last] = bytes(max(0, last - offset))
            return
        if end > len(node.content):
            self._grow(node, end)
        node.size = max(node.size, end)

    def clone_nowait(self, source: Handle, target: Handle, length: int) -> int | None:
        """Nothing is sealed here."""
        return None

    async def seek(self, handle: Handle, offset: int, whence: int) -> int:
        """All is data."""
        node = self._opened(handle)
        if offset >= node.size:
            raise refused.NoMoreData("The file ends before that offset.")
        return offset if whence == os.SEEK_DATA else node.size

    def begin_direct(self, handle: Handle) -> int | None:
        """Nothing is a file of the disk's."""
        return None

    def end_direct(self, ino: Ino) -> None:
        """Nothing ever began."""

    def release(self, handle: Handle) -> None:
        """Close a file."""
        node = self._opened(handle)
        del self._handles[handle]
        node.opened -= 1
        self._purge_if_gone(node)

    # --- directories

    def readdir(self, ino: Ino, cookie: int) -> Iterator[DirectoryEntry]:
        """List what comes after `cookie`."""
        directory = self._directory(ino)
        for here in list(directory.by_cookie.irange(cookie, inclusive=(False, True))):
            name = directory.by_cookie[here]
            yield DirectoryEntry(name, self._found(self._nodes[directory.names[name][0]]), here)

    async def fsyncdir(self, ino: Ino) -> None:
        """Nothing lasts longer than the process."""
        self._directory(ino)

    async def make_room_for_names(self) -> bool:
        """There is nothing that could give way."""
        return False

    def statfs(self) -> FilesystemStatistics:
        """Return capacity and use."""
        free_bytes = self._capacity_bytes - self._used_bytes
        return FilesystemStatistics(self._capacity_bytes, free_bytes, len(self._nodes), 1_000_000)

    # --- extended attributes

    def getxattr(self, ino: Ino, name: bytes) -> bytes:
        """Return an extended attribute."""
        value = self._node(ino).xattrs.get(name)
        if value is None:
            raise refused.NoAttribute("There is no such extended attribute.")
        return value

    def setxattr(self, ino: Ino, name: bytes, value: bytes) -> None:
        """Set an extended attribute."""
        node = self._node(ino)
        node.xattrs[name] = value
        node.ctime_ns = self._clock.now_ns()

    def listxattr(self, ino: Ino) -> list[bytes]:
        """Name the extended attributes."""
        return list(self._node(ino).xattrs)

    def removexattr(self, ino: Ino, name: bytes) -> None:
        """Remove an extended attribute."""
        node = self._node(ino)
        if node.xattrs.pop(name, None) is None:
            raise refused.NoAttribute("There is no such extended attribute.")
        node.ctime_ns = self._clock.now_ns()

    def forgotten(self, ino: Ino) -> None:
        """The kernel has no reference any more."""
        node = self._nodes.get(ino)
        if node is not None:
            self._purge_if_gone(node)

    def resolve(self, path: bytes, start: Ino = ROOT) -> Ino:
        """Find a path below `start`, without following symlinks."""
        ino = start
        for name in path.split(b"/"):
            if name:
                ino = self._child(self._directory(ino), name).ino
        return ino

    def inodes(self) -> int:
        """How many inodes there are, those without a name included."""
        return len(self._nodes)

    # --- below

    def _node(self, ino: Ino) -> MemoryNode:
        node = self._nodes.get(ino)
        if node is None:
            raise refused.NotFound(f"There is no inode {ino}.")
        return node

    def _directory(self, ino: Ino) -> MemoryNode:
        node = self._node(ino)
        if not stat.S_ISDIR(node.mode):
            raise refused.NotADirectory(f"Inode {ino} is no directory.")
        return node

    def _child(self, directory: MemoryNode, name: bytes) -> MemoryNode:
        entry = directory.names.get(checked_name(name))
        if entry is None:
            raise refused.NotFound("There is no such name.")
        return self._nodes[entry[0]]

    def _writable(self, parent: Ino, name: bytes, *, new: bool = False) -> MemoryNode:
        directory = self._directory(parent)
        if parent == ROOT or parent in (KEYS, RUNS, SNAPSHOTS, CAS):
            raise refused.ReadOnly
        if not directory.nlink:
            raise refused.NotFound("The directory has been removed.")
        if checked_name(name) in directory.names and new:
            raise refused.Exists("The name is taken.")
        return directory

    def _make(self, directory: MemoryNode, name: bytes, mode: int, caller: Caller) -> MemoryNode:
        node = self._add_node(self._next_ino, mode, caller)
        self._next_ino = Ino(self._next_ino + 1)
        if directory.mode & stat.S_ISGID:
            node.gid = directory.gid
        self._enter(directory, name, node)
        return node

    def _add_node(self, ino: Ino, mode: int, caller: Caller) -> MemoryNode:
        now = self._clock.now_ns()
        node = MemoryNode(ino, mode, caller.uid, caller.gid, atime_ns=now, mtime_ns=now, ctime_ns=now)
        self._nodes[ino] = node
        return node

    def _enter(self, directory: MemoryNode, name: bytes, node: MemoryNode) -> None:
        directory.names[name] = (node.ino, self._next_cookie)
        directory.by_cookie[self._next_cookie] = name
        self._next_cookie += 1
        directory.nlink += stat.S_ISDIR(node.mode)
        directory.mtime_ns = directory.ctime_ns = self._clock.now_ns()

    def _leave(self, directory: MemoryNode, name: bytes) -> None:
        ino, cookie = directory.names.pop(name)
        del directory.by_cookie[cookie]
        directory.nlink -= stat.S_ISDIR(self._nodes[ino].mode)
        directory.mtime_ns = directory.ctime_ns = self._clock.now_ns()

    def _unnamed(self, node: MemoryNode) -> None:
        node.nlink = 0 if stat.S_ISDIR(node.mode) else node.nlink - 1
        node.ctime_ns = self._clock.now_ns()
        self._purge_if_gone(node)

    def _purge_if_gone(self, node: MemoryNode) -> None:
        if not node.nlink and not node.opened and not self._lookups.holds(node.ino):
            self._used_bytes -= len(node.content)
            del self._nodes[node.ino]

    def _check_not_below(self, node: MemoryNode, directory: Ino) -> None:
        if stat.S_ISDIR(node.mode) and any(inner == directory for inner in self._below(node)):
            raise refused.Invalid("A directory cannot be moved into itself.")

    def _below(self, node: MemoryNode) -> Iterator[Ino]:
        yield node.ino
        for ino, _ in node.names.values():
            yield from self._below(self._nodes[ino])

    def _open(self, node: MemoryNode) -> Handle:
        handle = Handle(self._next_handle)
        self._next_handle += 1
        self._handles[handle] = node.ino
        node.opened += 1
        return handle

    def _opened(self, handle: Handle) -> MemoryNode:
        ino = self._handles.get(handle)
        if ino is None:
            raise refused.BadHandle(handle)
        return self._nodes[ino]

    def _resize(self, node: MemoryNode, size: int) -> None:
        if not stat.S_ISREG(node.mode):
            raise refused.Invalid("Only a regular file has a size to change.")
        if size > 8 << 40:
            raise refused.TooBig("A file has at most 8 TiB.")
        if size < len(node.content):
            self._used_bytes -= len(node.content) - size
            del node.content[size:]
        node.size = size

    def _grow(self, node: MemoryNode, end: int) -> None:
        added = end - len(node.content)
        if self._used_bytes + added > self._capacity_bytes:
            raise refused.NoSpace
        self._used_bytes += added
        node.content.extend(bytes(added))

    def _found(self, node: MemoryNode) -> Found:
        return Found(shown(node))
