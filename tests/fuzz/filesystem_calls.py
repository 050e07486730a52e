"""Plays bytes as requests of a kernel that says anything: the adapter answers each with an errno, and never EIO.

EIO is what the adapter makes of an exception that nobody raises on purpose.
"""

from __future__ import annotations

import errno
from typing import Any, NamedTuple

import pyfuse3
import trio

from tvfs.clock import ManualClock
from tvfs.filesystem.lookups import LookupCounts
from tvfs.filesystem.model import WORK
from tvfs.fuse.operations import FilesystemOperations
from tvfs.testing.memory_filesystem import MemoryFilesystem

MOST_CALLS = 40
_EDGES = (0, 1, 255, 4095, 65_535, 1 << 31, (1 << 32) - 1, 1 << 62, (1 << 63) - 1)
_NAMES = (b"a", b"b", b"", b".", b"..", b"a/b", b"nul\0", b"n" * 256, b"\xff\xfe", b"new")


class Context(NamedTuple):
    """Who asks."""

    uid: int = 1000
    gid: int = 1000
    pid: int = 1
    umask: int = 0


class Fields(NamedTuple):
    """Which attributes to change."""

    update_mode: bool
    update_uid: bool
    update_gid: bool
    update_size: bool
    update_atime: bool
    update_mtime: bool
    update_ctime: bool


class Script:
    """Takes values off bytes; the end is zeros."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 0

    @property
    def ended(self) -> bool:
        return self._at >= len(self._raw)

    def byte(self) -> int:
        self._at += 1
        return self._raw[self._at - 1] if self._at <= len(self._raw) else 0

    def number(self) -> int:
        """Small, or at an edge: a file of a terabyte of zeros would only show that memory ends."""
        byte = self.byte()
        return _EDGES[byte & 15] if byte & 0x80 and byte & 15 < len(_EDGES) else byte << (byte & 7)

    def word(self) -> int:
        """Modes, flags and devices have 32 bits, whoever says them."""
        return self.number() & 0xFFFFFFFF

    def length(self) -> int:
        number = self.number()
        return number if number < 1 << 17 or number >= 1 << 62 else 17

    def name(self) -> bytes:
        return _NAMES[self.byte() % len(_NAMES)]

    def content(self) -> bytes:
        length = self.byte()
        self._at += length
        return self._raw[self._at - length : self._at]


def play(raw: bytes) -> None:
    """Raise `AssertionError` if a request is not answered as it should be."""
    lookups = LookupCounts()
    filesystem = MemoryFilesystem(clock=ManualClock(), lookups=lookups, capacity_bytes=1 << 20)
    trio.run(_play, Script(raw), FilesystemOperations(filesystem, lookups, xattrs=raw[:1] > b"\x80"))


async def _play(script: Script, operations: Any) -> None:
    inodes, handles = [int(WORK), 1, 77, (1 << 64) - 1], [0, 1, (1 << 64) - 1]
    for _ in range(MOST_CALLS):
        if script.ended:
            return
        inode = inodes[script.byte() % len(inodes)]
        handle = handles[script.byte() % len(handles)]
        try:
            answer = await _call(script, operations, inode, handle)
        except pyfuse3.FUSEError as exc:
            if exc.errno == errno.EIO:
                raise AssertionError("a handler raised what nobody raises on purpose") from exc
            continue
        if isinstance(answer, pyfuse3.EntryAttributes) and answer.st_ino:
            inodes.append(answer.st_ino)
        elif isinstance(answer, pyfuse3.FileInfo):
            handles.append(answer.fh)
        elif isinstance(answer, tuple):
            handles.append(answer[0].fh)
            inodes.append(answer[1].st_ino)


async def _call(script: Script, operations: Any, inode: int, handle: int) -> Any:
    context = Context()
    match script.byte() % 20:
        case 0:
            return await operations.lookup(inode, script.name(), context)
        case 1:
            return await operations.getattr(inode, context)
        case 2:
            return await operations.mkdir(inode, script.name(), script.word(), context)
        case 3:
            return await operations.mknod(inode, script.name(), script.word(), script.word(), context)
        case 4:
            return await operations.symlink(inode, script.name(), script.content(), context)
        case 5:
            return await operations.create(inode, script.name(), script.word(), script.word(), context)
        case 6:
            return await operations.open(inode, script.word(), context)
        case 7:
            return await operations.write(handle, script.length(), script.content())
        case 8:
            return await operations.read(handle, script.length(), min(script.length(), 1 << 17))
        case 9:
            return await operations.rename(inode, script.name(), 3, script.name(), script.byte(), context)
        case 10:
            return await operations.link(inode, int(WORK), script.name(), context)
        case 11:
            return await operations.unlink(inode, script.name(), context)
        case 12:
            return await operations.rmdir(inode, script.name(), context)
        case 13:
            return await operations.setattr(inode, _attributes(script), Fields(*_bits(script.byte())), None, context)
        case 14:
            return await operations.forget([(inode, script.number())])
        case 15:
            return await operations.release(handle)
        case 16:
            return await operations.setxattr(inode, script.name(), script.content(), context)
        case 17:
            return await operations.getxattr(inode, script.name(), context)
        case 18:
            return await operations.readlink(inode, context)
        case _:
            return await operations.statfs(context)


def _attributes(script: Script) -> pyfuse3.EntryAttributes:
    attributes = pyfuse3.EntryAttributes()
    attributes.st_mode = script.word()
    attributes.st_uid = attributes.st_gid = script.word()
    attributes.st_size = script.length()
    attributes.st_atime_ns = attributes.st_mtime_ns = attributes.st_ctime_ns = script.number()
    return attributes


def _bits(byte: int) -> list[bool]:
    return [bool(byte >> bit & 1) for bit in range(7)]
