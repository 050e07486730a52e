"""Open a session: /dev/fuse, mounted by mount(2) as root and by fusermount3 otherwise."""

from __future__ import annotations

import array
import ctypes
import fcntl
import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path

import trio

from tvfs.fuse.helper_process import run_helper
from tvfs.fuse.kernel import protocol as p
from tvfs.fuse.mount_point import FuseUnavailable

_MS_NOSUID = 2
_MS_NODEV = 4
_TYPE = "fuse.taskvault"
_HELPER_TIMEOUT_S = 20.0
_ALL_USERS = (1 << 32) - 1
_CAP_SYS_ADMIN = 1 << 21


async def open_session(point: str, source: str, options: Sequence[str], *, suid_and_devices: bool) -> int:
    """Mount and return the descriptor to serve; raise `FuseUnavailable`.

    `options` are those that mount(2) takes for this filesystem.  Nothing in the mount is looked at.
    """
    if os.geteuid() == 0:
        return await trio.to_thread.run_sync(_mount, point, source, options, suid_and_devices)
    return await _mount_by_helper(point, source, options)


def _mount(point: str, source: str, options: Sequence[str], suid_and_devices: bool) -> int:
    descriptor = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    kind = stat.S_IFMT(os.lstat(point).st_mode)
    own = [f"fd={descriptor}", f"rootmode={kind:o}", f"user_id={os.getuid()}", f"group_id={os.getgid()}"]
    flags = 0 if suid_and_devices else _MS_NOSUID | _MS_NODEV
    libc = ctypes.CDLL(None, use_errno=True)
    data = ",".join([*own, *options]).encode()
    if libc.mount(source.encode(), os.fsencode(point), _TYPE.encode(), ctypes.c_ulong(flags), data):
        reason = os.strerror(ctypes.get_errno())
        os.close(descriptor)
        raise FuseUnavailable(f"mounting at {point} was refused ({reason})")
    return descriptor


async def _mount_by_helper(point: str, source: str, options: Sequence[str]) -> int:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        named = [*options, f"fsname={source}", "subtype=taskvault"]
        command = ["fusermount3", "-o", ",".join(named), "--", point]
        result = await run_helper(
            command,
            timeout_s=_HELPER_TIMEOUT_S,
            pass_fds=[theirs.fileno()],
            variables={"_FUSE_COMMFD": str(theirs.fileno())},
        )
        theirs.close()
        if result.status != 0:
            raise FuseUnavailable(f"mounting at {point} was refused ({result.message or 'fusermount3 failed'})")
        return _received(ours, point)


def _received(ours: socket.socket, point: str) -> int:
    descriptors = array.array("i")
    room = socket.CMSG_SPACE(descriptors.itemsize)
    _, ancillary, _, _ = ours.recvmsg(1, room, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: descriptors.itemsize])
    if not descriptors:
        raise FuseUnavailable(f"fusermount3 mounted at {point} and passed no descriptor")
    return descriptors[0]


def may_open_backing(proc: Path = Path("/proc/self")) -> bool:
    """Whether the kernel will let this process have files read past it: with CAP_SYS_ADMIN of the whole machine.

    To be asked before a session begins: whoever agrees on passthrough and is refused has no writeback cache either.
    """
    try:
        _, first_outside, count = map(int, (proc / "uid_map").read_text().split(maxsplit=3)[:3])
        fields = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        effective = int(fields["CapEff"], 16)
    except (OSError, ValueError, KeyError):
        return False
    return first_outside == 0 and count == _ALL_USERS and bool(effective & _CAP_SYS_ADMIN)


def open_backing(session: int, descriptor: int) -> int:
    """Let the kernel read an open file past us; return its backing id.  Raises `OSError`: EPERM, ELOOP and others."""
    # A buffer that can be written to makes ioctl return what the kernel returned.
    backing_id: int = fcntl.ioctl(session, p.BACKING_OPEN, bytearray(p.BACKING_MAP.pack(descriptor, 0, 0)), True)
    return backing_id


def close_backing(session: int, backing_id: int) -> None:
    """Take a backing id back; who has the file open through it keeps it."""
    fcntl.ioctl(session, p.BACKING_CLOSE, bytearray(backing_id.to_bytes(4, "little")), True)
