"""Which files the kernel reads past us.

The kernel has rules, and answers EIO to an open that breaks one.  An inode is read through the page cache or past us,
never both at a time; while it is read past us, every open must say so and name the same backing.  An open for writing
then goes past the page cache, and to us: what it writes is admitted and counted, and its mappings are the backing's.
Whether there is a backing, and that it has the right bytes whatever is written, is the filesystem's business.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from tvfs.filesystem.model import Handle, Ino
from tvfs.filesystem.session_record import Opened
from tvfs.fuse.kernel import protocol as p
from tvfs.fuse.kernel.device import close_backing, open_backing
from tvfs.fuse.served_filesystem import ServedFilesystem

_log = structlog.get_logger()
_HOPELESS = frozenset({errno.EPERM, errno.ELOOP, errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL})
"""Missing rights; a vault on an overlay; not this kind of file.  The next file fares no better."""
DIRECT_OPENS = "direct opens"
_CACHED = p.FOPEN_KEEP_CACHE, 0


@dataclass(slots=True)
class _Direct:
    backing_id: int
    opens: int = 1


class Passthrough:
    """Says how each file is opened, and counts what is open; one session's."""

    def __init__(self, filesystem: ServedFilesystem, counts: dict[str, int]) -> None:
        """Counts files opened past us in `counts`."""
        self._filesystem = filesystem
        self._counts = counts
        counts[DIRECT_OPENS] = 0
        self._session = -1
        self._hopeless = False
        self._direct: dict[int, _Direct] = {}
        self._cached: dict[int, int] = {}
        """How often each inode is open through the page cache, or about to be."""
        self._direct_handles: set[int] = set()
        self._stale: set[int] = set()
        """Inodes whose pages in the kernel may be older than what was written past them."""

    def enable(self, session: int) -> None:
        """Begin: both sides agreed on it."""
        self._session = session

    def inherit(self, rows: Iterable[Opened], read_past_us: Iterable[int]) -> None:
        """Go on with what another daemon opened, after `enable`; the kernel has the backing files still."""
        self._stale |= set(read_past_us)
        if self._session < 0:
            return
        for row in rows:
            if not row.flags & p.FOPEN_PASSTHROUGH:
                self._cached[row.ino] = self._cached.get(row.ino, 0) + 1
                continue
            self._direct_handles.add(Handle(row.number))
            if row.ino in self._direct:
                self._direct[row.ino].opens += 1
            else:
                self._direct[row.ino] = _Direct(row.backing_id)

    def expect(self, ino: Ino) -> None:
        """Let nobody begin to read the inode past us until `opened` or `expect_no_more`: its content may change."""
        if self._session >= 0:
            self._cached[ino] = self._cached.get(ino, 0) + 1

    def expect_no_more(self, ino: Ino) -> None:
        """Take `expect` back."""
        if self._session >= 0:
            self._uncount(ino)

    def opened(self, handle: Handle, ino: Ino, flags: int) -> tuple[int, int]:
        """Return the flags and the backing id to answer an open with."""
        if self._session < 0:
            return _CACHED
        direct = self._direct.get(ino)
        if direct is not None:
            direct.opens += 1
        else:
            direct = self._begin(handle, ino)
            if direct is None:
                self._cached[ino] = self._cached.get(ino, 0) + 1
                if ino in self._stale:
                    self._stale.discard(ino)
                    return 0, 0
                return _CACHED
        self._direct_handles.add(handle)
        self._counts[DIRECT_OPENS] += 1
        writes = flags & os.O_ACCMODE != os.O_RDONLY
        if writes:
            self._stale.add(ino)
        # The disk's filesystem wants what O_DIRECT reads aligned; we do not.
        elif not flags & os.O_DIRECT:
            return p.FOPEN_PASSTHROUGH, direct.backing_id
        return p.FOPEN_PASSTHROUGH | p.FOPEN_DIRECT_IO, direct.backing_id

    def forgotten(self, ino: Ino) -> None:
        """The kernel knows the inode no longer, nor any page of it."""
        self._stale.discard(ino)

    def released(self, handle: Handle, ino: Ino) -> None:
        """The kernel has closed a handle, and dropped what it had open for it before it told us."""
        if self._session < 0:
            return
        if handle not in self._direct_handles:
            self._uncount(ino)
            return
        self._direct_handles.discard(handle)
        direct = self._direct[ino]
        direct.opens -= 1
        if not direct.opens:
            del self._direct[ino]
            self._close(direct.backing_id)
            self._filesystem.end_direct(ino)

    def _begin(self, handle: Handle, ino: Ino) -> _Direct | None:
        if self._hopeless or ino in self._cached:
            return None
        descriptor = self._filesystem.begin_direct(handle)
        if descriptor is None:
            return None
        try:
            backing_id = open_backing(self._session, descriptor)
        except OSError as exc:
            self._filesystem.end_direct(ino)
            if exc.errno in _HOPELESS:
                self._hopeless = True
                _log.warning("files are not read past the daemon", reason=str(exc))
            return None
        finally:
            os.close(descriptor)
        direct = self._direct[ino] = _Direct(backing_id)
        return direct

    def _close(self, backing_id: int) -> None:
        try:
            close_backing(self._session, backing_id)
        except OSError as exc:
            if exc.errno != errno.ENOENT:
                _log.warning("a backing file stays open", reason=str(exc))

    def _uncount(self, ino: int) -> None:
        count = self._cached.get(ino, 0) - 1
        if count > 0:
            self._cached[ino] = count
        else:
            self._cached.pop(ino, None)
