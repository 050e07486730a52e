"""What the adapter makes of requests, without a kernel."""

from __future__ import annotations

import errno
import os
import stat
from typing import Any, NamedTuple

import pyfuse3
import pytest

from tvfs.clock import ManualClock
from tvfs.filesystem.lookups import LookupCounts
from tvfs.filesystem.model import LONG_TIMEOUT_S, ROOT, WORK, Absent, Caller, FileAttributes, Found, Ino
from tvfs.fuse.operations import FilesystemOperations
from tvfs.testing.memory_filesystem import MemoryFilesystem


class Context(NamedTuple):
    """Who asks, in place of pyfuse3's class, which only pyfuse3 can make."""

    uid: int = 1000
    gid: int = 1000
    pid: int = 1
    umask: int = 0


class Fields(NamedTuple):
    """Which attributes to change."""

    update_mode: bool = False
    update_uid: bool = False
    update_gid: bool = False
    update_size: bool = False
    update_atime: bool = False
    update_mtime: bool = False
    update_ctime: bool = False


CONTEXT: Any = Context()


class Mount:
    """A filesystem in memory and its adapter."""

    def __init__(self, *, xattrs: bool = False) -> None:
        self.lookups = LookupCounts()
        self.clock = ManualClock()
        self.filesystem = MemoryFilesystem(clock=self.clock, lookups=self.lookups)
        self.operations = FilesystemOperations(self.filesystem, self.lookups, xattrs=xattrs)

    async def new_file(self, name: bytes, content: bytes = b"") -> tuple[int, Ino]:
        opened, entry = await self.operations.create(WORK, name, 0o644, os.O_RDWR, CONTEXT)
        await self.operations.write(opened.fh, 0, content)
        return opened.fh, Ino(entry.st_ino)


async def refused(request: Any) -> int:
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await request
    number: int = caught.value.errno
    return number


async def test_a_found_name_carries_its_attributes_and_how_long_they_hold() -> None:
    mount = Mount()
    mount.filesystem.mknod(WORK, b"device", stat.S_IFCHR | 0o640, os.makedev(5, 7), Caller(3, 4))
    entry = await mount.operations.lookup(WORK, b"device", CONTEXT)
    now = mount.clock.now_ns()
    assert (entry.st_mode, entry.st_uid, entry.st_gid) == (stat.S_IFCHR | 0o640, 3, 4)
    assert (entry.st_rdev, entry.st_nlink, entry.st_size) == (os.makedev(5, 7), 1, 0)
    assert (entry.st_atime_ns, entry.st_mtime_ns, entry.st_ctime_ns) == (now, now, now)
    assert entry.entry_timeout == entry.attr_timeout == LONG_TIMEOUT_S


async def test_an_absent_name_is_an_answer_to_be_remembered() -> None:
    mount = Mount()
    entry = await mount.operations.lookup(WORK, b"absent", CONTEXT)
    assert entry.st_ino == 0
    assert entry.entry_timeout == LONG_TIMEOUT_S
    assert not mount.lookups.clear()


async def test_timeouts_are_those_that_the_filesystem_says() -> None:
    class Changing(MemoryFilesystem):
        """Changes names itself."""

        def lookup(self, parent: Ino, name: bytes) -> Found | Absent:
            return Absent(0.0) if name == b"absent" else Found(self.getattr(parent), 0.0)

        def attribute_timeout_s(self, ino: Ino) -> float:
            return 1.5

    lookups = LookupCounts()
    operations = FilesystemOperations(Changing(clock=ManualClock(), lookups=lookups), lookups)
    assert (await operations.lookup(WORK, b"absent", CONTEXT)).entry_timeout == 0.0
    assert (await operations.lookup(WORK, b"there", CONTEXT)).entry_timeout == 0.0
    assert (await operations.getattr(WORK, CONTEXT)).attr_timeout == 1.5


async def test_a_dot_is_the_directory_itself() -> None:
    mount = Mount()
    entry = await mount.operations.lookup(WORK, b".", CONTEXT)
    assert entry.st_ino == WORK
    assert mount.lookups.holds(WORK)


async def test_each_answer_that_names_an_inode_is_one_reference() -> None:
    mount = Mount()
    operations = mount.operations
    _, ino = await mount.new_file(b"file")
    await operations.lookup(WORK, b"file", CONTEXT)
    await operations.link(ino, WORK, b"linked", CONTEXT)
    await operations.getattr(ino, CONTEXT)
    assert not mount.lookups.drop(ino, 2)
    assert mount.lookups.drop(ino, 1)
    for entry in (
        await operations.mkdir(WORK, b"directory", 0o755, CONTEXT),
        await operations.symlink(WORK, b"symlink", b"target", CONTEXT),
        await operations.mknod(WORK, b"fifo", stat.S_IFIFO | 0o600, 0, CONTEXT),
    ):
        assert mount.lookups.drop(Ino(entry.st_ino), 1)


async def test_an_unlinked_inode_goes_when_the_last_reference_comes_back() -> None:
    mount = Mount()
    before = mount.filesystem.inodes()
    fh, ino = await mount.new_file(b"file")
    await mount.operations.lookup(WORK, b"file", CONTEXT)
    await mount.operations.unlink(WORK, b"file", CONTEXT)
    await mount.operations.release(fh)
    await mount.operations.forget([(ino, 1)])
    assert mount.filesystem.inodes() == before + 1
    await mount.operations.forget([(ino, 1)])
    assert mount.filesystem.inodes() == before


async def test_only_what_was_asked_for_is_changed_and_times_are_stored_as_sent() -> None:
    mount = Mount()
    _, ino = await mount.new_file(b"file", b"content")
    before = mount.filesystem.getattr(ino)
    wanted = pyfuse3.EntryAttributes()
    wanted.st_mode, wanted.st_uid, wanted.st_size = 0o600, 77, 3  # type: ignore[assignment]
    wanted.st_mtime_ns, wanted.st_ctime_ns, wanted.st_atime_ns = 111, 222, 333
    fields: Any = Fields(update_mtime=True, update_ctime=True)
    await mount.operations.setattr(ino, wanted, fields, None, CONTEXT)
    after = mount.filesystem.getattr(ino)
    assert (after.mtime_ns, after.ctime_ns) == (111, 222)
    assert (after.mode, after.uid, after.size, after.atime_ns) == (before.mode, before.uid, 7, before.atime_ns)
    fields = Fields(update_size=True, update_mode=True)
    entry = await mount.operations.setattr(ino, wanted, fields, None, CONTEXT)
    assert (entry.st_size, stat.S_IMODE(entry.st_mode)) == (3, 0o600)


async def test_a_read_that_cannot_be_answered_at_once_is_waited_for() -> None:
    class Slow(MemoryFilesystem):
        """Has nothing at hand."""

        def read_nowait(self, handle: Any, offset: int, length: int) -> bytes | None:
            return None

        def write_nowait(self, handle: Any, offset: int, data: bytes) -> int | None:
            return None

        async def read(self, handle: Any, offset: int, length: int) -> bytes:
            return b"waited for"

        async def write(self, handle: Any, offset: int, data: bytes) -> int:
            return 5

    lookups = LookupCounts()
    operations = FilesystemOperations(Slow(clock=ManualClock(), lookups=lookups), lookups)
    assert await operations.read(1, 0, 100) == b"waited for"
    assert await operations.write(1, 0, b"abcde") == 5


async def test_pages_may_be_kept_between_openings() -> None:
    mount = Mount()
    fh, ino = await mount.new_file(b"file")
    assert fh >= 1
    assert (await mount.operations.open(ino, os.O_RDONLY, CONTEXT)).keep_cache


async def test_syncing_a_directory_reaches_the_directory_that_was_opened() -> None:
    synced = []

    class Syncing(MemoryFilesystem):
        """Notes what is synced."""

        async def fsyncdir(self, ino: Ino) -> None:
            synced.append(ino)

    lookups = LookupCounts()
    operations = FilesystemOperations(Syncing(clock=ManualClock(), lookups=lookups), lookups)
    root, work = await operations.opendir(ROOT, CONTEXT), await operations.opendir(WORK, CONTEXT)
    await operations.fsyncdir(work, False)
    await operations.fsyncdir(root, True)
    assert synced == [WORK, ROOT]
    await operations.releasedir(work)


async def test_attributes_that_are_off_are_refused_for_good() -> None:
    operations = Mount().operations
    assert await refused(operations.getxattr(WORK, b"user.x", CONTEXT)) == errno.ENOSYS
    assert await refused(operations.setxattr(WORK, b"user.x", b"", CONTEXT)) == errno.ENOSYS
    assert await refused(operations.listxattr(WORK, CONTEXT)) == errno.ENOSYS
    assert await refused(operations.removexattr(WORK, b"user.x", CONTEXT)) == errno.ENOSYS


async def test_attributes_that_are_on_work_except_those_that_only_a_kernel_understands() -> None:
    operations = Mount(xattrs=True).operations
    await operations.setxattr(WORK, b"user.x", b"value", CONTEXT)
    assert await operations.getxattr(WORK, b"user.x", CONTEXT) == b"value"
    assert await refused(operations.getxattr(WORK, b"user.y", CONTEXT)) == errno.ENODATA
    assert await refused(operations.getxattr(WORK, b"security.capability", CONTEXT)) == errno.ENODATA
    assert await refused(operations.setxattr(WORK, b"security.capability", b"", CONTEXT)) == errno.EOPNOTSUPP
    assert await refused(operations.setxattr(WORK, b"system.posix_acl_access", b"", CONTEXT)) == errno.EOPNOTSUPP


async def test_what_the_kernel_does_better_itself_is_refused_for_good() -> None:
    operations = Mount().operations
    assert await refused(operations.flush(1)) == errno.ENOSYS
    assert await refused(operations.access(WORK, 4, CONTEXT)) == errno.ENOSYS
    assert await refused(operations.poll(WORK, 1, None, CONTEXT)) == errno.ENOSYS


async def test_requests_are_counted_by_kind() -> None:
    operations = Mount().operations
    await operations.getattr(WORK, CONTEXT)
    await operations.getattr(WORK, CONTEXT)
    await refused(operations.getattr(999_999, CONTEXT))
    await operations.statfs(CONTEXT)
    assert {kind: n for kind, n in operations.counts.items() if n} == {"getattr": 3, "statfs": 1}


async def test_capacity_is_shown_in_blocks() -> None:
    mount = Mount()
    await mount.new_file(b"file", bytes(8192))
    statistics = await mount.operations.statfs(CONTEXT)
    assert statistics.f_blocks * statistics.f_frsize == 1 << 30
    assert (statistics.f_blocks - statistics.f_bavail) * statistics.f_frsize == 8192
    assert statistics.f_namemax == 255


def test_an_attribute_that_the_kernel_cannot_hold_is_an_error_not_another_value() -> None:
    attributes = FileAttributes(WORK, 0o40755, 2, -1, 0, 0, 0, 0, 0, 0, 0)
    with pytest.raises(OverflowError):
        pyfuse3.EntryAttributes().st_uid = attributes.uid
