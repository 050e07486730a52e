"""Open files: reading, writing, truncating and syncing, whether the bytes are sealed or staged."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection

from tvfs import failpoints
from tvfs.catalog.catalog import Catalog
from tvfs.content.reader import ContentReader, ReadHint
from tvfs.content.reference import Content
from tvfs.filesystem.change import Change
from tvfs.filesystem.inode import NO_HASH, STAGED, ContentState, Inode, changed
from tvfs.filesystem.model import AttributeChanges, FileAttributes, Handle
from tvfs.filesystem.nodes import Nodes
from tvfs.filesystem.posix_error import BadHandle, Invalid, IsADirectory, ReadOnly
from tvfs.filesystem.staged_file import StagedFile
from tvfs.filesystem.staging import Staging
from tvfs.plugin_api.buffer import Buffer

_EMPTY = int(ContentState.EMPTY)
_PERMISSIONS = 0o7777


class OpenFile:
    """One handle.  The inode is looked up at each read, because its content is replaced when it is sealed."""

    __slots__ = ("content", "hint", "ino", "inode", "writes")

    def __init__(self, ino: int, inode: Inode, *, writes: bool) -> None:
        self.ino = ino
        self.inode = inode
        self.content: Content | None = None
        """Of `inode`, if that is sealed."""
        self.hint = ReadHint()
        self.writes = writes


class Files:
    """Knows which files are open, and by how many writers."""

    def __init__(
        self,
        catalog: Catalog,
        nodes: Nodes,
        staging: Staging,
        reader: ContentReader,
        *,
        start_change: Callable[[], Change],
        closed: Callable[[int], None],
    ) -> None:
        """`closed` is told each time a file was closed or truncated and nobody has it open for writing."""
        self._catalog = catalog
        self._nodes = nodes
        self._staging = staging
        self._reader = reader
        self._start_change = start_change
        self._closed = closed
        self._handles: dict[int, OpenFile] = {}
        self._opened: dict[int, int] = {}
        self._writers: dict[int, int] = {}
        self._next_handle = 1

    def is_open(self, ino: int) -> bool:
        """Whether anybody has the inode open."""
        return ino in self._opened

    def open_inodes(self) -> list[int]:
        """Return the inodes that somebody has open."""
        return list(self._opened)

    def writers(self) -> Collection[int]:
        """Return the inodes that somebody has open for writing."""
        return self._writers.keys()

    def has_writer(self, ino: int) -> bool:
        """Whether somebody has the inode open for writing: it may have bytes that were not sent to us yet."""
        return ino in self._writers

    def next_handle(self) -> Handle:
        """Return a handle that was never used."""
        handle = Handle(self._next_handle)
        self._next_handle += 1
        return handle

    async def open(self, ino: int, flags: int) -> Handle:
        """Open a file; with O_TRUNC it is emptied."""
        inode = self._nodes.get(ino)
        if inode.is_directory:
            raise IsADirectory("A directory is opened with opendir.")
        writes = flags & os.O_ACCMODE != os.O_RDONLY
        if (writes or flags & os.O_TRUNC) and inode.read_only:
            raise ReadOnly("The file")
        # Counted before it waits for the truncation, so that the file is neither purged nor sealed meanwhile.
        handle = self.add(ino, inode, writes=writes)
        try:
            if flags & os.O_TRUNC:
                await self.truncate(ino, 0)
        except BaseException:
            self.release(handle)
            raise
        return handle

    def add(self, ino: int, inode: Inode, *, writes: bool) -> Handle:
        """Return a handle to a file."""
        handle = self.next_handle()
        self._handles[handle] = OpenFile(ino, inode, writes=writes)
        self._opened[ino] = self._opened.get(ino, 0) + 1
        if writes:
            self._writers[ino] = self._writers.get(ino, 0) + 1
        return handle

    def release(self, handle: Handle) -> int:
        """Close a handle and return the inode."""
        opened = self._handles.pop(handle, None)
        if opened is None:
            raise BadHandle(handle)
        ino = opened.ino
        _count_down(self._opened, ino)
        if opened.writes and not _count_down(self._writers, ino):
            self._closed(ino)
        return ino

    def ino_of(self, handle: Handle) -> int:
        """Return the inode that a handle is open on; raise `BadHandle`."""
        return self._opened_by(handle).ino

    def read_nowait(self, handle: Handle, offset: int, length: int) -> Buffer | None:
        """Read at once, or return None."""
        opened = self._handles.get(handle) or self._opened_by(handle)
        inode = self._nodes.get(opened.ino)
        if inode.state == STAGED:
            return self._staging.read_nowait(self._staging.files[opened.ino], offset, length)
        length = min(length, inode.size - offset)
        if length <= 0:
            return b""
        return self._reader.read_nowait(_sealed(opened, inode), offset, length, opened.hint)

    async def read(self, handle: Handle, offset: int, length: int) -> Buffer:
        """Read; less than asked for only at the end of the file."""
        opened = self._opened_by(handle)
        while True:
            inode = self._nodes.get(opened.ino)
            if inode.state != STAGED:
                length = min(length, inode.size - offset)
                if length <= 0:
                    return b""
                return await self._reader.read(_sealed(opened, inode), offset, length, opened.hint)
            found = await self._staging.read(self._staging.files[opened.ino], offset, length)
            if found is not None:
                return found

    def write_nowait(self, handle: Handle, offset: int, data: Buffer) -> int | None:
        """Write at once, or return None."""
        if not len(data):
            return 0
        file = self._staged(self._opened_by(handle).ino)
        return self._staging.write_nowait(file, offset, data)

    async def write(self, handle: Handle, offset: int, data: Buffer) -> int:
        """Write all of it."""
        ino = self._opened_by(handle).ino
        while True:
            written = await self._staging.write(self._staged(ino), offset, data)
            if written is not None:
                return written

    async def truncate(self, ino: int, size: int) -> None:
        """Set the size of a file; its times change too."""
        self._staging.check_size(size)
        while True:
            inode = self._nodes.get(ino)
            if not inode.is_regular:
                raise Invalid("Only a file has a size that can be set.")
            if inode.state != STAGED:
                self._truncate_sealed(ino, inode, size)
                break
            file = self._staging.files[ino]
            async with file.inode_lock():
                if self._staging.files.get(ino) is not file:
                    continue
                self._truncate_staged(ino, file, size)
                break
        if not self.has_writer(ino):
            self._closed(ino)

    async def setattr(self, ino: int, changes: AttributeChanges) -> FileAttributes:
        """Change what is named, and the change time."""
        inode = self._nodes.get(ino)
        if inode.read_only:
            raise ReadOnly("It")
        if inode.is_directory and changes.size is not None:
            raise IsADirectory("A directory has no size that can be set.")
        if changes.size is not None:
            await self.truncate(ino, changes.size)
        change = self._start_change()
        inode = change.inode(ino)
        inode = changed(
            inode,
            mode=inode.mode if changes.mode is None else inode.mode & ~_PERMISSIONS | changes.mode & _PERMISSIONS,
            uid=inode.uid if changes.uid is None else changes.uid,
            gid=inode.gid if changes.gid is None else changes.gid,
            atime_ns=inode.atime_ns if changes.atime_ns is None else changes.atime_ns,
            mtime_ns=inode.mtime_ns if changes.mtime_ns is None else changes.mtime_ns,
            ctime_ns=change.now_ns if changes.ctime_ns is None else changes.ctime_ns,
        )
        change.put(ino, inode)
        change.commit()
        return self._nodes.attributes(ino, inode)

    async def sync(self, ino: int) -> None:
        """Return when everything of the file, and every name made before, survives a power loss."""
        if self._nodes.get(ino).state == STAGED:
            await self._staging.sync(self._staging.files[ino])
        await self._catalog.flush()
        failpoints.reach("fsync.after_wal")

    def _truncate_sealed(self, ino: int, inode: Inode, size: int) -> None:
        change = self._start_change()
        if size == 0:
            change.put(ino, changed(inode, state=_EMPTY, size=0, hash=NO_HASH))
        elif size != inode.size:
            self._staging.stage(change, ino, size)
        self._touch(change, ino)
        change.commit()

    def _truncate_staged(self, ino: int, file: StagedFile, size: int) -> None:
        change = self._start_change()
        if size == 0:
            change.put(ino, changed(change.inode(ino), state=_EMPTY, size=0, hash=NO_HASH))
            self._staging.unstage(change, ino)
        else:
            self._staging.truncate(file, size)
        self._touch(change, ino)
        change.commit()

    def _touch(self, change: Change, ino: int) -> None:
        change.put(ino, changed(change.inode(ino), mtime_ns=change.now_ns, ctime_ns=change.now_ns))

    def _staged(self, ino: int) -> StagedFile:
        inode = self._nodes.get(ino)
        if inode.state != STAGED:
            change = self._start_change()
            self._staging.stage(change, ino, inode.size)
            change.commit()
        return self._staging.files[ino]

    def _opened_by(self, handle: Handle) -> OpenFile:
        opened = self._handles.get(handle)
        if opened is None:
            raise BadHandle(handle)
        return opened


def _sealed(opened: OpenFile, inode: Inode) -> Content:
    if opened.content is None or opened.inode is not inode:
        opened.inode = inode
        opened.content = inode.content
    return opened.content


def _count_down(counts: dict[int, int], ino: int) -> bool:
    """Return whether any are left."""
    count = counts[ino] - 1
    if count:
        counts[ino] = count
        return True
    del counts[ino]
    return False
