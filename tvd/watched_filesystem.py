"""The filesystem as the kernel's adapter sees it, with everything that it is asked recorded."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from tvd.activity import ActivityRecorder
from tvfs.filesystem.model import Handle
from tvfs.fuse.served_filesystem import ServedFilesystem
from tvfs.plugin_api.buffer import Buffer

P = ParamSpec("P")
R = TypeVar("R")
PREFIX = "fs."
"""Before the names of filesystem requests; those of the control socket have the names of their messages."""


class WatchedFilesystem:
    """A `ServedFilesystem` before another.

    Its methods are made once, so that each costs one call more and no look-up.  A read or write that could not be
    done at once is counted when it is done.
    """

    def __init__(self, inner: ServedFilesystem, activity: ActivityRecorder) -> None:
        def name(kind: str) -> str:
            return PREFIX + kind

        timed, later = activity.timed, activity.timed_later
        self.lookup = timed(name("lookup"), inner.lookup)
        self.getattr = timed(name("getattr"), inner.getattr)
        self.attribute_timeout_s = inner.attribute_timeout_s
        self.setattr = later(name("setattr"), inner.setattr)
        self.readlink = timed(name("readlink"), inner.readlink)
        self.mkdir = timed(name("mkdir"), inner.mkdir)
        self.symlink = timed(name("symlink"), inner.symlink)
        self.mknod = timed(name("mknod"), inner.mknod)
        self.link = timed(name("link"), inner.link)
        self.unlink = timed(name("unlink"), inner.unlink)
        self.rmdir = timed(name("rmdir"), inner.rmdir)
        self.rename = timed(name("rename"), inner.rename)
        self.setattr_nowait = _nowait(activity, "setattr", inner.setattr_nowait)
        self.create = later(name("create"), inner.create)
        self.create_nowait = timed(name("create"), inner.create_nowait)
        self.open_nowait = _nowait(activity, "open", inner.open_nowait)
        self.open = later(name("open"), inner.open)
        self.read_nowait = _reading_nowait(activity, inner.read_nowait)
        self.read = _reading(activity, later(name("read"), inner.read))
        self.write_nowait = _writing_nowait(activity, inner.write_nowait)
        self.write = _writing(activity, later(name("write"), inner.write))
        self.fsync = later(name("fsync"), inner.fsync)
        self.written = inner.written
        self.allocate = later(name("allocate"), inner.allocate)
        self.clone_nowait = _nowait(activity, "clone", inner.clone_nowait)
        self.seek = later(name("seek"), inner.seek)
        self.begin_direct = inner.begin_direct
        self.end_direct = inner.end_direct
        self.make_room_for_names = inner.make_room_for_names
        self.release = timed(name("release"), inner.release)
        self.readdir = activity.timed_listing(name("readdir"), inner.readdir)
        self.fsyncdir = later(name("fsyncdir"), inner.fsyncdir)
        self.statfs = timed(name("statfs"), inner.statfs)
        self.getxattr = timed(name("getxattr"), inner.getxattr)
        self.setxattr = timed(name("setxattr"), inner.setxattr)
        self.listxattr = timed(name("listxattr"), inner.listxattr)
        self.removexattr = timed(name("removexattr"), inner.removexattr)
        self.forgotten = inner.forgotten


def _nowait(activity: ActivityRecorder, kind: str, request: Callable[P, R | None]) -> Callable[P, R | None]:
    """Count a request that may be done at once, if it was."""
    add, clock_ns = activity.tally(PREFIX + kind).add, activity.clock_ns

    def served(*args: P.args, **kwargs: P.kwargs) -> R | None:
        began_ns = clock_ns()
        answer = request(*args, **kwargs)
        if answer is not None:
            add(began_ns, clock_ns())
        return answer

    return served


def _reading_nowait(
    activity: ActivityRecorder, read: Callable[[Handle, int, int], Buffer | None]
) -> Callable[[Handle, int, int], Buffer | None]:
    add, clock_ns = activity.tally(PREFIX + "read").add, activity.clock_ns

    def served(handle: Handle, offset: int, length: int) -> Buffer | None:
        began_ns = clock_ns()
        content = read(handle, offset, length)
        if content is not None:
            add(began_ns, clock_ns())
            activity.read_bytes += len(content)
        return content

    return served


def _reading(
    activity: ActivityRecorder, read: Callable[[Handle, int, int], Coroutine[Any, Any, Buffer]]
) -> Callable[[Handle, int, int], Coroutine[Any, Any, Buffer]]:
    async def served(handle: Handle, offset: int, length: int) -> Buffer:
        content = await read(handle, offset, length)
        activity.read_bytes += len(content)
        return content

    return served


def _writing_nowait(
    activity: ActivityRecorder, write: Callable[[Handle, int, Buffer], int | None]
) -> Callable[[Handle, int, Buffer], int | None]:
    add, clock_ns = activity.tally(PREFIX + "write").add, activity.clock_ns

    def served(handle: Handle, offset: int, data: Buffer) -> int | None:
        began_ns = clock_ns()
        written = write(handle, offset, data)
        if written is not None:
            add(began_ns, clock_ns())
            activity.written_bytes += written
        return written

    return served


def _writing(
    activity: ActivityRecorder, write: Callable[[Handle, int, Buffer], Coroutine[Any, Any, int]]
) -> Callable[[Handle, int, Buffer], Coroutine[Any, Any, int]]:
    async def served(handle: Handle, offset: int, data: Buffer) -> int:
        written = await write(handle, offset, data)
        activity.written_bytes += written
        return written

    return served
