"""Open files: reading, writing, truncating and syncing, whether the bytes are sealed or staged."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection

import trio

from tvfs import failpoints
from tvfs.catalog.catalog import Catalog
from tvfs.content.reader import ContentReader, ReadHint
from tvfs.content.reference import Content
from tvfs.digest import HOLE
from tvfs.filesystem.change import Change
from tvfs.filesystem.files_ahead import LEAST_BYTES, FilesAhead
from tvfs.filesystem.hot_files import HotFiles, is_unused
from tvfs.filesystem.inode import NO_HASH, STAGED, ContentState, Inode, changed
from tvfs.filesystem.model import AttributeChanges, FileAttributes, Handle
from tvfs.filesystem.nodes import Nodes
from tvfs.filesystem.posix_error import (
    BadHandle,
    Invalid,
    IsADirectory,
    NoMoreData,
    NotOpenAnyMore,
    PosixError,
    ReadOnly,
    Stale,
)
from tvfs.filesystem.staged_file import StagedFile
from tvfs.filesystem.staging import Staging
from tvfs.filesystem.written import Written
from tvfs.plugin_api.buffer import Buffer

_EMPTY = int(ContentState.EMPTY)
_PERMISSIONS = 0o7777
_SEEK_STEP_BYTES = 8 << 20
"""How much of a file is looked through for holes between two looks at other work."""


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
        self._ahead = FilesAhead(nodes, reader)
        self._start_change = start_change
        self._closed = closed
        self._handles: dict[int, OpenFile] = {}
        self._opened: dict[int, int] = {}
        self._writers: dict[int, int] = {}
        self.written = Written()
        self.hot: HotFiles | None = None
        """Copies that the kernel reads past us; set once."""
        self.opened: Callable[[int], None] = _nobody
        """Told before a file is opened; may refuse."""
        self._taken_over: set[int] = set()
        """Inodes whose staging file was such a copy and may still be read, or mapped and written, past us."""
        self._next_handle = 1
        self._stale: set[int] = set()
        """Handles that another daemon opened, on what is no more."""

    def waits_for_readers(self, ino: int, flags: int) -> bool:
        """Whether an open with these flags has to wait, because somebody reads, or may map, the file past us."""
        past_us = ino in self._taken_over or (self.hot is not None and self.hot.is_used(ino))
        return past_us and flags & os.O_ACCMODE != os.O_RDONLY

    def is_open(self, ino: int) -> bool:
        """Whether anybody has the inode open."""
        return ino in self._opened

    def handles(self) -> int:
        """How many handles are open."""
        return len(self._handles)

    def inode_of(self, handle: int) -> int | None:
        """Return what a handle is of; None if there is no such handle."""
        opened = self._handles.get(handle)
        return None if opened is None else opened.ino

    def open_inodes(self) -> list[int]:
        """Return the inodes that somebody has open."""
        return list(self._opened)

    def writers(self) -> Collection[int]:
        """Return the inodes that somebody has open for writing."""
        return self._writers.keys() | self._taken_over

    def has_writer(self, ino: int) -> bool:
        """Whether somebody has the inode open for writing: it may have bytes that were not sent to us yet."""
        return ino in self._writers or ino in self._taken_over

    def reopen(self, handle: int, ino: int, *, writes: bool) -> None:
        """Let a handle be open that another daemon opened; what is no more is stale from the start."""
        inode = self._nodes.find(ino)
        if inode is None:
            self._stale.add(handle)
        else:
            self._add(handle, ino, inode, writes=writes)

    def find_read_past_us(self) -> None:
        """Ask the disk which staging files are read or mapped past us: they are copies that were taken over."""
        if self.hot is None or not self.hot.tells_use:
            # Nothing was ever read past us, and a file that seems to be would never be sealed.
            return
        self._taken_over |= {
            ino for ino, file in self._staging.files.items() if not (file.in_row or is_unused(file.path))
        }

    def used_up_to(self, handle: int) -> None:
        """Never return this handle, nor one before it."""
        self._next_handle = max(self._next_handle, handle + 1)

    def _new_handle(self) -> Handle:
        """Return a handle that was never used."""
        handle = Handle(self._next_handle)
        self._next_handle += 1
        return handle

    async def open(self, ino: int, flags: int) -> Handle:
        """Open a file; with O_TRUNC it is emptied."""
        # Counted before it waits for the truncation, so that the file is neither purged nor sealed meanwhile.
        handle = self.open_nowait(ino, flags)
        try:
            if flags & os.O_TRUNC:
                await self.truncate(ino, 0)
            if ino in self._taken_over:
                # An msync of a mapping that is past us reaches the disk's file, and nothing of ours that leads to it.
                await self.sync(ino)
        except BaseException:
            self.release(handle)
            raise
        return handle

    def open_nowait(self, ino: int, flags: int) -> Handle:
        """Open a file and leave O_TRUNC to the caller."""
        self.opened(ino)
        inode = self._nodes.find(ino)
        if inode is None:
            # The kernel believes in a name that a daemon removed which did not live to tell.
            raise Stale
        if inode.is_directory:
            raise IsADirectory("A directory is opened with opendir.")
        writes = flags & os.O_ACCMODE != os.O_RDONLY
        if (writes or flags & os.O_TRUNC) and inode.read_only:
            raise ReadOnly("The file")
        if writes:
            self._keep_in_step(ino)
        return self.add(ino, inode, writes=writes)

    def begin_direct(self, handle: Handle) -> int | None:
        """Return a descriptor of an ordinary file that has the file's content and will have it until `end_direct`.

        None if there is none.  The caller closes the descriptor.
        """
        opened = self._opened_by(handle)
        inode, hot = self._nodes.get(opened.ino), self.hot
        if hot is None or not inode.is_regular:
            return None
        if opened.ino in self._taken_over:
            descriptor = os.open(self._staging.files[opened.ino].path, os.O_RDWR | os.O_CLOEXEC)
            hot.hold(opened.ino)
            return descriptor
        if inode.state in (STAGED, _EMPTY) or self.has_writer(opened.ino):
            return None
        return hot.begin(opened.ino, inode.content)

    def end_direct(self, ino: int) -> None:
        """The kernel has closed what it read past us."""
        if self.hot is not None:
            self.hot.end(ino)

    def settle(self) -> None:
        """Let files that were read past us be sealed again when nobody can do so any more."""
        for ino in list(self._taken_over):
            file = self._staging.files.get(ino)
            if file is not None:
                if self.hot is None or self.hot.is_direct(ino):
                    continue
                self._staging.descriptors.close(file.path)
                if not is_unused(file.path):
                    continue
                # A mapping may have written without our knowing.
                file.writes += 1
                self._touch_as(ino, os.stat(file.path).st_mtime_ns)
            self._taken_over.discard(ino)
            if file is not None and not self.has_writer(ino):
                self._closed(ino)

    def _keep_in_step(self, ino: int) -> None:
        """Before the content changes: let those who read a copy of it past us read what is written from now on."""
        copy = self.hot.take_over(ino) if self.hot is not None else None
        if copy is not None:
            assert self.hot is not None
            change = self._start_change()
            try:
                self._staging.take_over(change, ino, copy.path)
                change.commit()
            except BaseException:
                # A link in staging that no row leads to goes at the next start.
                self.hot.give_back(ino, copy)
                raise
            self._taken_over.add(ino)

    def add(self, ino: int, inode: Inode, *, writes: bool) -> Handle:
        """Return a handle to a file."""
        handle = self._new_handle()
        self._add(handle, ino, inode, writes=writes)
        return handle

    def _add(self, handle: int, ino: int, inode: Inode, *, writes: bool) -> None:
        self._handles[handle] = OpenFile(ino, inode, writes=writes)
        self._opened[ino] = self._opened.get(ino, 0) + 1
        if writes:
            self._writers[ino] = self._writers.get(ino, 0) + 1
            self.written.add(ino)

    def release(self, handle: Handle) -> int:
        """Close a handle and return the inode."""
        opened = self._handles.pop(handle, None)
        if opened is None:
            raise self._not_open(handle)
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
        found = self._reader.read_nowait(_sealed(opened, inode), offset, length, opened.hint)
        if found is not None and inode.size >= LEAST_BYTES:
            self._ahead.note(opened.ino, inode, offset, offset + length)
        return found

    async def read(self, handle: Handle, offset: int, length: int) -> Buffer:
        """Read; less than asked for only at the end of the file."""
        opened = self._opened_by(handle)
        while True:
            inode = self._nodes.get(opened.ino)
            if inode.state != STAGED:
                length = min(length, inode.size - offset)
                if length <= 0:
                    return b""
                if inode.size >= LEAST_BYTES:
                    self._ahead.note(opened.ino, inode, offset, offset + length)
                return await self._reader.read(_sealed(opened, inode), offset, length, opened.hint)
            found = await self._staging.read(self._staging.files[opened.ino], offset, length)
            if found is not None:
                return found

    def write_nowait(self, handle: Handle, offset: int, data: Buffer) -> int | None:
        """Write at once, or return None."""
        if not len(data):
            return 0
        ino = self._opened_by(handle).ino
        if self._nodes.get(ino).state == _EMPTY:
            change = self._start_change()
            if self._staging.stage_in_row(change, ino, offset, data):
                change.commit()
                return len(data)
        return self._staging.write_nowait(self._staged(ino), offset, data)

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
        self._keep_in_step(ino)
        while True:
            inode = self._nodes.get(ino)
            if not inode.is_regular:
                raise Invalid("Only a file has a size that can be set.")
            if inode.state != STAGED:
                self._truncate_sealed(ino, inode, size)
                break
            file = self._staging.files[ino]
            async with file.inode_lock():
                if self._staging.files.get(ino) is not file or not (
                    size == 0 or await self._staging.make_fit(file, size)
                ):
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
        return self.setattr_nowait(ino, changes)

    def setattr_nowait(self, ino: int, changes: AttributeChanges) -> FileAttributes:
        """Change what is named except the size, and the change time."""
        if self._nodes.get(ino).read_only:
            raise ReadOnly("It")
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

    def touch(self, ino: int) -> None:
        """Let content and inode have changed now; a row is written once for each tick of the clock."""
        change = self._start_change()
        if change.inode(ino).mtime_ns != change.now_ns:
            self._touch(change, ino)
            change.commit()

    async def allocate(self, handle: Handle, offset: int, length: int) -> None:
        """Reserve room for a range, so that writing to it will not fail for want of room; the file grows to its end."""
        ino = self._opened_by(handle).ino
        while not await self._staging.allocate(self._staged(ino), offset, offset + length):
            pass
        self.touch(ino)

    async def clear(self, handle: Handle, offset: int, length: int, *, keep_size: bool) -> None:
        """Let a range be zeros that take no room; without `keep_size` the file grows to its end."""
        ino = self._opened_by(handle).ino
        while not await self._staging.clear(self._staged(ino), offset, offset + length):
            pass
        if not keep_size and offset + length > self._nodes.attributes(ino, self._nodes.get(ino)).size:
            await self.truncate(ino, offset + length)
        self.touch(ino)

    def clone(self, source: Handle, target: Handle, length: int) -> int | None:
        """Give an empty file the content of a sealed one: one row, whatever the size.  None where that is not so."""
        given, taker = self._opened_by(source), self._opened_by(target)
        there, here = self._nodes.get(given.ino), self._nodes.get(taker.ino)
        if there.state in (STAGED, _EMPTY) or not there.is_regular or length < there.size or given.ino == taker.ino:
            return None
        if not taker.writes or self._nodes.attributes(taker.ino, here).size:
            return None
        change = self._start_change()
        if here.state == STAGED:
            file = self._staging.files[taker.ino]
            if file.locked or file.busy or taker.ino in self._taken_over:
                return None
            self._staging.unstage(change, taker.ino)
        change.put(taker.ino, change.inode(taker.ino).with_content(there.content))
        self._touch(change, taker.ino)
        change.commit()
        return there.size

    async def seek(self, handle: Handle, offset: int, data: bool) -> int:
        """Return the next offset where data begin, or a hole does; the end of the file counts as a hole."""
        ino = self._opened_by(handle).ino
        inode = self._nodes.get(ino)
        size = self._nodes.attributes(ino, inode).size
        if offset >= size:
            raise NoMoreData("The file ends before that offset.")
        if self.has_writer(ino):
            # Mapped pages may have been written that nobody has sent us yet: all of it may be data.
            return offset if data else size
        if inode.state == STAGED:
            return await self._staging.seek(self._staging.files[ino], offset, data)
        while offset < size:
            for extent in self._reader.extents(inode.content, offset, _SEEK_STEP_BYTES):
                if (extent.chunk_id != HOLE) is data:
                    return max(offset, extent.offset)
            offset += _SEEK_STEP_BYTES
            await trio.lowlevel.checkpoint()
        if data:
            raise NoMoreData("There is only a hole after that offset.")
        return size

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
        if size == 0 and ino not in self._taken_over:
            change.put(ino, changed(change.inode(ino), state=_EMPTY, size=0, hash=NO_HASH))
            self._staging.unstage(change, ino)
        else:
            self._staging.truncate(file, size)
        self._touch(change, ino)
        change.commit()

    def _touch_as(self, ino: int, mtime_ns: int) -> None:
        change = self._start_change()
        inode = change.inode(ino)
        if mtime_ns > inode.mtime_ns:
            change.put(ino, changed(inode, mtime_ns=mtime_ns, ctime_ns=max(inode.ctime_ns, mtime_ns)))
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
            raise self._not_open(handle)
        return opened

    def _not_open(self, handle: Handle) -> PosixError:
        return NotOpenAnyMore() if handle in self._stale else BadHandle(handle)


def _nobody(ino: int) -> None:
    """Nobody wants to know."""


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
