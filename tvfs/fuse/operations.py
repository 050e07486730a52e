"""Answer pyfuse3's requests from a filesystem: their meaning is in `service`, their words are here."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from functools import partial

import pyfuse3
from pyfuse3 import EntryAttributes, FileInfo, ReaddirToken, RequestContext, SetattrFields, StatvfsData

from tvfs.filesystem.lookups import LookupCounts
from tvfs.filesystem.model import Absent, AttributeChanges, Caller, FileAttributes, Found, Handle, Ino
from tvfs.fuse.answers import answers, answers_later, answers_nothing, refusal
from tvfs.fuse.served_filesystem import ServedFilesystem
from tvfs.fuse.service import PREFERRED_IO_BYTES, FilesystemService
from tvfs.plugin_api.buffer import Buffer


class FilesystemOperations(pyfuse3.Operations):
    """One mount's handlers.  `counts` has the number of requests of each kind since the start.

    With xattrs every `write` costs one more round trip, for `security.capability`.
    """

    supports_dot_lookup = True
    enable_writeback_cache = True
    enable_acl = False

    def __init__(self, filesystem: ServedFilesystem, lookups: LookupCounts, *, xattrs: bool = False) -> None:
        super().__init__()
        self._filesystem = filesystem
        self._lookups = lookups
        self._service = FilesystemService(filesystem, lookups, xattrs=xattrs)
        self.counts: dict[str, int] = dict.fromkeys(HANDLERS, 0)

    # --- names and attributes

    @answers
    def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        """Find a name; absence is an answer too, which the kernel remembers."""
        found = self._service.lookup(Ino(parent_inode), name)
        if isinstance(found, Absent):
            entry = EntryAttributes()
            entry.st_ino = pyfuse3.InodeT(0)
            entry.entry_timeout = found.timeout_s
            return entry
        return _attributes(found.attributes, found.timeout_s)

    @answers_nothing
    def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Give references back; the last one may free the inode."""
        for inode, count in inode_list:
            self._service.forget(Ino(inode), count)

    @answers
    def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        """Show the attributes."""
        return _attributes(*self._service.attributes(Ino(inode)))

    @answers_later
    async def setattr(
        self, inode: int, attr: EntryAttributes, fields: SetattrFields, fh: int | None, ctx: RequestContext
    ) -> EntryAttributes:
        """Change attributes.

        The kernel keeps the times of files that it holds dirty pages of, and sends both mtime and ctime when it has
        written them: both are stored as sent.
        """
        ino = Ino(inode)
        changes = AttributeChanges(
            mode=attr.st_mode if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            size=attr.st_size if fields.update_size else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
            ctime_ns=attr.st_ctime_ns if fields.update_ctime else None,
        )
        changed = await self._filesystem.setattr(ino, changes, _caller(ctx))
        return _attributes(changed, self._filesystem.attribute_timeout_s(ino))

    @answers
    def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        """Return a symlink's target."""
        return self._filesystem.readlink(Ino(inode))

    @answers
    def access(self, inode: int, mode: int, ctx: RequestContext) -> bool:
        """Leave permissions to the kernel, which checks them itself under `default_permissions`."""
        raise refusal(errno.ENOSYS)

    @answers
    def statfs(self, ctx: RequestContext) -> StatvfsData:
        """Show capacity and use."""
        capacity = self._service.capacity()
        answer = StatvfsData()
        answer.f_bsize = answer.f_frsize = capacity.block_bytes
        answer.f_blocks = capacity.blocks
        answer.f_bfree = answer.f_bavail = capacity.free_blocks
        answer.f_files = capacity.files
        answer.f_ffree = answer.f_favail = capacity.free_files
        answer.f_namemax = capacity.name_bytes
        return answer

    # --- changes of the namespace

    @answers_later
    async def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext) -> EntryAttributes:
        """Make a directory."""
        make = partial(self._filesystem.mkdir, Ino(parent_inode), name, mode, _caller(ctx))
        return self._entered(await self._service.naming(make))

    @answers_later
    async def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: RequestContext) -> EntryAttributes:
        """Make a symlink."""
        make = partial(self._filesystem.symlink, Ino(parent_inode), name, target, _caller(ctx))
        return self._entered(await self._service.naming(make))

    @answers_later
    async def mknod(self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: RequestContext) -> EntryAttributes:
        """Make a file of any type, without opening it."""
        make = partial(self._filesystem.mknod, Ino(parent_inode), name, mode, rdev, _caller(ctx))
        return self._entered(await self._service.naming(make))

    @answers_later
    async def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: RequestContext) -> EntryAttributes:
        """Give an inode another name."""
        make = partial(self._filesystem.link, Ino(inode), Ino(new_parent_inode), new_name)
        return self._entered(await self._service.naming(make))

    @answers
    def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        """Take a name away."""
        self._filesystem.unlink(Ino(parent_inode), name)

    @answers
    def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        """Remove an empty directory."""
        self._filesystem.rmdir(Ino(parent_inode), name)

    @answers_later
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> None:
        """Move a name; the flags are those of renameat2."""
        old, new = Ino(parent_inode_old), Ino(parent_inode_new)
        await self._service.naming(partial(self._filesystem.rename, old, name_old, new, name_new, flags))

    # --- files

    @answers_later
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        """Make a file and open it; O_TRUNC and the like are in `flags`."""
        make = partial(self._filesystem.create_nowait, Ino(parent_inode), name, mode, flags, _caller(ctx))
        handle, found = await self._service.naming(make)
        return _opened(handle), self._entered(found)

    @answers_later
    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        """Open a file.  The kernel sends O_TRUNC here, and reads through handles that were opened for writing."""
        if flags & os.O_TRUNC and ctx.uid:
            # Of any other change of content the kernel sends the mode; root's changes keep it.
            self._service.drop_privileges(Ino(inode), _caller(ctx))
        return _opened(await self._filesystem.open(Ino(inode), flags, _caller(ctx)))

    @answers_later
    async def read(self, fh: int, off: int, size: int) -> Buffer:  # type: ignore[override]  # any buffer
        """Read, at once where that can be."""
        handle = Handle(fh)
        content = self._filesystem.read_nowait(handle, off, size)
        return await self._filesystem.read(handle, off, size) if content is None else content

    @answers_later
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """Write, at once where that can be."""
        handle = Handle(fh)
        written = self._filesystem.write_nowait(handle, off, buf)
        return await self._filesystem.write(handle, off, buf) if written is None else written

    @answers
    def flush(self, fh: int) -> None:
        """Save a round trip for each close: the kernel writes its dirty pages without our saying so."""
        raise refusal(errno.ENOSYS)

    @answers_later
    async def fsync(self, fh: int, datasync: bool) -> None:
        """Let what was written survive a power loss."""
        await self._filesystem.fsync(Handle(fh), datasync)

    @answers
    def release(self, fh: int) -> None:
        """Close a handle."""
        self._filesystem.release(Handle(fh))

    @answers
    def poll(self, inode: int, fh: int, ph: object, ctx: RequestContext) -> int:
        """Leave it to the kernel: files are always ready."""
        raise refusal(errno.ENOSYS)

    # --- directories

    @answers
    def opendir(self, inode: int, ctx: RequestContext) -> pyfuse3.FileHandleT:
        """Let the kernel's name for it be the inode: nothing need be open to be listed."""
        return pyfuse3.FileHandleT(inode)

    @answers
    def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        """List names with their attributes until the kernel's buffer is full; each listed inode is a reference more."""
        reply, add = pyfuse3.readdir_reply, self._lookups.add
        # One for all: `readdir_reply` copies it.
        entry = EntryAttributes()
        entry.st_blksize = PREFERRED_IO_BYTES
        for listed in self._filesystem.readdir(Ino(fh), start_id):
            found = listed.found
            _fill(entry, found.attributes, found.timeout_s)
            if not reply(token, listed.name, entry, listed.next_cookie):
                return
            add(found.attributes.ino)

    @answers
    def releasedir(self, fh: int) -> None:
        """Close a directory."""

    @answers_later
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Let the names in a directory survive a power loss."""
        await self._filesystem.fsyncdir(Ino(fh))

    # --- extended attributes

    @answers
    def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        """Return an extended attribute."""
        return self._service.getxattr(Ino(inode), name)

    @answers
    def setxattr(self, inode: int, name: bytes, value: bytes, ctx: RequestContext) -> None:
        """Set an extended attribute, except what only the kernel could give a meaning to."""
        self._service.setxattr(Ino(inode), name, value)

    @answers
    def listxattr(self, inode: int, ctx: RequestContext) -> list[bytes]:
        """Name the extended attributes."""
        return self._service.listxattr(Ino(inode))

    @answers
    def removexattr(self, inode: int, name: bytes, ctx: RequestContext) -> None:
        """Remove an extended attribute."""
        self._service.removexattr(Ino(inode), name)

    def _entered(self, found: Found) -> EntryAttributes:
        # Only for answers that give the kernel one more reference.
        self._service.entered(found)
        return _attributes(found.attributes, found.timeout_s)


HANDLERS = tuple(
    name for name in dir(pyfuse3.Operations) if not name.startswith("_") and name not in {"init", "stacktrace"}
    and callable(getattr(pyfuse3.Operations, name))
)  # fmt: skip
"""Every request that pyfuse3 knows."""


def _caller(ctx: RequestContext) -> Caller:
    return Caller(ctx.uid, ctx.gid, ctx.pid)


def _opened(handle: Handle) -> FileInfo:
    # The kernel may keep the pages: only it changes them, and an inode number never gets other content behind its back.
    return FileInfo(fh=pyfuse3.FileHandleT(handle), keep_cache=True)


def _attributes(attributes: FileAttributes, timeout_s: float) -> EntryAttributes:
    entry = EntryAttributes()
    entry.st_blksize = PREFERRED_IO_BYTES
    _fill(entry, attributes, timeout_s)
    return entry


def _fill(entry: EntryAttributes, attributes: FileAttributes, timeout_s: float) -> None:
    # The hottest lines of the mount: one plain store per field, no loop, no dictionary.
    entry.st_ino = attributes.ino
    entry.st_mode = attributes.mode
    entry.st_nlink = attributes.nlink
    entry.st_uid = attributes.uid
    entry.st_gid = attributes.gid
    entry.st_rdev = attributes.rdev
    entry.st_size = attributes.size
    entry.st_blocks = attributes.blocks
    entry.st_atime_ns = attributes.atime_ns
    entry.st_mtime_ns = attributes.mtime_ns
    entry.st_ctime_ns = attributes.ctime_ns
    entry.entry_timeout = entry.attr_timeout = timeout_s
