"""Replies and notifications to bytes: pure functions."""

from __future__ import annotations

from functools import lru_cache

from tvfs.filesystem.model import DirectoryEntry, FileAttributes, Found
from tvfs.fuse.kernel import protocol as p
from tvfs.fuse.service import PREFERRED_IO_BYTES, Capacity

_SECOND_NS = 1_000_000_000
_MAX_TIMEOUT_S = 1 << 40


@lru_cache(maxsize=64)
def _timeout(timeout_s: float) -> tuple[int, int]:
    """Return whole seconds and nanoseconds; there are only a few different ones."""
    whole = int(min(timeout_s, _MAX_TIMEOUT_S))
    return whole, int((min(timeout_s, _MAX_TIMEOUT_S) - whole) * _SECOND_NS)


def header(unique: int, payload_bytes: int) -> bytes:
    """Return what precedes the payload of a success."""
    return p.OUT_HEADER.pack(p.OUT_HEADER.size + payload_bytes, 0, unique)


def failure(unique: int, number: int) -> bytes:
    """Return the whole answer that refuses a request with an errno."""
    return p.OUT_HEADER.pack(p.OUT_HEADER.size, -number, unique)


def entry(attributes: FileAttributes, timeout_s: float) -> bytes:
    """Return the answer that names an inode: one reference more for the kernel."""
    # The hottest lines of the mount.
    ino = attributes.ino
    seconds, nanoseconds = _timeout(timeout_s)
    atime, atime_ns = divmod(attributes.atime_ns, _SECOND_NS)
    mtime, mtime_ns = divmod(attributes.mtime_ns, _SECOND_NS)
    ctime, ctime_ns = divmod(attributes.ctime_ns, _SECOND_NS)
    return p.ENTRY_OUT.pack(
        ino, 0, seconds, seconds, nanoseconds, nanoseconds,
        ino, attributes.size, attributes.blocks, atime, mtime, ctime, atime_ns, mtime_ns, ctime_ns,
        attributes.mode, attributes.nlink, attributes.uid, attributes.gid, attributes.rdev, PREFERRED_IO_BYTES, 0,
    )  # fmt: skip


@lru_cache(maxsize=8)
def absent(timeout_s: float) -> bytes:
    """Return the answer that a name is not there, to be believed for that long: always one of the same two."""
    seconds, nanoseconds = _timeout(timeout_s)
    return p.ENTRY_OUT.pack(0, 0, seconds, 0, nanoseconds, 0, *(0,) * 16)


def attributes(attributes: FileAttributes, timeout_s: float) -> bytes:
    """Return the answer to GETATTR and SETATTR."""
    seconds, nanoseconds = _timeout(timeout_s)
    atime, atime_ns = divmod(attributes.atime_ns, _SECOND_NS)
    mtime, mtime_ns = divmod(attributes.mtime_ns, _SECOND_NS)
    ctime, ctime_ns = divmod(attributes.ctime_ns, _SECOND_NS)
    return p.ATTR_OUT.pack(
        seconds, nanoseconds, 0,
        attributes.ino, attributes.size, attributes.blocks, atime, mtime, ctime, atime_ns, mtime_ns, ctime_ns,
        attributes.mode, attributes.nlink, attributes.uid, attributes.gid, attributes.rdev, PREFERRED_IO_BYTES, 0,
    )  # fmt: skip


def statx(attributes: FileAttributes, timeout_s: float) -> bytes:
    """Return the answer to STATX: the attributes, and the birth time if it is known."""
    rdev = attributes.rdev
    return p.STATX_OUT.pack(
        *_timeout(timeout_s), 0,
        p.STATX_BASIC_STATS | (p.STATX_BTIME if attributes.born_ns else 0), PREFERRED_IO_BYTES, 0,
        attributes.nlink, attributes.uid, attributes.gid, attributes.mode,
        attributes.ino, attributes.size, attributes.blocks, 0,
        *divmod(attributes.atime_ns, _SECOND_NS), *divmod(attributes.born_ns, _SECOND_NS),
        *divmod(attributes.ctime_ns, _SECOND_NS), *divmod(attributes.mtime_ns, _SECOND_NS),
        rdev >> 8 & 0xFFF, rdev & 0xFF | rdev >> 12 & 0xFFF00, 0, 0,
    )  # fmt: skip


def statistics(capacity: Capacity) -> bytes:
    """Return the answer to STATFS."""
    return p.STATFS_OUT.pack(
        capacity.blocks, capacity.free_blocks, capacity.free_blocks, capacity.files, capacity.free_files,
        capacity.block_bytes, capacity.name_bytes, capacity.block_bytes, 0,
    )  # fmt: skip


def directory_entry(listed: DirectoryEntry) -> bytes:
    """Return one record of READDIR."""
    found = listed.found.attributes
    name = listed.name
    record = p.DIRENT.pack(found.ino, listed.next_cookie, len(name), found.mode >> 12) + name
    return record + bytes(-len(record) % 8)


def directory_entry_plus(listed: DirectoryEntry) -> bytes:
    """Return one record of READDIRPLUS: one reference more for the kernel."""
    found: Found = listed.found
    return entry(found.attributes, found.timeout_s) + directory_entry(listed)


def notification(code: p.Notification, body: bytes) -> bytes:
    """Return the whole message."""
    return p.OUT_HEADER.pack(p.OUT_HEADER.size + len(body), code, 0) + body


def send_again() -> bytes:
    """Return the notification that whoever read the requests that are not answered is gone."""
    return notification(p.Notification.RESEND, b"")


def forget_attributes(ino: int) -> bytes:
    """Return the notification that an inode's attributes changed; its pages stay."""
    return notification(p.Notification.INVAL_INODE, p.INVAL_INODE_OUT.pack(ino, -1, 0))


def forget_pages(ino: int) -> bytes:
    """Return the notification that all of an inode's content changed."""
    return notification(p.Notification.INVAL_INODE, p.INVAL_INODE_OUT.pack(ino, 0, 0))


def forget_name(parent: int, name: bytes) -> bytes:
    """Return the notification that a name may lead elsewhere now."""
    body = p.INVAL_ENTRY_OUT.pack(parent, len(name), 0) + name + p.NAME_END
    return notification(p.Notification.INVAL_ENTRY, body)


def name_removed(parent: int, ino: int, name: bytes) -> bytes:
    """Return the notification that a name was removed: as `forget_name`, and watchers are told."""
    return notification(p.Notification.DELETE, p.DELETE_OUT.pack(parent, ino, len(name), 0) + name + p.NAME_END)
