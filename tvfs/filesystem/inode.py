"""The inode row: 112 bytes and, for a symlink, its target.

`>BBHIIIIIQqqqQQ32sq`: version, content state, flags, mode, uid, gid, nlink, rdev, size, atime, mtime, ctime (ns),
parent, entries, hash, birth time (ns; 0: unknown, as in rows from before it was kept).  The hash is the content's, or
of a directory the id of its base tree index; zeros for none.  `parent` and `entries` (names in it) are kept for
directories only.  The size of a staged file is that of its staging file.
"""

from __future__ import annotations

import stat
import struct
from enum import IntEnum

import msgspec

from tvfs.content.reference import Content, ContentKind
from tvfs.errors import RowDamaged, TaskVaultError

_ROW = struct.Struct(">BBHIIIIIQqqqQQ32sq")
_VERSION = 1
ROW_BYTES = _ROW.size
NO_HASH = bytes(32)

READ_ONLY = 1
"""Flag: nothing here may be changed through the mount."""
HAS_DELTAS = 2
"""Flag of a directory with a base tree: it has dirent rows."""
OWN_XATTRS = 4
"""Flag: the extended attributes are rows; without it those of the attached tree count."""
EVICTABLE = 8
"""Flag of a directory below `work/`: the files below it may be evicted one by one."""
MAX_LINKS = (1 << 32) - 1


class ContentState(IntEnum):
    """Where an inode's bytes are; the numbers are stored."""

    NONE = 0
    """No regular file."""
    EMPTY = 1
    CHUNK = 2
    MANIFEST = 3
    STAGED = 4
    """In a staging file; there is a row in family `staging`."""


_STATES = {ContentKind.EMPTY: 1, ContentKind.CHUNK: 2, ContentKind.MANIFEST: 3}
_KINDS = {1: ContentKind.EMPTY, 2: ContentKind.CHUNK, 3: ContentKind.MANIFEST}
STAGED = int(ContentState.STAGED)


class InodeTooNew(TaskVaultError):
    """An inode row was written by a later version."""

    def __init__(self, version: int) -> None:
        super().__init__(
            f"An inode has format {version}, this TaskVault knows up to {_VERSION}; use a newer TaskVault."
        )


class Inode(msgspec.Struct, frozen=True, gc=False):
    """One inode.  A `msgspec.Struct`, because one is built on every look-up: 0.3 µs where a dataclass takes 3."""

    mode: int
    uid: int
    gid: int
    nlink: int
    size: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    rdev: int = 0
    flags: int = 0
    state: int = 0
    """A `ContentState`."""
    hash: bytes = NO_HASH
    parent: int = 0
    entries: int = 0
    target: bytes = b""
    born_ns: int = 0
    """When it was made or attached; 0 if nobody knows."""

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return self.mode & 0o170000 == stat.S_IFDIR

    @property
    def is_regular(self) -> bool:
        """Whether it is a regular file."""
        return self.mode & 0o170000 == stat.S_IFREG

    @property
    def read_only(self) -> bool:
        """Whether it may not be changed."""
        return bool(self.flags & READ_ONLY)

    @property
    def kind(self) -> int:
        """The file type as directory entries store it (`DT_DIR`, …)."""
        return self.mode >> 12

    @property
    def content(self) -> Content:
        """The sealed content; only where there is one."""
        return Content(_KINDS[self.state], self.hash, self.size)

    def with_content(self, content: Content) -> Inode:
        """Return the inode with a sealed content."""
        return msgspec.structs.replace(self, state=_STATES[content.kind], hash=content.hash, size=content.size)

    def encode(self) -> bytes:
        """Return the row."""
        return (
            _ROW.pack(
                _VERSION, self.state, self.flags, self.mode, self.uid, self.gid, self.nlink, self.rdev, self.size,
                self.atime_ns, self.mtime_ns, self.ctime_ns, self.parent, self.entries, self.hash,
                self.born_ns,
            )
            + self.target
        )  # fmt: skip

    @staticmethod
    def decode(row: bytes) -> Inode:
        """Return what `encode` wrote; raise `InodeTooNew`, or `RowDamaged` for what it cannot have written."""
        if row and row[0] > _VERSION:
            raise InodeTooNew(row[0])
        if len(row) < ROW_BYTES or row[1] > STAGED:
            raise RowDamaged("An inode's row in the catalog")
        (
            _, state, flags, mode, uid, gid, nlink, rdev, size, atime, mtime, ctime, parent, entries, hash_, born,
        ) = _ROW.unpack_from(row)  # fmt: skip
        target = row[ROW_BYTES:]
        return Inode(
            mode, uid, gid, nlink, size, atime, mtime, ctime, rdev, flags, state, hash_, parent, entries, target,
            born,
        )  # fmt: skip


changed = msgspec.structs.replace
"""Return an inode with some fields changed."""
