"""A file that only takes room, so that there is some for removing things when others have filled the disk.

It is cut off piece by piece, when something is about to be written and the disk has no room: whoever fills the disk
gets little of a piece.  It is made again when there is room.  It counts as the vault's, like any file in HOME.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import trio

PIECE_BYTES = 256 << 10
LOW_BYTES = 128 << 10
"""With less free on the disk a piece is given."""
LEAST_BYTES, MOST_BYTES, FRACTION = 2 << 20, 32 << 20, 64
"""How large it is: a part of the vault, within limits.  A removed name takes about 300 bytes of it, for a while."""
SPARE_BYTES = 16 << 20
"""So much must be free beside it before it is made."""
LOOK_S = 0.01
"""How often the disk is asked at most; that takes a microsecond."""
AGAIN_S = 5.0


class Ballast:
    """One such file.  The owner's only; what is not `async` does not wait, but for a system call."""

    def __init__(self, path: Path, capacity_bytes: int) -> None:
        """Find what there is of it; nothing is made yet."""
        self._path = path
        self.full_bytes = max(LEAST_BYTES, min(MOST_BYTES, capacity_bytes // FRACTION))
        self.size_bytes = _length(path)
        self._next_look_s = 0.0

    def look(self) -> None:
        """Give a piece if the disk is full: to be called before something small is written."""
        now_s = time.monotonic()
        if now_s < self._next_look_s or not self.size_bytes:
            return
        self._next_look_s = now_s + LOOK_S
        if _free_bytes(self._path.parent) < LOW_BYTES:
            self._shorten(self.size_bytes - PIECE_BYTES)

    def give_all(self) -> bool:
        """Give what is left; return whether that was something."""
        had = self.size_bytes
        self._shorten(0)
        return had > 0

    def make(self) -> None:
        """Make it whole again if there is room for it; nothing happens if the disk refuses."""
        missing_bytes = self.full_bytes - self.size_bytes
        if missing_bytes <= 0 or _free_bytes(self._path.parent) < missing_bytes + SPARE_BYTES:
            return
        with suppress(OSError):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self.full_bytes)
            finally:
                os.close(descriptor)
                self.size_bytes = _length(self._path)

    async def keep(self) -> None:
        """Make it again whenever there is room, until cancelled."""
        while True:
            self.make()
            await trio.sleep(AGAIN_S)

    def _shorten(self, size_bytes: int) -> None:
        self.size_bytes = max(0, size_bytes)
        with suppress(OSError):
            os.truncate(self._path, self.size_bytes)


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _free_bytes(path: Path) -> int:
    disk = os.statvfs(path)
    # Not what is free to root: ext4 counts in that what it never gives to anybody.
    return disk.f_bavail * disk.f_frsize
