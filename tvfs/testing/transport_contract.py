"""What every transport promises, tested without a kernel: a socket stands in for /dev/fuse.

The bytes are laid out here once more, from `linux/fuse.h`, and not with the transport's own tables: a mistake in those
must not hide itself.  Subclass `TransportContract` and say how your transport is made.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import trio

from tvfs.clock import ManualClock
from tvfs.filesystem.lookups import LookupCounts
from tvfs.filesystem.model import ROOT, WORK, Absent, Found, Handle, Ino
from tvfs.fuse.settings import MountSettings
from tvfs.fuse.transport import Transport
from tvfs.plugin_api.buffer import Buffer
from tvfs.testing.memory_filesystem import MemoryFilesystem

LOOKUP, FORGET, GETATTR, SETATTR, READLINK, SYMLINK, MKNOD, MKDIR, UNLINK, RMDIR = 1, 2, 3, 4, 5, 6, 8, 9, 10, 11
LINK, OPEN, READ, WRITE, STATFS, RELEASE, FSYNC, SETXATTR, GETXATTR, LISTXATTR = 13, 14, 15, 16, 17, 18, 20, 21, 22, 23
REMOVEXATTR, FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR, FSYNCDIR, ACCESS, CREATE = 24, 25, 26, 27, 28, 29, 30, 34, 35
INTERRUPT, BATCH_FORGET, READDIRPLUS, RENAME2 = 36, 42, 44, 45
OFFERED = 0x73FFFFFB
"""What Linux 6.18 offers in INIT."""
_IN = struct.Struct("=IIQQIIIHH")
_OUT = struct.Struct("=IiQ")
_ANSWER_TIMEOUT_S = 10.0


class Answer(NamedTuple):
    """What came back for a request."""

    unique: int
    errno: int
    payload: bytes


class Entry(NamedTuple):
    """An answer that names an inode: `struct fuse_entry_out`, as far as is looked at."""

    ino: int
    size: int
    mode: int
    nlink: int
    uid: int

    @staticmethod
    def of(payload: bytes) -> Entry:
        """Read one."""
        nodeid = struct.unpack_from("=Q", payload)[0]
        ino, size = struct.unpack_from("=QQ", payload, 40)
        mode, nlink, uid = struct.unpack_from("=III", payload, 100)
        assert ino == nodeid
        return Entry(ino, size, mode, nlink, uid)


class Peer:
    """Stands in for the kernel."""

    def __init__(self, end: trio.socket.SocketType) -> None:
        self._end = end
        self._next_unique = 2

    async def send(self, opcode: int, ino: int = 0, body: bytes = b"", *, uid: int = 1000) -> int:
        """Send a request and return its number."""
        unique, self._next_unique = self._next_unique, self._next_unique + 2
        await self._end.send(_IN.pack(_IN.size + len(body), opcode, unique, ino, uid, 1000, os.getpid(), 0, 0) + body)
        return unique

    async def receive(self) -> Answer:
        """Return the next answer."""
        with trio.fail_after(_ANSWER_TIMEOUT_S):
            message = await self._end.recv(1 << 21)
        length, error, unique = _OUT.unpack_from(message)
        assert length == len(message), "an answer says how long it is"
        assert error <= 0, "an errno is negated"
        assert not error or length == _OUT.size, "a refusal has no payload"
        return Answer(unique, -error, message[_OUT.size :])

    async def ask(self, opcode: int, ino: int = 0, body: bytes = b"", *, uid: int = 1000) -> Answer:
        """Send a request and return its answer."""
        unique = await self.send(opcode, ino, body, uid=uid)
        answer = await self.receive()
        assert answer.unique == unique
        return answer

    async def wants(self, opcode: int, ino: int = 0, body: bytes = b"", *, uid: int = 1000) -> bytes:
        """Ask for something that is not to be refused; return its payload."""
        answer = await self.ask(opcode, ino, body, uid=uid)
        assert not answer.errno, f"{opcode}: {os.strerror(answer.errno)}"
        return answer.payload

    async def create(self, name: bytes, content: bytes = b"", *, parent: int = WORK) -> tuple[int, int]:
        """Make a file with a content; return its inode and the handle that is still open on it."""
        made = await self.wants(CREATE, parent, struct.pack("=IIII", os.O_RDWR, 0o100644, 0o22, 0) + name + b"\0")
        ino, handle = Entry.of(made).ino, struct.unpack_from("=Q", made, 128)[0]
        if content:
            await self.wants(WRITE, ino, struct.pack("=QQIIQII", handle, 0, len(content), 0, 0, 0, 0) + content)
        return ino, handle


class SlowFilesystem(MemoryFilesystem):
    """Answers certain requests later, or in ways that no filesystem should."""

    def __init__(self, lookups: LookupCounts) -> None:
        super().__init__(clock=ManualClock(), lookups=lookups)
        self.may_read = trio.Event()
        self.slow = False

    def lookup(self, parent: Ino, name: bytes) -> Found | Absent:
        """Raise what the name asks for."""
        if name == b"a bug":
            raise ZeroDivisionError
        return super().lookup(parent, name)

    def read_nowait(self, handle: Handle, offset: int, length: int) -> bytes | None:
        """Wait if told so."""
        return None if self.slow else super().read_nowait(handle, offset, length)

    async def read(self, handle: Handle, offset: int, length: int) -> bytes:
        """Wait for leave."""
        await self.may_read.wait()
        return super().read_nowait(handle, offset, length) or b""

    def write_nowait(self, handle: Handle, offset: int, data: Buffer) -> int | None:
        """Wait if told so."""
        return None if self.slow else super().write_nowait(handle, offset, data)

    async def write(self, handle: Handle, offset: int, data: Buffer) -> int:
        """Wait for leave."""
        await self.may_read.wait()
        written = super().write_nowait(handle, offset, data)
        assert written is not None
        return written


class Session(NamedTuple):
    """A transport at work, and who asks it."""

    peer: Peer
    filesystem: SlowFilesystem
    lookups: LookupCounts
    transport: Transport


class TransportContract(ABC):
    """Run under pytest-trio, with `trio_mode`."""

    @abstractmethod
    def make_transport(self, filesystem: MemoryFilesystem, lookups: LookupCounts, settings: MountSettings) -> Transport:
        """Return the transport to test."""

    @asynccontextmanager
    async def session(self, *, xattrs: bool = False, shake_hands: bool = True) -> AsyncIterator[Session]:
        """Serve a filesystem in memory to a peer."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for each in (ours, theirs):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        lookups = LookupCounts()
        filesystem = SlowFilesystem(lookups)
        transport = self.make_transport(filesystem, lookups, MountSettings("test", passthrough=False, xattrs=xattrs))
        transport.take(theirs.detach())
        end = trio.socket.from_stdlib_socket(ours)
        with end:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(transport.serve)
                peer = Peer(end)
                if shake_hands:
                    await peer.wants(INIT, 0, struct.pack("=IIIIIII", 7, 45, 131072, OFFERED, 0x5FD, 0, 0) + bytes(36))
                try:
                    yield Session(peer, filesystem, lookups, transport)
                finally:
                    filesystem.may_read.set()
                    transport.stop()
        transport.close(unmount=False)

    # --- the session

    async def test_both_sides_agree_on_a_version_and_long_requests(self) -> None:
        """The answer to INIT has no more than was offered."""
        async with self.session(shake_hands=False) as (peer, _, _, transport):
            assert not transport.initialised.is_set()
            body = struct.pack("=IIIIIII", 7, 45, 131072, OFFERED, 0x5FD, 0, 0) + bytes(36)
            payload = await peer.wants(INIT, 0, body)
            major, minor, _, flags = struct.unpack_from("=IIII", payload)
            max_write = struct.unpack_from("=I", payload, 20)[0]
            assert (major, max_write) == (7, 1 << 20)
            assert 31 <= minor <= 45
            assert not flags & ~OFFERED
            assert flags & 1 << 16, "the writeback cache is wanted"
            with trio.fail_after(_ANSWER_TIMEOUT_S):
                await transport.initialised.wait()

    async def test_a_request_of_an_unknown_kind_is_refused(self) -> None:
        """So that the kernel does without."""
        async with self.session() as (peer, _, _, _):
            assert (await peer.ask(999, ROOT)).errno == errno.ENOSYS
            assert (await peer.ask(STATFS, ROOT)).errno == 0

    async def test_a_bug_in_a_handler_is_an_error_for_one_request(self) -> None:
        """And is answered, as everything is."""
        async with self.session() as (peer, _, _, _):
            assert (await peer.ask(LOOKUP, WORK, b"a bug\0")).errno == errno.EIO
            assert (await peer.ask(LOOKUP, WORK, b"absent\0")).errno == 0

    # --- names and attributes

    async def test_a_found_name_is_an_entry_and_a_reference(self) -> None:
        """Which the kernel gives back with FORGET, one by one or many at once; neither is answered."""
        async with self.session() as (peer, filesystem, lookups, _):
            ino, handle = await peer.create(b"file", b"12345")
            entry = Entry.of(await peer.wants(LOOKUP, WORK, b"file\0"))
            assert entry == Entry(ino, 5, stat.S_IFREG | 0o644, 1, 1000)
            await peer.wants(RELEASE, ino, struct.pack("=QIIQ", handle, 0, 0, 0))
            await peer.wants(UNLINK, WORK, b"file\0")
            before = filesystem.inodes()
            await peer.send(FORGET, ino, struct.pack("=Q", 1))
            assert (await peer.ask(STATFS, ROOT)).errno == 0
            assert lookups.holds(Ino(ino))
            await peer.send(BATCH_FORGET, 0, struct.pack("=II", 1, 0) + struct.pack("=QQ", ino, 1))
            assert (await peer.ask(STATFS, ROOT)).errno == 0
            assert not lookups.holds(Ino(ino))
            assert filesystem.inodes() == before - 1

    async def test_an_absent_name_is_an_answer_that_is_remembered(self) -> None:
        """Inode 0, with a time for how long."""
        async with self.session() as (peer, _, lookups, _):
            payload = await peer.wants(LOOKUP, WORK, b"absent\0")
            nodeid, _, entry_valid = struct.unpack_from("=QQQ", payload)
            assert (len(payload), nodeid) == (128, 0)
            assert entry_valid > 3600
            assert not lookups.clear()

    async def test_attributes_are_shown_and_changed(self) -> None:
        """Times of before 1970 and nanoseconds included."""
        async with self.session() as (peer, _, _, _):
            ino, _ = await peer.create(b"file")
            valid = 1 << 0 | 1 << 1 | 1 << 5
            body = struct.pack(
                "=IIQQQqqqIIIIIIII", valid, 0, 0, 0, 0, 0, -5, 0, 0, 123_456_789, 0, 0o100600, 0, 7, 0, 0
            )
            await peer.wants(SETATTR, ino, body)
            payload = await peer.wants(GETATTR, ino, bytes(16))
            assert len(payload) == 104
            mtime, mtime_ns = struct.unpack_from("=q", payload, 48)[0], struct.unpack_from("=I", payload, 68)[0]
            mode, _, uid = struct.unpack_from("=III", payload, 76)
            assert (mtime, mtime_ns, mode, uid) == (-5, 123_456_789, stat.S_IFREG | 0o600, 7)

    async def test_a_change_of_size_truncates(self) -> None:
        """With the answer showing the new size."""
        async with self.session() as (peer, _, _, _):
            ino, handle = await peer.create(b"file", b"123456789")
            body = struct.pack("=IIQQQqqqIIIIIIII", 1 << 3, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
            payload = await peer.wants(SETATTR, ino, body)
            assert struct.unpack_from("=Q", payload, 24)[0] == 4
            assert await peer.wants(READ, ino, struct.pack("=QQIIQII", handle, 0, 4096, 0, 0, 0, 0)) == b"1234"

    async def test_names_are_made_linked_renamed_and_removed(self) -> None:
        """Each kind by its own request."""
        async with self.session() as (peer, _, _, _):
            made = Entry.of(await peer.wants(MKDIR, WORK, struct.pack("=II", 0o755, 0o22) + b"directory\0"))
            assert made.mode == stat.S_IFDIR | 0o755
            linked = Entry.of(await peer.wants(SYMLINK, WORK, b"symlink\0to here\0"))
            assert await peer.wants(READLINK, linked.ino) == b"to here"
            node = struct.pack("=IIII", stat.S_IFIFO | 0o600, 0, 0, 0)
            fifo = Entry.of(await peer.wants(MKNOD, made.ino, node + b"fifo\0"))
            again = Entry.of(await peer.wants(LINK, WORK, struct.pack("=Q", fifo.ino) + b"other\0"))
            assert again == fifo._replace(nlink=2)
            assert (await peer.ask(RMDIR, WORK, b"directory\0")).errno == errno.ENOTEMPTY
            await peer.wants(RENAME2, made.ino, struct.pack("=QII", WORK, 1, 0) + b"fifo\0moved\0")
            assert (await peer.ask(LOOKUP, made.ino, b"fifo\0")).payload[:8] == bytes(8)
            assert Entry.of(await peer.wants(LOOKUP, WORK, b"moved\0")).ino == fifo.ino
            assert (
                await peer.ask(RENAME2, WORK, struct.pack("=QII", WORK, 1, 0) + b"moved\0symlink\0")
            ).errno == errno.EEXIST
            await peer.wants(RMDIR, WORK, b"directory\0")
            assert (await peer.ask(UNLINK, WORK, b"directory\0")).errno == errno.ENOENT

    # --- files

    async def test_what_was_written_is_read(self) -> None:
        """The longest requests included; a read past the end is short."""
        async with self.session() as (peer, _, _, _):
            content = bytes(range(256)) * 4096
            ino, handle = await peer.create(b"long", content)
            assert await peer.wants(READ, ino, struct.pack("=QQIIQII", handle, 0, 1 << 20, 0, 0, 0, 0)) == content
            tail = await peer.wants(READ, ino, struct.pack("=QQIIQII", handle, len(content) - 3, 99, 0, 0, 0, 0))
            assert tail == content[-3:]
            assert await peer.wants(READ, ino, struct.pack("=QQIIQII", handle, 1 << 30, 99, 0, 0, 0, 0)) == b""

    async def test_an_open_file_keeps_its_pages_and_its_handle_ends_with_release(self) -> None:
        """FOPEN_KEEP_CACHE is bit 1."""
        async with self.session() as (peer, _, _, _):
            ino, _ = await peer.create(b"file")
            payload = await peer.wants(OPEN, ino, struct.pack("=II", os.O_RDONLY, 0))
            handle, flags, _ = struct.unpack("=QIi", payload)
            assert handle
            assert flags == 2
            await peer.wants(FSYNC, ino, struct.pack("=QII", handle, 0, 0))
            await peer.wants(RELEASE, ino, struct.pack("=QIIQ", handle, 0, 0, 0))
            assert (await peer.ask(FSYNC, ino, struct.pack("=QII", handle, 0, 0))).errno == errno.EBADF

    async def test_flush_access_and_attributes_that_are_off_are_not_asked_for_again(self) -> None:
        """ENOSYS is how the kernel learns that it need not ask."""
        async with self.session() as (peer, _, _, _):
            ino, handle = await peer.create(b"file")
            assert (await peer.ask(FLUSH, ino, struct.pack("=QIIQ", handle, 0, 0, 0))).errno == errno.ENOSYS
            assert (await peer.ask(ACCESS, ino, struct.pack("=II", 4, 0))).errno == errno.ENOSYS
            assert (await peer.ask(GETXATTR, ino, struct.pack("=II", 0, 0) + b"user.a\0")).errno == errno.ENOSYS

    async def test_a_slow_request_does_not_hold_up_others_and_each_gets_its_own_answer(self) -> None:
        """Answers come in any order, with the number of the request; data of a waiting write stay what they were."""
        async with self.session() as (peer, filesystem, _, _):
            ino, handle = await peer.create(b"file", b"old.")
            filesystem.slow = True
            write = struct.pack("=QQIIQII", handle, 0, 4, 0, 0, 0, 0)
            slow = [await peer.send(WRITE, ino, write + b"new!")]
            slow += [await peer.send(READ, ino, struct.pack("=QQIIQII", handle, n, 1, 0, 0, 0, 0)) for n in range(3)]
            for _ in range(3):
                assert len(await peer.wants(LOOKUP, WORK, b"a name longer than what was to be written\0")) == 128
            filesystem.may_read.set()
            answers = {answer.unique: answer for answer in [await peer.receive() for _ in slow]}
            assert set(answers) == set(slow)
            filesystem.slow = False
            assert await peer.wants(READ, ino, struct.pack("=QQIIQII", handle, 0, 9, 0, 0, 0, 0)) == b"new!"

    async def test_what_was_begun_is_answered_after_the_intake_has_stopped(self) -> None:
        """The last answers are not lost."""
        async with self.session() as (peer, filesystem, _, transport):
            ino, handle = await peer.create(b"file", b"content")
            filesystem.slow = True
            slow = await peer.send(READ, ino, struct.pack("=QQIIQII", handle, 0, 99, 0, 0, 0, 0))
            filesystem.slow = await self._taken(peer)
            transport.stop()
            filesystem.may_read.set()
            assert await peer.receive() == Answer(slow, 0, b"content")

    async def _taken(self, peer: Peer) -> bool:
        """Return when everything sent before has been taken."""
        return (await peer.ask(STATFS, ROOT)).errno == 0

    # --- directories

    async def test_a_listing_goes_on_where_it_stopped(self) -> None:
        """However small the buffer is; each listed inode is a reference if attributes are listed too."""
        async with self.session() as (peer, _, lookups, _):
            inos = {b"name %d" % number: (await peer.create(b"name %d" % number))[0] for number in range(20)}
            opened = await peer.ask(OPENDIR, WORK, bytes(8))
            # Refused means that the kernel need not ask: it goes on with 0.
            assert opened.errno in (0, errno.ENOSYS)
            handle = 0 if opened.errno else struct.unpack_from("=Q", opened.payload)[0]
            for plus in (True, False) if await self._lists_without_attributes(peer, handle) else (True,):
                found: dict[bytes, int] = {}
                offset = rounds = 0
                while True:
                    body = struct.pack("=QQIIQII", handle, offset, 1024, 0, 0, 0, 0)
                    listed = _entries(await peer.wants(READDIRPLUS if plus else READDIR, WORK, body), plus)
                    if not listed:
                        break
                    found |= {name: ino for name, ino, _ in listed}
                    offset, rounds = listed[-1][2], rounds + 1
                assert found == inos
                assert rounds > (3 if plus else 0)
            assert not any(lookups.drop(Ino(ino), 1) for ino in inos.values())
            assert all(lookups.drop(Ino(ino), 1) for ino in inos.values())
            await peer.wants(FSYNCDIR, WORK, struct.pack("=QII", handle, 0, 0))
            await peer.wants(RELEASEDIR, WORK, struct.pack("=QIIQ", handle, 0, 0, 0))

    async def _lists_without_attributes(self, peer: Peer, handle: int) -> bool:
        answer = await peer.ask(READDIR, WORK, struct.pack("=QQIIQII", handle, 0, 1024, 0, 0, 0, 0))
        return answer.errno != errno.ENOSYS

    # --- extended attributes

    async def test_extended_attributes_are_kept_asked_for_by_length_and_removed(self) -> None:
        """Except those that only a kernel could give a meaning to."""
        async with self.session(xattrs=True) as (peer, _, _, _):
            ino, _ = await peer.create(b"file")
            await peer.wants(SETXATTR, ino, struct.pack("=II", 5, os.XATTR_CREATE) + b"user.a\0value")
            again = await peer.ask(SETXATTR, ino, struct.pack("=II", 5, os.XATTR_CREATE) + b"user.a\0other")
            assert again.errno == errno.EEXIST
            assert await peer.wants(GETXATTR, ino, struct.pack("=II", 99, 0) + b"user.a\0") == b"value"
            assert (await peer.wants(GETXATTR, ino, struct.pack("=II", 0, 0) + b"user.a\0"))[:4] == b"\5\0\0\0"
            assert (await peer.ask(GETXATTR, ino, struct.pack("=II", 4, 0) + b"user.a\0")).errno == errno.ERANGE
            assert await peer.wants(LISTXATTR, ino, struct.pack("=II", 99, 0)) == b"user.a\0"
            await peer.wants(REMOVEXATTR, ino, b"user.a\0")
            assert (await peer.ask(GETXATTR, ino, struct.pack("=II", 99, 0) + b"user.a\0")).errno == errno.ENODATA
            name = b"security.capability\0"
            assert (await peer.ask(GETXATTR, ino, struct.pack("=II", 0, 0) + name)).errno == errno.ENODATA
            refused = await peer.ask(SETXATTR, ino, struct.pack("=II", 1, 0) + name + b"x")
            assert refused.errno == errno.EOPNOTSUPP

    # --- notifications

    async def test_a_notification_is_a_message_with_number_zero(self) -> None:
        """A name that the owner removed, and attributes that it changed."""
        async with self.session() as (peer, _, _, transport):
            ino, _ = await peer.create(b"file")
            transport.attributes_changed(Ino(ino))
            assert await self._told(peer) == (2, struct.pack("=Qqq", ino, -1, 0))
            transport.name_removed(WORK, b"file", ino)
            assert await self._told(peer) == (6, struct.pack("=QQII", WORK, ino, 4, 0) + b"file\0")

    async def _told(self, peer: Peer) -> tuple[int, bytes]:
        with trio.fail_after(_ANSWER_TIMEOUT_S):
            message = await peer._end.recv(4096)
        length, code, unique = _OUT.unpack_from(message)
        assert (length, unique) == (len(message), 0)
        return code, message[_OUT.size :]


def _entries(listing: bytes, plus: bool) -> list[tuple[bytes, int, int]]:
    found = []
    at = 0
    while at < len(listing):
        start = at
        at += 128 if plus else 0
        ino, offset, length, _ = struct.unpack_from("=QQII", listing, at)
        found.append((listing[at + 24 : at + 24 + length], ino, offset))
        at = start + (128 if plus else 0) + -(-(24 + length) // 8) * 8
    return found
