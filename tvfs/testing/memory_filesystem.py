"""A filesystem in dictionaries: the model that the real one is compared with, and a mount without a vault."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from sortedcontainers import SortedDict

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

_FIXED = {b"work": WORK, b"keys": KEYS, b"runs": RUNS, b"snapshots": SNAPSHOTS, b"cas": CAS}
_NAME_BYTES_MAX = 255


@dataclass(slots=True)
class _Node:
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


class MemoryFilesystem:
    """Keeps every promise of the filesystem that the mount relies on, except that it ends with the process."""

    def __init__(self, *, clock: Clock, lookups: LookupCounts, capacity_bytes: int = 1 << 30) -> None:
        """No sum of contents passes `capacity_bytes`."""
        self._clock = clock
        self._lookups = lookups
        self._capacity_bytes = capacity_bytes
        self._used_bytes = 0
        self._nodes: dict[Ino, _Node] = {}
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
        entry = self._directory(parent).names.get(_checked(name))
        return Absent() if entry is None else self._found(self._nodes[entry[0]])

    def getattr(self, ino: Ino) -> FileAttributes:
        """Return what stat shows."""
        return _attributes(self._node(ino))

    def attribute_timeout_s(self, ino: Ino) -> float:
        """How long the kernel may believe the attributes."""
        return LONG_TIMEOUT_S

    async def setattr(self, ino: Ino, changes: AttributeChanges, caller: Caller) -> FileAttributes:
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
        return _attributes(node)

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
            _check_replaceable(node, replaced)
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
        there = self._directory(parent).names.get(_checked(name))
        if there is not None and not flags & os.O_EXCL:
            node = self._nodes[there[0]]
            return await self.open(node.ino, flags, caller), self._found(node)
        directory = self._writable(parent, name, new=True)
        node = self._make(directory, name, stat.S_IFREG | stat.S_IMODE(mode), caller)
        return self._open(node), self._found(node)

    async def open(self, ino: Ino, flags: int, caller: Caller) -> Handle:
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

    def write_nowait(self, handle: Handle, offset: int, data: bytes) -> int | None:
        """Write.  Times stay: the kernel sends them."""
        node = self._opened(handle)
        end = offset + len(data)
        if end > len(node.content):
            self._grow(node, end)
        node.content[offset:end] = data
        node.size = max(node.size, end)
        return len(data)

    async def write(self, handle: Handle, offset: int, data: bytes) -> int:
        """Write."""
        written = self.write_nowait(handle, offset, data)
        assert written is not None
        return written

    async def fsync(self, handle: Handle, data_only: bool) -> None:
        """Nothing lasts longer than the process."""
        self._opened(handle)

    def release(self, handle: Handle) -> None:
        """Close a file."""
        node = self._opened(handle)
        del self._handles[handle]
        node.opened -= 1
        self._purge_if_gone(node)

    # --- directories

    def opendir(self, ino: Ino) -> Handle:
        """Open a directory."""
        return self._open(self._directory(ino))

    def readdir(self, handle: Handle, cookie: int) -> Iterator[DirectoryEntry]:
        """List what comes after `cookie`."""
        directory = self._opened(handle)
        for here in list(directory.by_cookie.irange(cookie, inclusive=(False, True))):
            name = directory.by_cookie[here]
            yield DirectoryEntry(name, self._found(self._nodes[directory.names[name][0]]), here)

    def releasedir(self, handle: Handle) -> None:
        """Close a directory."""
        self.release(handle)

    async def fsyncdir(self, ino: Ino) -> None:
        """Nothing lasts longer than the process."""
        self._directory(ino)

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

    def _node(self, ino: Ino) -> _Node:
        node = self._nodes.get(ino)
        if node is None:
            raise refused.NotFound(f"There is no inode {ino}.")
        return node

    def _directory(self, ino: Ino) -> _Node:
        node = self._node(ino)
        if not stat.S_ISDIR(node.mode):
            raise refused.NotADirectory(f"Inode {ino} is no directory.")
        return node

    def _child(self, directory: _Node, name: bytes) -> _Node:
        entry = directory.names.get(_checked(name))
        if entry is None:
            raise refused.NotFound("There is no such name.")
        return self._nodes[entry[0]]

    def _writable(self, parent: Ino, name: bytes, *, new: bool = False) -> _Node:
        directory = self._directory(parent)
        if parent == ROOT or parent in (KEYS, RUNS, SNAPSHOTS, CAS):
            raise refused.ReadOnly
        if not directory.nlink:
            raise refused.NotFound("The directory has been removed.")
        if _checked(name) in directory.names and new:
            raise refused.Exists("The name is taken.")
        return directory

    def _make(self, directory: _Node, name: bytes, mode: int, caller: Caller) -> _Node:
        node = self._add_node(self._next_ino, mode, caller)
        self._next_ino = Ino(self._next_ino + 1)
        if directory.mode & stat.S_ISGID:
            node.gid = directory.gid
        self._enter(directory, name, node)
        return node

    def _add_node(self, ino: Ino, mode: int, caller: Caller) -> _Node:
        now = self._clock.now_ns()
        node = _Node(ino, mode, caller.uid, caller.gid, atime_ns=now, mtime_ns=now, ctime_ns=now)
        self._nodes[ino] = node
        return node

    def _enter(self, directory: _Node, name: bytes, node: _Node) -> None:
        directory.names[name] = (node.ino, self._next_cookie)
        directory.by_cookie[self._next_cookie] = name
        self._next_cookie += 1
        directory.nlink += stat.S_ISDIR(node.mode)
        directory.mtime_ns = directory.ctime_ns = self._clock.now_ns()

    def _leave(self, directory: _Node, name: bytes) -> None:
        ino, cookie = directory.names.pop(name)
        del directory.by_cookie[cookie]
        directory.nlink -= stat.S_ISDIR(self._nodes[ino].mode)
        directory.mtime_ns = directory.ctime_ns = self._clock.now_ns()

    def _unnamed(self, node: _Node) -> None:
        node.nlink = 0 if stat.S_ISDIR(node.mode) else node.nlink - 1
        node.ctime_ns = self._clock.now_ns()
        self._purge_if_gone(node)

    def _purge_if_gone(self, node: _Node) -> None:
        if not node.nlink and not node.opened and not self._lookups.holds(node.ino):
            self._used_bytes -= len(node.content)
            del self._nodes[node.ino]

    def _check_not_below(self, node: _Node, directory: Ino) -> None:
        if stat.S_ISDIR(node.mode) and any(inner == directory for inner in self._below(node)):
            raise refused.Invalid("A directory cannot be moved into itself.")

    def _below(self, node: _Node) -> Iterator[Ino]:
        yield node.ino
        for ino, _ in node.names.values():
            yield from self._below(self._nodes[ino])

    def _open(self, node: _Node) -> Handle:
        handle = Handle(self._next_handle)
        self._next_handle += 1
        self._handles[handle] = node.ino
        node.opened += 1
        return handle

    def _opened(self, handle: Handle) -> _Node:
        ino = self._handles.get(handle)
        if ino is None:
            raise refused.BadHandle(handle)
        return self._nodes[ino]

    def _resize(self, node: _Node, size: int) -> None:
        if not stat.S_ISREG(node.mode):
            raise refused.Invalid("Only a regular file has a size to change.")
        if size > 8 << 40:
            raise refused.TooBig("A file has at most 8 TiB.")
        if size < len(node.content):
            self._used_bytes -= len(node.content) - size
            del node.content[size:]
        node.size = size

    def _grow(self, node: _Node, end: int) -> None:
        added = end - len(node.content)
        if self._used_bytes + added > self._capacity_bytes:
            raise refused.NoSpace
        self._used_bytes += added
        node.content.extend(bytes(added))

    def _found(self, node: _Node) -> Found:
        return Found(_attributes(node))


def _attributes(node: _Node) -> FileAttributes:
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


def _checked(name: bytes) -> bytes:
    if len(name) > _NAME_BYTES_MAX:
        raise refused.NameTooLong("A name has at most 255 bytes.")
    return name


def _check_replaceable(node: _Node, replaced: _Node) -> None:
    if stat.S_ISDIR(node.mode) and not stat.S_ISDIR(replaced.mode):
        raise refused.NotADirectory("A directory replaces only a directory.")
    if stat.S_ISDIR(replaced.mode) and not stat.S_ISDIR(node.mode):
        raise refused.IsADirectory("Only a directory replaces a directory.")
    if replaced.names:
        raise refused.NotEmpty("The directory to replace still has names in it.")
