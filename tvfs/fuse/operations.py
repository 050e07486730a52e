"""Answer the kernel's requests from a filesystem.

What the kernel is told to remember makes the mount fast: names, attributes, pages and absence stay in its caches
until it changes them itself.  Handles are those of the filesystem; references to inodes are counted here.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

import pyfuse3
from pyfuse3 import EntryAttributes, FileInfo, ReaddirToken, RequestContext, SetattrFields, StatvfsData

from tvfs.filesystem.lookups import LookupCounts
from tvfs.filesystem.model import Absent, AttributeChanges, Caller, FileAttributes, Found, Handle, Ino
from tvfs.fuse.answers import answers, answers_later, answers_nothing, refusal
from tvfs.fuse.served_filesystem import ServedFilesystem
from tvfs.plugin_api.buffer import Buffer

PREFERRED_IO_BYTES = 64 * 1024
"""`st_blksize`: what stdio buffers.  From 128 KiB on malloc would map and unmap memory for each file."""
STATFS_BLOCK_BYTES = 4096
NAME_BYTES_MAX = 255
_CAPABILITIES = b"security.capability"


class FilesystemOperations(pyfuse3.Operations):
    """One mount's handlers.  `counts` has the number of requests of each kind since the start."""

    supports_dot_lookup = True
    enable_writeback_cache = True
    enable_acl = False

    def __init__(self, filesystem: ServedFilesystem, lookups: LookupCounts, *, xattrs: bool = False) -> None:
        """Without `xattrs` each request for one is answered ENOSYS, and the kernel asks no more.

        With them every `write` costs one more round trip, for `security.capability`.
        """
        super().__init__()
        self._filesystem = filesystem
        self._lookups = lookups
        self._xattrs = xattrs
        self._listed: dict[int, Ino] = {}
        """Which directory a directory handle was opened on: the kernel names only the handle at fsyncdir."""
        self.counts: dict[str, int] = dict.fromkeys(HANDLERS, 0)

    # --- names and attributes

    @answers
    def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        """Find a name; absence is an answer too, which the kernel remembers."""
        parent = Ino(parent_inode)
        if name == b".":
            # A file server that has only the number asks so; everything it then needs is in the attributes.
            return self._entered(Found(self._filesystem.getattr(parent), self._filesystem.attribute_timeout_s(parent)))
        found = self._filesystem.lookup(parent, name)
        if isinstance(found, Absent):
            entry = EntryAttributes()
            entry.st_ino = pyfuse3.InodeT(0)
            entry.entry_timeout = found.timeout_s
            return entry
        return self._entered(found)

    @answers_nothing
    def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Give references back; the last one may free the inode."""
        for inode, count in inode_list:
            ino = Ino(inode)
            if self._lookups.drop(ino, count):
                self._filesystem.forgotten(ino)

    @answers
    def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        """Show the attributes."""
        ino = Ino(inode)
        return _attributes(self._filesystem.getattr(ino), self._filesystem.attribute_timeout_s(ino))

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
        statistics = self._filesystem.statfs()
        answer = StatvfsData()
        answer.f_bsize = answer.f_frsize = STATFS_BLOCK_BYTES
        answer.f_blocks = statistics.capacity_bytes // STATFS_BLOCK_BYTES
        answer.f_bfree = answer.f_bavail = statistics.free_bytes // STATFS_BLOCK_BYTES
        answer.f_files = statistics.files + statistics.free_files
        answer.f_ffree = answer.f_favail = statistics.free_files
        answer.f_namemax = NAME_BYTES_MAX
        return answer

    # --- changes of the namespace

    @answers
    def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext) -> EntryAttributes:
        """Make a directory."""
        return self._entered(self._filesystem.mkdir(Ino(parent_inode), name, mode, _caller(ctx)))

    @answers
    def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: RequestContext) -> EntryAttributes:
        """Make a symlink."""
        return self._entered(self._filesystem.symlink(Ino(parent_inode), name, target, _caller(ctx)))

    @answers
    def mknod(self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: RequestContext) -> EntryAttributes:
        """Make a file of any type, without opening it."""
        return self._entered(self._filesystem.mknod(Ino(parent_inode), name, mode, rdev, _caller(ctx)))

    @answers
    def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: RequestContext) -> EntryAttributes:
        """Give an inode another name."""
        return self._entered(self._filesystem.link(Ino(inode), Ino(new_parent_inode), new_name))

    @answers
    def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        """Take a name away."""
        self._filesystem.unlink(Ino(parent_inode), name)

    @answers
    def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        """Remove an empty directory."""
        self._filesystem.rmdir(Ino(parent_inode), name)

    @answers
    def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> None:
        """Move a name; the flags are those of renameat2."""
        self._filesystem.rename(Ino(parent_inode_old), name_old, Ino(parent_inode_new), name_new, flags)

    # --- files

    @answers_later
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        """Make a file and open it; O_TRUNC and the like are in `flags`."""
        handle, found = await self._filesystem.create(Ino(parent_inode), name, mode, flags, _caller(ctx))
        return _opened(handle), self._entered(found)

    @answers_later
    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        """Open a file.  The kernel sends O_TRUNC here, and reads through handles that were opened for writing."""
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
        """Open a directory for listing."""
        handle = self._filesystem.opendir(Ino(inode))
        self._listed[handle] = Ino(inode)
        return pyfuse3.FileHandleT(handle)

    @answers
    def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        """List names with their attributes until the kernel's buffer is full; each listed inode is a reference more."""
        reply, add = pyfuse3.readdir_reply, self._lookups.add
        # One for all: `readdir_reply` copies it.
        entry = EntryAttributes()
        entry.st_blksize = PREFERRED_IO_BYTES
        for listed in self._filesystem.readdir(Handle(fh), start_id):
            found = listed.found
            _fill(entry, found.attributes, found.timeout_s)
            if not reply(token, listed.name, entry, listed.next_cookie):
                return
            add(found.attributes.ino)

    @answers
    def releasedir(self, fh: int) -> None:
        """Close a directory."""
        self._listed.pop(fh, None)
        self._filesystem.releasedir(Handle(fh))

    @answers_later
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Let the names in a directory survive a power loss."""
        ino = self._listed.get(fh)
        if ino is None:
            raise refusal(errno.EBADF)
        await self._filesystem.fsyncdir(ino)

    # --- extended attributes

    @answers
    def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        """Return an extended attribute."""
        self._refuse_unless_xattrs()
        if name == _CAPABILITIES:
            # The kernel asks before each write; files here never carry capabilities.
            raise refusal(errno.ENODATA)
        return self._filesystem.getxattr(Ino(inode), name)

    @answers
    def setxattr(self, inode: int, name: bytes, value: bytes, ctx: RequestContext) -> None:
        """Set an extended attribute, except what only the kernel could give a meaning to."""
        self._refuse_unless_xattrs()
        if name == _CAPABILITIES or name.startswith(b"system."):
            raise refusal(errno.EOPNOTSUPP)
        self._filesystem.setxattr(Ino(inode), name, value)

    @answers
    def listxattr(self, inode: int, ctx: RequestContext) -> list[bytes]:
        """Name the extended attributes."""
        self._refuse_unless_xattrs()
        return self._filesystem.listxattr(Ino(inode))

    @answers
    def removexattr(self, inode: int, name: bytes, ctx: RequestContext) -> None:
        """Remove an extended attribute."""
        self._refuse_unless_xattrs()
        self._filesystem.removexattr(Ino(inode), name)

    def _refuse_unless_xattrs(self) -> None:
        if not self._xattrs:
            raise refusal(errno.ENOSYS)

    def _entered(self, found: Found) -> EntryAttributes:
        # Only for answers that give the kernel one more reference.
        self._lookups.add(found.attributes.ino)
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
