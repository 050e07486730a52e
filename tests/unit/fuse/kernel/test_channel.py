"""Requests are taken and answered: in time, once each, whatever comes."""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from tvfs.fuse.kernel.channel import Channel, Handler, Later
from tvfs.fuse.kernel.protocol import Opcode
from tvfs.fuse.kernel.requests import Header

HEADER = struct.Struct("=IIQQIIIHH")
READ_BODY = bytes(40)


class Peer:
    """Asks a channel whose handlers are the test's."""

    def __init__(self, handlers: dict[Opcode, Handler], *, waiting_max: int = 4) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.end = trio.socket.from_stdlib_socket(ours)
        self.counts: dict[str, int] = {}
        self._theirs = theirs
        self.channel = Channel(theirs.fileno(), handlers, self.counts, waiting_max=waiting_max)

    async def send(self, opcode: int, unique: int, body: bytes = b"", *, pid: int = 0) -> None:
        await self.end.send(HEADER.pack(HEADER.size + len(body), opcode, unique, 1, 0, 0, pid, 0, 0) + body)

    async def receive(self) -> tuple[int, int, bytes]:
        with trio.fail_after(10):
            message = await self.end.recv(1 << 20)
        _, error, unique = struct.unpack_from("=IiQ", message)
        return unique, -error, message[16:]

    @asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        with self._theirs, self.end:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.channel.serve)
                yield
                self.channel.stop()


class Waiting:
    """Reads that wait until they may."""

    def __init__(self) -> None:
        self.may = trio.Event()
        self.begun = 0

    def read(self, header: Header, fields: object) -> Later:
        self.begun += 1
        return self._later()

    async def _later(self) -> bytes:
        await self.may.wait()
        return b"content"


def dead_process() -> int:
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


async def test_a_read_for_somebody_who_was_killed_is_broken_off() -> None:
    waiting = Waiting()
    peer = Peer({Opcode.READ: waiting.read})
    async with peer.served():
        await peer.send(Opcode.READ, 2, READ_BODY, pid=dead_process())
        await peer.send(Opcode.INTERRUPT, 4, struct.pack("=Q", 2))
        assert await peer.receive() == (2, errno.EINTR, b"")


async def test_a_read_that_another_signal_interrupts_is_answered() -> None:
    """No program expects EINTR from a file."""
    waiting = Waiting()
    peer = Peer({Opcode.READ: waiting.read})
    async with peer.served():
        await peer.send(Opcode.READ, 2, READ_BODY, pid=os.getpid())
        await peer.send(Opcode.INTERRUPT, 4, struct.pack("=Q", 2))
        await trio.testing.wait_all_tasks_blocked(0.01)
        waiting.may.set()
        assert await peer.receive() == (2, 0, b"content")


async def test_of_somebody_who_cannot_be_seen_nobody_says_that_he_was_killed() -> None:
    """The kernel gives 0 for the number of a process in a container of its own, or outside of ours."""
    waiting = Waiting()
    peer = Peer({Opcode.READ: waiting.read})
    async with peer.served():
        await peer.send(Opcode.READ, 2, READ_BODY, pid=0)
        await peer.send(Opcode.INTERRUPT, 4, struct.pack("=Q", 2))
        await trio.testing.wait_all_tasks_blocked(0.01)
        waiting.may.set()
        assert await peer.receive() == (2, 0, b"content")


async def test_only_reads_are_broken_off() -> None:
    waiting = Waiting()
    peer = Peer({Opcode.FSYNC: waiting.read})
    async with peer.served():
        await peer.send(Opcode.FSYNC, 2, bytes(16), pid=dead_process())
        await peer.send(Opcode.INTERRUPT, 4, struct.pack("=Q", 2))
        await peer.send(Opcode.INTERRUPT, 6, struct.pack("=Q", 99))
        await trio.testing.wait_all_tasks_blocked(0.01)
        waiting.may.set()
        assert await peer.receive() == (2, 0, b"content")


async def test_no_more_wait_than_are_allowed_and_the_next_comes_when_one_is_done() -> None:
    waiting = Waiting()
    peer = Peer({Opcode.READ: waiting.read}, waiting_max=3)
    async with peer.served():
        for number in range(5):
            await peer.send(Opcode.READ, 2 + 2 * number, READ_BODY)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert waiting.begun == 3
        waiting.may.set()
        assert {(await peer.receive())[0] for _ in range(5)} == {2, 4, 6, 8, 10}


async def test_a_malformed_request_is_refused_and_the_next_is_answered(expect_log: Callable[[str], None]) -> None:
    expect_log("request failed")
    peer = Peer({Opcode.LOOKUP: lambda header, fields: b"found"})
    async with peer.served():
        await peer.send(Opcode.LOOKUP, 2, b"no end")
        assert (await peer.receive())[:2] == (2, errno.EIO)
        await peer.send(Opcode.LOOKUP, 4, b"name\0")
        assert await peer.receive() == (4, 0, b"found")
    assert peer.counts["lookup"] == 2


async def test_bytes_without_a_header_are_logged_and_passed_over(expect_log: Callable[[str], None]) -> None:
    expect_log("request without a proper header")
    peer = Peer({Opcode.STATFS: lambda header, fields: b""})
    async with peer.served():
        await peer.end.send(b"nonsense")
        await peer.send(Opcode.STATFS, 2)
        assert await peer.receive() == (2, 0, b"")


async def test_the_session_is_over_when_the_other_side_has_gone() -> None:
    peer = Peer({})
    with trio.fail_after(10), peer._theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.channel.serve)
            peer.end.close()
