"""From requests to the filesystem and back: one method a kind, each translates and decides nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import trio

from tvfs.filesystem.lookups import LookupCounts
from tvfs.filesystem.model import Absent, AttributeChanges, Caller, Handle, Ino
from tvfs.filesystem.posix_error import NoSpace, OutOfRange
from tvfs.fuse.kernel import protocol as p
from tvfs.fuse.kernel import replies
from tvfs.fuse.kernel.channel import Handler, Later
from tvfs.fuse.kernel.device import may_open_backing
from tvfs.fuse.kernel.negotiation import NO_OPENDIR, Agreement, KernelTooOld, negotiate
from tvfs.fuse.kernel.passthrough import Passthrough
from tvfs.fuse.kernel.protocol import Opcode
from tvfs.fuse.kernel.requests import Header
from tvfs.fuse.refusals import NotServed, NotSupported
from tvfs.fuse.service import FilesystemService, without_privileges
from tvfs.fuse.settings import MountSettings
from tvfs.plugin_api.buffer import Buffer

Fields = tuple[Any, ...]
_DONE = b""
_SECOND_NS = 1_000_000_000
_SHORT_COPY_MAX = (1 << 32) - 1
_LATER_MAJOR = p.INIT_OUT_MAJOR.pack(p.MAJOR, p.MINOR_MOST)


class Dispatch:
    """Answers one session's requests; `table` says which handler answers which kind."""

    def __init__(
        self, service: FilesystemService, lookups: LookupCounts, settings: MountSettings, counts: dict[str, int]
    ) -> None:
        self._service = service
        self._filesystem = service.filesystem
        self._lookups = lookups
        self._settings = settings
        self.initialised = trio.Event()
        self.agreement: Agreement | None = None
        self._writeback = True
        self.failure: KernelTooOld | None = None
        """Why the session cannot begin."""
        self.give_up: Callable[[], None] = _nothing
        """Ends the session; set by whoever serves it."""
        self.passthrough = Passthrough(self._filesystem, counts)
        self.session = -1
        """The descriptor, for what is said by ioctl."""
        self.table: dict[Opcode, Handler] = {
            Opcode.INIT: self._init,
            Opcode.LOOKUP: self._lookup,
            Opcode.FORGET: self._forget,
            Opcode.BATCH_FORGET: self._batch_forget,
            Opcode.GETATTR: self._getattr,
            Opcode.STATX: self._statx,
            Opcode.SETATTR: self._setattr,
            Opcode.READLINK: self._readlink,
            Opcode.STATFS: self._statfs,
            Opcode.MKDIR: self._naming(self._mkdir),
            Opcode.SYMLINK: self._naming(self._symlink),
            Opcode.MKNOD: self._naming(self._mknod),
            Opcode.LINK: self._naming(self._link),
            Opcode.UNLINK: self._unlink,
            Opcode.RMDIR: self._rmdir,
            Opcode.RENAME: self._naming(self._rename),
            Opcode.RENAME2: self._naming(self._rename2),
            Opcode.CREATE: self._naming(self._create),
            Opcode.OPEN: self._open,
            Opcode.READ: self._read,
            Opcode.WRITE: self._write,
            Opcode.FLUSH: self._not_served,
            Opcode.FSYNC: self._fsync,
            Opcode.RELEASE: self._release,
            Opcode.FALLOCATE: self._fallocate,
            Opcode.COPY_FILE_RANGE: self._copy_file_range,
            Opcode.COPY_FILE_RANGE_64: self._copy_file_range_64,
            Opcode.LSEEK: self._lseek,
            Opcode.OPENDIR: self._opendir,
            Opcode.READDIR: self._readdir,
            Opcode.READDIRPLUS: self._readdirplus,
            Opcode.RELEASEDIR: self._releasedir,
            Opcode.FSYNCDIR: self._fsyncdir,
            Opcode.GETXATTR: self._getxattr,
            Opcode.SETXATTR: self._setxattr,
            Opcode.LISTXATTR: self._listxattr,
            Opcode.REMOVEXATTR: self._removexattr,
            Opcode.DESTROY: self._destroy,
        }

    # --- the session

    def _init(self, header: Header, fields: Fields) -> Buffer:
        try:
            agreement = negotiate(
                fields,
                # Without the right to it there would be neither passthrough nor a writeback cache.
                passthrough=self._settings.passthrough and may_open_backing(),
                max_background=self._settings.max_background,
            )
        except KernelTooOld as exc:
            self.failure = exc
            self.give_up()
            raise
        if agreement is None:
            return _LATER_MAJOR
        self.begin(agreement)
        return agreement.encode()

    def begin(self, agreement: Agreement) -> None:
        """Both sides hold to this, from now on or since before another daemon took the session over."""
        self.agreement, self._writeback = agreement, agreement.writeback
        if agreement.passthrough:
            self.passthrough.enable(self.session)
        self.initialised.set()

    def _destroy(self, header: Header, fields: Fields) -> Buffer:
        return _DONE

    def _not_served(self, header: Header, fields: Fields) -> Buffer:
        # FLUSH: saves a round trip for each close, and the kernel writes its dirty pages without our saying so.
        raise NotServed

    # --- names and attributes

    def _lookup(self, header: Header, fields: Fields) -> Buffer:
        found = self._service.lookup(Ino(header.nodeid), fields[0])
        if isinstance(found, Absent):
            return replies.absent(found.timeout_s)
        return replies.entry(found.attributes, found.timeout_s)

    def _forget(self, header: Header, fields: Fields) -> None:
        self._forgotten(Ino(header.nodeid), fields[0])

    def _batch_forget(self, header: Header, fields: Fields) -> None:
        for ino, count in fields[2]:
            self._forgotten(Ino(ino), count)

    def _forgotten(self, ino: Ino, count: int) -> None:
        if self._service.forget(ino, count):
            self.passthrough.forgotten(ino)

    def _getattr(self, header: Header, fields: Fields) -> Buffer:
        # Not by way of the service: it has nothing to add, and this is asked more than all else.
        ino, filesystem = Ino(header.nodeid), self._filesystem
        return replies.attributes(filesystem.getattr(ino), filesystem.attribute_timeout_s(ino))

    def _statx(self, header: Header, fields: Fields) -> Buffer:
        return replies.statx(*self._service.attributes(Ino(header.nodeid)))

    def _setattr(self, header: Header, fields: Fields) -> Buffer | Later:
        ino, caller = Ino(header.nodeid), _caller(header)
        changes = self._changes(ino, fields)
        changed = self._filesystem.setattr_nowait(ino, changes, caller)
        if changed is None:
            return self._setattr_later(ino, changes, caller)
        return replies.attributes(changed, self._filesystem.attribute_timeout_s(ino))

    async def _setattr_later(self, ino: Ino, changes: AttributeChanges, caller: Caller) -> Buffer:
        self.passthrough.expect(ino)
        try:
            changed = await self._filesystem.setattr(ino, changes, caller)
        finally:
            self.passthrough.expect_no_more(ino)
        return replies.attributes(changed, self._filesystem.attribute_timeout_s(ino))

    def _changes(self, ino: Ino, fields: Fields) -> AttributeChanges:
        """The kernel keeps the times of files that it holds dirty pages of, and sends both mtime and ctime later."""
        (valid, _, _, size, _, atime, mtime, ctime, atime_ns, mtime_ns, ctime_ns, mode, _, uid, gid, _) = fields
        new_mode = mode if valid & p.FATTR_MODE else None
        # A `chown` that names neither owner nor group drops privileges like any other; no more is left of it than this.
        if valid & p.FATTR_KILL_SUIDGID or not valid & ~(p.FATTR_FH | p.FATTR_CTIME):
            before = self._filesystem.getattr(ino).mode
            after = without_privileges(before if new_mode is None else before & ~0o7777 | new_mode & 0o7777)
            new_mode = after if after != before else new_mode
        return AttributeChanges(
            mode=new_mode,
            uid=uid if valid & p.FATTR_UID else None,
            gid=gid if valid & p.FATTR_GID else None,
            size=size if valid & p.FATTR_SIZE else None,
            atime_ns=atime * _SECOND_NS + atime_ns if valid & p.FATTR_ATIME else None,
            mtime_ns=mtime * _SECOND_NS + mtime_ns if valid & p.FATTR_MTIME else None,
            ctime_ns=ctime * _SECOND_NS + ctime_ns if valid & p.FATTR_CTIME else None,
        )

    def _readlink(self, header: Header, fields: Fields) -> Buffer:
        return self._filesystem.readlink(Ino(header.nodeid))

    def _statfs(self, header: Header, fields: Fields) -> Buffer:
        return replies.statistics(self._service.capacity())

    # --- changes of the namespace

    def _naming(self, handler: Handler) -> Handler:
        """Let what adds a name wait until there is room for it."""

        def handle(header: Header, fields: Fields) -> Buffer | Later | None:
            try:
                return handler(header, fields)
            except NoSpace:
                return self._naming_later(handler, header, fields)

        return handle

    async def _naming_later(self, handler: Handler, header: Header, fields: Fields) -> Buffer:
        answer = await self._service.naming(partial(handler, header, fields))
        assert isinstance(answer, bytes), "names are added at once"
        return answer

    def _mkdir(self, header: Header, fields: Fields) -> Buffer:
        mode, _, name = fields
        found = self._service.entered(self._filesystem.mkdir(Ino(header.nodeid), name, mode, _caller(header)))
        return replies.entry(found.attributes, found.timeout_s)

    def _symlink(self, header: Header, fields: Fields) -> Buffer:
        name, target = fields
        found = self._service.entered(self._filesystem.symlink(Ino(header.nodeid), name, target, _caller(header)))
        return replies.entry(found.attributes, found.timeout_s)

    def _mknod(self, header: Header, fields: Fields) -> Buffer:
        mode, rdev, _, _, name = fields
        found = self._service.entered(self._filesystem.mknod(Ino(header.nodeid), name, mode, rdev, _caller(header)))
        return replies.entry(found.attributes, found.timeout_s)

    def _link(self, header: Header, fields: Fields) -> Buffer:
        ino, name = fields
        found = self._service.entered(self._filesystem.link(Ino(ino), Ino(header.nodeid), name))
        return replies.entry(found.attributes, found.timeout_s)

    def _unlink(self, header: Header, fields: Fields) -> Buffer:
        self._filesystem.unlink(Ino(header.nodeid), fields[0])
        return _DONE

    def _rmdir(self, header: Header, fields: Fields) -> Buffer:
        self._filesystem.rmdir(Ino(header.nodeid), fields[0])
        return _DONE

    def _rename(self, header: Header, fields: Fields) -> Buffer:
        new_parent, name, new_name = fields
        self._filesystem.rename(Ino(header.nodeid), name, Ino(new_parent), new_name, 0)
        return _DONE

    def _rename2(self, header: Header, fields: Fields) -> Buffer:
        new_parent, flags, _, name, new_name = fields
        self._filesystem.rename(Ino(header.nodeid), name, Ino(new_parent), new_name, flags)
        return _DONE

    # --- files

    def _create(self, header: Header, fields: Fields) -> Buffer:
        flags, mode, _, _, name = fields
        handle, found = self._filesystem.create_nowait(Ino(header.nodeid), name, mode, flags, _caller(header))
        opened = self._opened(handle, found.attributes.ino, flags)
        self._service.entered(found)
        return replies.entry(found.attributes, found.timeout_s) + opened

    def _open(self, header: Header, fields: Fields) -> Buffer | Later:
        ino, (flags, open_flags) = Ino(header.nodeid), fields
        caller = _caller(header)
        if open_flags & p.OPEN_KILL_SUIDGID:
            self._service.drop_privileges(ino, caller)
        handle = self._filesystem.open_nowait(ino, flags, caller)
        if handle is None:
            return self._open_later(ino, flags, caller)
        return self._opened(handle, ino, flags)

    def _opened(self, handle: Handle, ino: Ino, flags: int) -> bytes:
        try:
            return p.OPEN_OUT.pack(handle, *self.passthrough.opened(handle, ino, flags))
        except BaseException:
            # The kernel will not close what it was not given.
            self._filesystem.release(handle)
            raise

    async def _open_later(self, ino: Ino, flags: int, caller: Caller) -> Buffer:
        self.passthrough.expect(ino)
        try:
            handle = await self._filesystem.open(ino, flags, caller)
        finally:
            self.passthrough.expect_no_more(ino)
        return self._opened(handle, ino, flags)

    def _read(self, header: Header, fields: Fields) -> Buffer | Later:
        handle, offset, size = Handle(fields[0]), fields[1], fields[2]
        content = self._filesystem.read_nowait(handle, offset, size)
        return self._filesystem.read(handle, offset, size) if content is None else content

    def _write(self, header: Header, fields: Fields) -> Buffer | Later:
        handle, offset, _, flags, _, _, _, content = fields
        if flags & p.WRITE_KILL_SUIDGID:
            self._service.drop_privileges(Ino(header.nodeid), _caller(header))
        written = self._filesystem.write_nowait(Handle(handle), offset, content)
        if written is None:
            return self._write_later(Ino(header.nodeid), Handle(handle), offset, content)
        if not self._writeback:
            self._filesystem.written(Ino(header.nodeid))
        return p.WRITE_OUT.pack(written, 0)

    async def _write_later(self, ino: Ino, handle: Handle, offset: int, content: Buffer) -> Buffer:
        written = await self._filesystem.write(handle, offset, content)
        if not self._writeback:
            self._filesystem.written(ino)
        return p.WRITE_OUT.pack(written, 0)

    def _fallocate(self, header: Header, fields: Fields) -> Later:
        handle, offset, length, mode, _ = fields
        return self._fallocate_later(Handle(handle), mode, offset, length)

    async def _fallocate_later(self, handle: Handle, mode: int, offset: int, length: int) -> Buffer:
        await self._filesystem.allocate(handle, mode, offset, length)
        return _DONE

    def _copy_file_range(self, header: Header, fields: Fields) -> Buffer:
        copied = self._cloned(fields)
        if copied > _SHORT_COPY_MAX:
            raise NotSupported
        return p.WRITE_OUT.pack(copied, 0)

    def _copy_file_range_64(self, header: Header, fields: Fields) -> Buffer:
        return p.COPY_FILE_RANGE_OUT.pack(self._cloned(fields))

    def _cloned(self, fields: Fields) -> int:
        """Copy a whole file by reference; of anything else the kernel copies the bytes when it is told so."""
        source, source_offset, _, target, target_offset, length, _ = fields
        if not source_offset and not target_offset:
            copied = self._filesystem.clone_nowait(Handle(source), Handle(target), length)
            if copied is not None:
                return copied
        raise NotSupported

    def _lseek(self, header: Header, fields: Fields) -> Later:
        handle, offset, whence, _ = fields
        if self._writeback:
            # The kernel may hold data in what is a hole to us, and does not send them first.
            raise NotServed
        return self._lseek_later(Handle(handle), offset, whence)

    async def _lseek_later(self, handle: Handle, offset: int, whence: int) -> Buffer:
        return p.LSEEK_OUT.pack(await self._filesystem.seek(handle, offset, whence))

    async def _fsync_later(self, handle: Handle, data_only: bool) -> Buffer:
        await self._filesystem.fsync(handle, data_only)
        return _DONE

    def _fsync(self, header: Header, fields: Fields) -> Later:
        return self._fsync_later(Handle(fields[0]), bool(fields[1] & p.FSYNC_DATA_ONLY))

    def _release(self, header: Header, fields: Fields) -> Buffer:
        handle = Handle(fields[0])
        self.passthrough.released(handle, Ino(header.nodeid))
        self._filesystem.release(handle)
        return _DONE

    # --- directories

    def _opendir(self, header: Header, fields: Fields) -> Buffer:
        if self.agreement is not None and self.agreement.has(NO_OPENDIR):
            raise NotServed  # nor ever asked again; listings are kept from now on
        # The kernel may keep the listing of a directory whose names only it changes.
        keeps = self._filesystem.attribute_timeout_s(Ino(header.nodeid)) > 0
        return p.OPEN_OUT.pack(0, p.FOPEN_KEEP_CACHE | p.FOPEN_CACHE_DIR if keeps else 0, 0)

    def _readdir(self, header: Header, fields: Fields) -> Buffer:
        _, offset, size = fields[:3]
        listing = bytearray()
        for listed in self._filesystem.readdir(Ino(header.nodeid), offset):
            record = replies.directory_entry(listed)
            if len(listing) + len(record) > size:
                break
            listing += record
        return listing

    def _readdirplus(self, header: Header, fields: Fields) -> Buffer:
        _, offset, size = fields[:3]
        listing, add = bytearray(), self._lookups.add
        for listed in self._filesystem.readdir(Ino(header.nodeid), offset):
            record = replies.directory_entry_plus(listed)
            if len(listing) + len(record) > size:
                break
            listing += record
            add(listed.found.attributes.ino)
        return listing

    def _releasedir(self, header: Header, fields: Fields) -> Buffer:
        return _DONE

    def _fsyncdir(self, header: Header, fields: Fields) -> Later:
        return self._fsyncdir_later(Ino(header.nodeid))

    async def _fsyncdir_later(self, ino: Ino) -> Buffer:
        await self._filesystem.fsyncdir(ino)
        return _DONE

    # --- extended attributes

    def _getxattr(self, header: Header, fields: Fields) -> Buffer:
        size, _, name = fields
        return _sized(self._service.getxattr(Ino(header.nodeid), name), size)

    def _listxattr(self, header: Header, fields: Fields) -> Buffer:
        names = self._service.listxattr(Ino(header.nodeid))
        return _sized(b"".join(name + p.NAME_END for name in names), fields[0])

    def _setxattr(self, header: Header, fields: Fields) -> Buffer:
        _, flags, name, value = fields
        self._service.setxattr(Ino(header.nodeid), name, bytes(value), flags)
        return _DONE

    def _removexattr(self, header: Header, fields: Fields) -> Buffer:
        self._service.removexattr(Ino(header.nodeid), fields[0])
        return _DONE


def _nothing() -> None:
    pass


def _caller(header: Header) -> Caller:
    return Caller(header.uid, header.gid, header.pid)


class _DoesNotFit(OutOfRange):
    errno = 34  # ERANGE


def _sized(value: bytes, size: int) -> bytes:
    """Return the value, or only its length to somebody who asks how long it is."""
    if not size:
        return p.GETXATTR_OUT.pack(len(value), 0)
    if len(value) > size:
        raise _DoesNotFit("The extended attribute is longer than what was made ready for it.")
    return value
