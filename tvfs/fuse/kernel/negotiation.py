"""What is agreed with the kernel when a session begins: a table of what we want, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from tvfs.errors import TaskVaultError
from tvfs.fuse.kernel import protocol as p


class KernelTooOld(TaskVaultError):
    """The kernel's protocol is older than what is spoken here."""

    def __init__(self, major: int, minor: int) -> None:
        super().__init__(
            f"The kernel speaks FUSE {major}.{minor}; this needs {p.MAJOR}.{p.MINOR_LEAST} (Linux 5.4) or later; "
            'use `[mount] transport = "pyfuse3"`.'
        )


class Capability(NamedTuple):
    """One thing that a kernel may offer."""

    name: str
    bit: int
    why: str


NO_OPENDIR = Capability("NO_OPENDIR_SUPPORT", 24, "a directory is opened without asking; its listing is kept")
RESEND = Capability(
    "HAS_RESEND", 39, "a daemon that takes over from one that was killed gets what that had not answered"
)
ALWAYS = (
    Capability("ASYNC_READ", 0, "several pages of one file are read at a time"),
    Capability("ATOMIC_O_TRUNC", 3, "one request truncates and opens: no moment in which the file is only empty"),
    Capability("EXPORT_SUPPORT", 4, "`.` can be looked up: a file server may come back with a number alone"),
    Capability("BIG_WRITES", 5, "writes longer than a page"),
    Capability("DO_READDIRPLUS", 13, "a listing brings the attributes"),
    Capability("READDIRPLUS_AUTO", 14, "… only to those who look at them"),
    Capability("ASYNC_DIO", 15, "O_DIRECT in parallel"),
    Capability("PARALLEL_DIROPS", 18, "names are looked up in parallel: our handlers are atomic"),
    Capability("ABORT_ERROR", 21, "the end of a session by force is told from an unmount"),
    Capability("MAX_PAGES", 22, "requests of 1 MiB"),
    Capability("CACHE_SYMLINKS", 23, "a symlink never changes its target"),
    NO_OPENDIR,
    Capability("EXPLICIT_INVAL_DATA", 25, "nobody but the kernel changes content: it need not suspect its pages"),
    Capability("HANDLE_KILLPRIV_V2", 28, "a small write costs no question for `security.capability`"),
    Capability("INIT_EXT", 30, "there are more than 32 bits"),
    RESEND,
)
WRITEBACK = Capability("WRITEBACK_CACHE", 16, "small writes gather in the page cache: 2 µs instead of a request")
PASSTHROUGH = Capability("PASSTHROUGH", 37, "hot files are read as fast as the disk's; excludes WRITEBACK_CACHE")
REFUSED = (
    Capability("POSIX_LOCKS", 1, "one mount, one kernel: it locks by itself"),
    Capability("DONT_MASK", 6, "the kernel applies the umask"),
    Capability("SPLICE_WRITE", 7, "no gain for a server that looks at the bytes"),
    Capability("SPLICE_MOVE", 8, "likewise"),
    Capability("SPLICE_READ", 9, "likewise"),
    Capability("FLOCK_LOCKS", 10, "as POSIX_LOCKS"),
    Capability("AUTO_INVAL_DATA", 12, "pages would be dropped at each change of mtime, our own included"),
    Capability("NO_OPEN_SUPPORT", 17, "without handles nothing says who may still write"),
    Capability("HANDLE_KILLPRIV", 19, "the second version says when"),
    Capability("POSIX_ACL", 20, "the kernel would leave umask and inheritance to us; mode bits are what we promise"),
    Capability("SETXATTR_EXT", 29, "of use with ACLs only"),
    Capability("SECURITY_CTX", 32, "no security modules' labels are stored"),
    Capability("CREATE_SUPP_GROUP", 34, "the kernel checks permissions"),
    Capability("HAS_EXPIRE_ONLY", 35, "names that the owner removes are gone, not doubtful"),
    Capability("ALLOW_IDMAP", 40, "the filesystem knows one set of owners"),
    Capability("OVER_IO_URING", 41, "a ring for each processor is no task of one trio thread"),
    Capability("REQUEST_TIMEOUT", 42, "the kernel would end the mount when a disk is slow"),
)

MAX_BACKGROUND = 64
CONGESTION_THRESHOLD = 48
MAX_PAGES = 256
STACK_DEPTH = 1
"""Hot files lie on an ordinary filesystem.  A depth of 2 would let them lie on an overlay, but nothing on us."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What both sides hold to."""

    minor: int
    flags: int
    max_readahead: int
    max_background: int = MAX_BACKGROUND

    def has(self, capability: Capability) -> bool:
        """Whether it was agreed on."""
        return bool(self.flags >> capability.bit & 1)

    @property
    def writeback(self) -> bool:
        """Whether the kernel gathers writes in its page cache."""
        return self.has(WRITEBACK)

    @property
    def passthrough(self) -> bool:
        """Whether files may be read past us."""
        return self.has(PASSTHROUGH)

    def encode(self) -> bytes:
        """Return the answer to INIT."""
        return p.INIT_OUT.pack(
            p.MAJOR,
            self.minor,
            self.max_readahead,
            self.flags & 0xFFFFFFFF,
            self.max_background,
            self.max_background * CONGESTION_THRESHOLD // MAX_BACKGROUND,
            p.MAX_WRITE_BYTES,
            1,  # granularity of times: nanoseconds
            MAX_PAGES,
            0,
            self.flags >> 32,
            STACK_DEPTH if self.passthrough else 0,
            0,
        )


def negotiate(fields: tuple[int, ...], *, passthrough: bool, max_background: int = MAX_BACKGROUND) -> Agreement | None:
    """Return what to answer to INIT; None if the kernel must first ask again, in our major version.

    Takes INIT's major, minor, max_readahead, flags and flags2.  With `passthrough` the kernel gets no writeback
    cache, because it has either; if it offers none, it gets the cache.  Raises `KernelTooOld`.
    """
    major, minor, max_readahead, low, high = fields
    if major > p.MAJOR:
        return None
    if major < p.MAJOR or minor < p.MINOR_LEAST:
        raise KernelTooOld(major, minor)
    offered = low | high << 32
    wanted = 0
    for capability in ALWAYS:
        wanted |= 1 << capability.bit
    takes_passthrough = passthrough and offered >> PASSTHROUGH.bit & 1
    wanted |= 1 << (PASSTHROUGH if takes_passthrough else WRITEBACK).bit
    return Agreement(min(minor, p.MINOR_MOST), offered & wanted, max_readahead, max_background)
