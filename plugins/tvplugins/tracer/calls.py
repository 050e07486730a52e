"""System calls as both tracers report them: what each one's arguments mean, and the events that the fold takes.

A tracer reports a call when it has returned.  A directory descriptor is reported as the path that the kernel gave for
it at that moment (`Place.base`), so nobody has to follow open, dup, close and their flags; only the working directory
is followed, by the fold.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from tvfs.plugin_api.tracer import Before

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_REMOVEDIR = 0x200
AT_SYMLINK_FOLLOW = 0x400
AT_EMPTY_PATH = 0x1000
CLONE_FS = 0x200
CLONE_THREAD = 0x10000
CLONE_NEW = 0x7E020080
"""Any new namespace."""
O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, O_EXCL, O_TRUNC = 0, 1, 2, 0o100, 0o200, 0o1000
O_PATH = 0o10000000
O_DIRECTORY = 0o200000
O_NOFOLLOW = 0o400000
O_TMPFILE = 0o20000000
RESOLVE_IN_ROOT = 0x10

DELETED = " (deleted)"
"""What the kernel appends to the path of a descriptor whose file has gone."""


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where a call looked: a path, and what it starts at if it is relative."""

    path: str | None
    """As it was given; empty for the descriptor itself; None if it could not be read."""
    base: str = ""
    """The descriptor's path as the kernel gave it; empty for the working directory."""
    before: Before | None = None
    """What was there when the call began, if the tracer looked."""


class Call(msgspec.Struct, frozen=True, gc=False):
    """A system call, and what the kernel answered."""

    name: str
    result: int
    """-n for the error number n."""
    flags: int = 0
    places: tuple[Place, ...] = ()
    outcome: str = ""
    """The kernel's path for what the call opened or went to, or its address; empty if it is not known."""


class Called(msgspec.Struct, frozen=True, gc=False):
    """A call has returned.  A reader may give the same object for calls that were the same, and so save much work."""

    tid: int
    at_ns: int
    call: Call


class Clone(msgspec.Struct, frozen=True, gc=False):
    """A task came to be."""

    tid: int
    at_ns: int
    """At this time or a little later."""
    child: int
    flags: int


class Exec(msgspec.Struct, frozen=True, gc=False):
    """A task became another program; its other threads are gone, and it has the process's number now."""

    tid: int
    at_ns: int
    former: int
    """Its number before."""
    place: Place
    flags: int = 0
    program: str = ""
    """The kernel's path for what runs now, which is another file if that one is interpreted; empty if not known."""
    header: bytes = b""
    """The first bytes of `program`; empty if not known."""
    arguments: tuple[str, ...] | None = None
    """What it was given, its name first; None if that is not known."""


class Exit(msgspec.Struct, frozen=True, gc=False):
    """A task ended."""

    tid: int
    at_ns: int
    status: int
    """-n if signal n ended it."""


class Trouble(msgspec.Struct, frozen=True, gc=False):
    """Something that the tracer could not see or understand."""

    reason: str


Raw = Called | Clone | Exec | Exit | Trouble


@dataclass(frozen=True, slots=True)
class Signature:
    """What a call's arguments mean; each number is an argument's place."""

    action: str
    """The method of the fold that takes it."""
    at: tuple[tuple[int | None, int | None], ...] = ()
    """For each path: its directory descriptor, and the path; without a path it is the descriptor itself."""
    flags: int | None = None
    implied: int = 0
    """Flags that every call of this name has."""
    address: int | None = None
    """A socket address, a message header, or a vector of them."""


def _path(action: str, implied: int = 0, flags: int | None = None) -> Signature:
    return Signature(action, ((None, 0),), flags, implied)


def _at(action: str, flags: int | None = None, implied: int = 0) -> Signature:
    return Signature(action, ((0, 1),), flags, implied)


def _descriptor(action: str) -> Signature:
    return Signature(action, ((0, None),), implied=AT_EMPTY_PATH)


SIGNATURES: dict[str, Signature] = {
    "open": _path("open", flags=1),
    "creat": _path("open", implied=O_CREAT | O_WRONLY | O_TRUNC),
    "openat": _at("open", flags=2),
    "openat2": _at("open", flags=2),
    "stat": _path("look"),
    "lstat": _path("look", AT_SYMLINK_NOFOLLOW),
    "newfstatat": _at("look", flags=3),
    "statx": _at("look", flags=2),
    "access": _path("look"),
    "faccessat": _at("look"),
    "faccessat2": _at("look", flags=3),
    "statfs": _path("look"),
    "getxattr": _path("look"),
    "lgetxattr": _path("look", AT_SYMLINK_NOFOLLOW),
    "listxattr": _path("look"),
    "llistxattr": _path("look", AT_SYMLINK_NOFOLLOW),
    "name_to_handle_at": _at("look", flags=4, implied=AT_SYMLINK_NOFOLLOW),
    "inotify_add_watch": Signature("look", ((None, 1),)),
    "readlink": _path("readlink"),
    "readlinkat": _at("readlink"),
    "getdents": _descriptor("list_directory"),
    "getdents64": _descriptor("list_directory"),
    "execve": _path("execute"),
    "execveat": _at("execute", flags=4),
    "chdir": _path("change_directory"),
    "fchdir": _descriptor("change_directory"),
    "unlink": _path("delete"),
    "rmdir": _path("delete", AT_REMOVEDIR),
    "unlinkat": _at("delete", flags=2),
    "mkdir": _path("make"),
    "mkdirat": _at("make"),
    "mknod": _path("make"),
    "mknodat": _at("make"),
    "symlink": Signature("symlink", ((None, 0), (None, 1))),
    "symlinkat": Signature("symlink", ((None, 0), (1, 2))),
    "link": Signature("link", ((None, 0), (None, 1))),
    "linkat": Signature("link", ((0, 1), (2, 3)), flags=4),
    "rename": Signature("rename", ((None, 0), (None, 1))),
    "renameat": Signature("rename", ((0, 1), (2, 3))),
    "renameat2": Signature("rename", ((0, 1), (2, 3)), flags=4),
    "truncate": _path("truncate"),
    "chmod": _path("set_attributes"),
    "fchmodat": _at("set_attributes"),
    "fchmodat2": _at("set_attributes", flags=3),
    "chown": _path("set_attributes"),
    "lchown": _path("set_attributes", AT_SYMLINK_NOFOLLOW),
    "fchownat": _at("set_attributes", flags=4),
    "utime": _path("set_attributes"),
    "utimes": _path("set_attributes"),
    "futimesat": _at("set_attributes"),
    "utimensat": _at("set_attributes", flags=3),
    "setxattr": _path("set_attributes"),
    "lsetxattr": _path("set_attributes", AT_SYMLINK_NOFOLLOW),
    "removexattr": _path("set_attributes"),
    "lremovexattr": _path("set_attributes", AT_SYMLINK_NOFOLLOW),
    "fchmod": _descriptor("set_attributes"),
    "fchown": _descriptor("set_attributes"),
    "fsetxattr": _descriptor("set_attributes"),
    "fremovexattr": _descriptor("set_attributes"),
    "connect": Signature("talk", address=1),
    "bind": Signature("talk", address=1),
    "sendto": Signature("talk", address=4),
    "sendmsg": Signature("talk", address=1),
    "sendmmsg": Signature("talk", address=1),
    "unshare": Signature("enter", flags=0),
    "setns": Signature("enter"),
    "seccomp": Signature("filter_calls", flags=1),
}
"""By name; only these and the forbidden ones are traced."""

FORBIDDEN: dict[str, str] = {
    "listen": "waited for others to connect to it",
    "chroot": "changed its root directory",
    "pivot_root": "changed its root directory",
    "mount": "mounted a filesystem",
    "umount2": "unmounted a filesystem",
    "move_mount": "mounted a filesystem",
    "open_tree": "mounted a filesystem",
    "fsopen": "mounted a filesystem",
    "fspick": "mounted a filesystem",
    "mount_setattr": "mounted a filesystem",
    "open_by_handle_at": "opened files by handle",
    "io_uring_setup": "used io_uring",
    "ptrace": "traced another process",
    "pidfd_getfd": "took descriptors of another process",
    "process_vm_readv": "read the memory of another process",
    "process_vm_writev": "wrote the memory of another process",
    "shmget": "used shared memory, queues or semaphores of System V",
    "msgget": "used shared memory, queues or semaphores of System V",
    "semget": "used shared memory, queues or semaphores of System V",
    "mq_open": "used a message queue",
    "add_key": "used the kernel's keys",
    "request_key": "used the kernel's keys",
    "keyctl": "used the kernel's keys",
    "fanotify_init": "watched a filesystem",
    "quotactl": "asked for quotas",
    "uselib": "loaded a library by an old call",
    "bpf": "loaded a program into the kernel",
    "perf_event_open": "measured other processes",
    "kexec_load": "replaced the kernel",
    "init_module": "loaded a kernel module",
    "finit_module": "loaded a kernel module",
    "swapon": "changed swap space",
    "acct": "switched accounting",
}
"""Calls behind which anything may happen that is not seen, and what to say of a process that made one with success."""
