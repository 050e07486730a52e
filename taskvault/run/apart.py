"""Do something where it leaves nothing behind: in mount and process namespaces of its own, over a view of a directory.

The view is an overlay whose changes are in memory and end with it.  Two processes are forked: one makes the namespaces,
the other is the first process in them.  Each dies with the one before, and with the last the kernel kills all others
and unmounts, however we end.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tvfs.errors import TaskVaultError

_NEW_MOUNTS, _NEW_USER, _NEW_PROCESSES = 0x0002_0000, 0x1000_0000, 0x2000_0000
_PRIVATE = 1 << 18 | 1 << 14
"""MS_PRIVATE and MS_REC."""
_NOSUID_NODEV = 1 << 1 | 1 << 2
_PR_SET_PDEATHSIG = 1
_IMPOSSIBLE, _UNFIT, _DONE = b"!", b"?", b"="
_OVERLAY_UNKNOWN = frozenset({errno.ENODEV, errno.EPERM})
_SHARE_OF_MEMORY = 4
_ENOUGH = 20
"""What was changed may be incomplete if less than a 20th of the room for it is left."""


class ApartImpossible(TaskVaultError):
    """The machine does not let us; nothing was done."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"Runs cannot be repeated apart here ({reason}); it takes root, or a kernel that lets users make namespaces"
            " and overlays."
        )


class RootUnfit(TaskVaultError):
    """This directory cannot be seen apart; nothing was done."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The root cannot be seen apart: {reason}.")


class TimeOver(TaskVaultError):
    """It took longer than it might, and was killed."""

    def __init__(self) -> None:
        super().__init__("It took longer than the time that was left, and was ended.")


def do_apart(root: Path, scratch: Path, body: Callable[[], bytes], *, timeout_s: float) -> bytes:
    """Call `body` apart and return what it returns; raise `ApartImpossible`, `RootUnfit` or `TimeOver`.

    There changes below `root` are its own, and `scratch`, a directory, is empty; its standard streams are
    nothing.  Must not be called while other threads run.
    """
    reading, writing = os.pipe()
    us = os.getpid()
    child = os.fork()
    if child == 0:
        with _never_back(writing):
            os.close(reading)
            _in_first_process(us, writing, root, scratch, body)
    os.close(writing)
    try:
        answer = _read_all(reading, time.monotonic() + timeout_s)
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        # Ends when the last process that can answer has gone.
        while os.read(reading, 1 << 16):
            pass
        os.close(reading)
    kind, rest = answer[:1], answer[1:]
    if kind == _IMPOSSIBLE:
        raise ApartImpossible(rest.decode(errors="replace"))
    if kind != _DONE:
        raise RootUnfit(rest.decode(errors="replace") or "whoever looked at it died")
    return rest


def is_full(scratch: Path) -> bool:
    """Whether the room for changes is, apart, or may have been, used up."""
    room = os.statvfs(scratch)
    return room.f_bavail * _ENOUGH < room.f_blocks


def has_all_rights() -> bool:
    """Whether what runs apart has the rights that it has elsewhere: where users are mapped, one user only is."""
    return os.geteuid() == 0


def _read_all(reading: int, deadline_s: float) -> bytes:
    answer = bytearray()
    while True:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0 or not select.select([reading], [], [], left_s)[0]:
            raise TimeOver
        part = os.read(reading, 1 << 16)
        if not part:
            return bytes(answer)
        answer += part


@contextmanager
def _never_back(writing: int) -> Iterator[None]:
    """In a fork: whatever happens in the body, nothing of the caller's goes on."""
    try:
        yield
    except RootUnfit as exc:
        _answer(writing, _UNFIT + str(exc).encode(errors="replace"))
    except BaseException as exc:  # noqa: BLE001  # there is nobody else to tell
        _answer(writing, _IMPOSSIBLE + _reason(exc).encode(errors="replace"))
    finally:
        os._exit(1)


def _reason(exc: BaseException) -> str:
    if isinstance(exc, OSError) and exc.strerror:
        return f"{exc.filename}: {exc.strerror}" if exc.filename else exc.strerror
    return f"{type(exc).__name__}: {exc}"


def _answer(writing: int, answer: bytes) -> None:
    view = memoryview(answer)
    with suppress(OSError):
        while view:
            view = view[os.write(writing, view) :]


def _in_first_process(above: int, writing: int, root: Path, scratch: Path, body: Callable[[], bytes]) -> None:
    os.setsid()  # no terminal
    _die_with_parent()
    if os.getppid() != above:
        return
    user, group = os.geteuid(), os.getegid()
    _call("unshare", ctypes.c_int(_NEW_MOUNTS | _NEW_PROCESSES | (0 if user == 0 else _NEW_USER)))
    if user != 0:
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")
    end, life = os.pipe()
    child = os.fork()
    if child == 0:
        with _never_back(writing):
            os.close(life)
            _die_with_parent()
            if select.select([end], [], [], 0)[0]:
                return  # it died before that
            _close_streams()
            _make_view(root, scratch, as_root=user == 0)
            try:
                answer = _DONE + body()
            except Exception as exc:  # whatever it is that we did wrong, it is told to whoever waits
                raise RootUnfit(_reason(exc)) from exc
            _answer(writing, answer)
    os.close(writing)
    os.waitpid(child, 0)


def _close_streams() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)


def _make_view(root: Path, scratch: Path, *, as_root: bool) -> None:
    _mount("none", b"/", None, _PRIVATE)
    _mount("proc", b"/proc", "proc", _NOSUID_NODEV)
    # Opened before anything is mounted over anything.
    below = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    _mount("tmpfs", os.fsencode(scratch), "tmpfs", _NOSUID_NODEV, f"size={_room_bytes()},mode=0700")
    room = os.open(scratch, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    places = {}
    for name in ("changed", "unfinished"):
        os.mkdir(scratch / f".{name}", 0o755)
        places[name] = f"/proc/self/fd/{room}/.{name}"
    # Through descriptors: a path may hold what separates options.
    options = f"lowerdir=/proc/self/fd/{below},upperdir={places['changed']},workdir={places['unfinished']}"
    try:
        _mount("overlay", os.fsencode(root), "overlay", 0, options if as_root else f"{options},userxattr")
    except OSError as exc:
        if exc.errno in _OVERLAY_UNKNOWN:
            raise
        raise RootUnfit(_reason(exc)) from exc
    if os.stat(root).st_dev == os.fstat(below).st_dev:
        raise RootUnfit("what is mounted over it does not show")


def _room_bytes() -> int:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024 // _SHARE_OF_MEMORY
    return 256 << 20


def _die_with_parent() -> None:
    _call("prctl", ctypes.c_int(_PR_SET_PDEATHSIG), ctypes.c_ulong(signal.SIGKILL), *[ctypes.c_ulong(0)] * 3)


def _mount(source: str, target: bytes, kind: str | None, flags: int, options: str | None = None) -> None:
    arguments = (kind.encode() if kind else None, ctypes.c_ulong(flags), options.encode() if options else None)
    _call("mount", source.encode(), target, *arguments)


def _call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc[name](*arguments):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), name)
