"""The wire format of FUSE: numbers and structures as `linux/fuse.h` has them, protocol 7.31 to 7.45.

Every structure is in the machine's own byte order and has no padding but the fields named `_`.
"""

from __future__ import annotations

import errno
from enum import IntEnum
from struct import Struct

from tvfs.errors import TaskVaultError

MAJOR = 7
MINOR_LEAST = 31
"""Linux 5.4: older kernels lay out some structures differently."""
MINOR_MOST = 45
ROOT_ID = 1
MAX_WRITE_BYTES = 1 << 20
"""256 pages, the most that a kernel takes without a changed limit."""
BUFFER_BYTES = MAX_WRITE_BYTES + 4096
"""The kernel refuses to be read from with less room than its longest request."""
NAME_END = b"\0"
RESENT = 1 << 63
"""In the number of a request that another reader of the descriptor got before, and has not answered."""


class Opcode(IntEnum):
    """What the kernel asks for."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SETUPMAPPING = 48
    REMOVEMAPPING = 49
    SYNCFS = 50
    TMPFILE = 51
    STATX = 52
    COPY_FILE_RANGE_64 = 53


class Notification(IntEnum):
    """What the kernel is told without having asked."""

    INVAL_INODE = 2
    INVAL_ENTRY = 3
    DELETE = 6
    RESEND = 7


# Requests.
IN_HEADER = Struct("=IIQQIIIHH")
"""length, opcode, unique, nodeid, uid, gid, pid, total_extlen (units of 8 bytes), _"""
NOTHING = Struct("=")
INIT_IN = Struct("=IIII")
"""major, minor, max_readahead, flags; from 7.36 on, flags2 and 11 unused follow."""
INIT_IN_FLAGS2 = Struct("=I")
FORGET_IN = Struct("=Q")
BATCH_FORGET_IN = Struct("=II")
"""count, _; followed by as many FORGET_ONE."""
FORGET_ONE = Struct("=QQ")
"""nodeid, nlookup"""
GETATTR_IN = Struct("=IIQ")
"""flags, _, fh"""
SETATTR_IN = Struct("=IIQQQqqqIIIIIIII")
"""valid, _, fh, size, lock_owner, atime, mtime, ctime, their nanoseconds, mode, _, uid, gid, _"""
MKNOD_IN = Struct("=IIII")
"""mode, rdev, umask, _"""
MKDIR_IN = Struct("=II")
"""mode, umask"""
RENAME_IN = Struct("=Q")
"""new parent"""
RENAME2_IN = Struct("=QII")
"""new parent, flags, _"""
LINK_IN = Struct("=Q")
"""nodeid of what is linked"""
OPEN_IN = Struct("=II")
"""flags, open flags (OPEN_KILL_SUIDGID)"""
CREATE_IN = Struct("=IIII")
"""flags, mode, umask, open flags"""
READ_IN = Struct("=QQIIQII")
"""fh, offset, size, read flags, lock_owner, flags, _"""
WRITE_IN = Struct("=QQIIQII")
"""fh, offset, size, write flags, lock_owner, flags, _"""
RELEASE_IN = Struct("=QIIQ")
"""fh, flags, release flags, lock_owner"""
FSYNC_IN = Struct("=QII")
"""fh, flags, _"""
FLUSH_IN = Struct("=QIIQ")
SETXATTR_IN = Struct("=II")
"""size, flags; the longer form has to be asked for"""
GETXATTR_IN = Struct("=II")
"""size, _"""
ACCESS_IN = Struct("=II")
INTERRUPT_IN = Struct("=Q")
"""unique of the request that is not waited for any more"""
FALLOCATE_IN = Struct("=QQQII")
"""fh, offset, length, mode, _"""
LSEEK_IN = Struct("=QQII")
"""fh, offset, whence, _"""
COPY_FILE_RANGE_IN = Struct("=QQQQQQQ")
"""fh_in, off_in, nodeid_out, fh_out, off_out, len, flags"""

STATX_IN = Struct("=IIQII")
"""getattr flags, _, fh, statx flags, mask"""

# Replies.
OUT_HEADER = Struct("=IiQ")
"""length, negated errno, unique (0 and a notification code in place of the errno: a notification)"""
ATTR = Struct("=QQQqqqIIIIIIIIII")
"""ino, size, blocks, atime, mtime, ctime, their nanoseconds, mode, nlink, uid, gid, rdev, blksize, flags"""
ENTRY_OUT = Struct("=QQQQII" + ATTR.format[1:])
"""nodeid, generation, entry_valid, attr_valid, their nanoseconds, attributes"""
ATTR_OUT = Struct("=QII" + ATTR.format[1:])
"""attr_valid, its nanoseconds, _, attributes"""
STATX_OUT = Struct("=QII16xIIQIIIH2xQQQQqI4xqI4xqI4xqI4xIIII112x")
"""attr_valid, its nanoseconds, flags, _; then `struct statx`: mask, blksize, attributes, nlink, uid, gid, mode, _, ino,
size, blocks, known attributes, atime, btime, ctime, mtime with their nanoseconds, rdev and device as major and minor"""
OPEN_OUT = Struct("=QIi")
"""fh, open flags (FOPEN_*), backing id"""
WRITE_OUT = Struct("=II")
STATFS_OUT = Struct("=QQQQQIIII24x")
"""blocks, bfree, bavail, files, ffree, bsize, namelen, frsize, _"""
GETXATTR_OUT = Struct("=II")
LSEEK_OUT = Struct("=Q")
COPY_FILE_RANGE_OUT = Struct("=Q")
INIT_OUT = Struct("=IIIIHHIIHHIIH22x")
"""major, minor, max_readahead, flags, max_background, congestion_threshold, max_write, time_gran, max_pages,
map_alignment, flags2, max_stack_depth, request_timeout"""
INIT_OUT_MAJOR = Struct("=II")
"""The answer to a kernel of a later major version, which then asks again."""
DIRENT = Struct("=QQII")
"""ino, where to continue, length of the name, type; then the name, filled up to 8 bytes"""

# Notifications.
INVAL_INODE_OUT = Struct("=Qqq")
"""ino, offset (negative: attributes only), length (0: to the end)"""
INVAL_ENTRY_OUT = Struct("=QII")
"""parent, length of the name, flags; then the name and a zero"""
DELETE_OUT = Struct("=QQII")
"""parent, child, length of the name, _; then the name and a zero"""

FATTR_MODE = 1 << 0
FATTR_UID = 1 << 1
FATTR_GID = 1 << 2
FATTR_SIZE = 1 << 3
FATTR_ATIME = 1 << 4
FATTR_MTIME = 1 << 5
FATTR_FH = 1 << 6
FATTR_ATIME_NOW = 1 << 7
FATTR_MTIME_NOW = 1 << 8
FATTR_CTIME = 1 << 10
FATTR_KILL_SUIDGID = 1 << 11
WRITE_KILL_SUIDGID = 1 << 2
OPEN_KILL_SUIDGID = 1 << 0
FSYNC_DATA_ONLY = 1 << 0

STATX_BASIC_STATS = 0x7FF
STATX_BTIME = 0x800

FOPEN_DIRECT_IO = 1 << 0
FOPEN_KEEP_CACHE = 1 << 1
FOPEN_CACHE_DIR = 1 << 3
FOPEN_PASSTHROUGH = 1 << 7

BACKING_OPEN = 0x4010E501
"""ioctl `_IOW(229, 1, struct fuse_backing_map)`: returns a backing id."""
BACKING_CLOSE = 0x4004E502
"""ioctl `_IOW(229, 2, uint32_t)`."""
BACKING_MAP = Struct("=iIQ")
"""fd, flags, _"""


class MalformedRequest(TaskVaultError):
    """A request is not laid out as the protocol says."""

    errno = errno.EIO

    def __init__(self, opcode: int, reason: str) -> None:
        self.opcode = opcode
        super().__init__(f"The kernel sent a request of kind {opcode} that cannot be read: {reason}; please report it.")
