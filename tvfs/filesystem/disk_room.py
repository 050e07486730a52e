"""Room that stays free on the disk below the vault, so that a full one can be emptied.

Removing a file takes a row in the catalog's log.  If staged bytes had the last block of the disk, nothing could be
removed any more, and the daemon could not even start again.
"""

from __future__ import annotations

import os
from pathlib import Path

KEPT_MAX_BYTES = 32 << 20
_KEPT_FRACTION = 16
_NAMES_FRACTION = 2
"""New names may take half of what is kept: after them there is still room to remove things."""


class DiskRoom:
    """Asks the disk each time, which takes a microsecond: others write to it too."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def for_bytes(self) -> int:
        """How much more may be written; negative if the disk is fuller than that already."""
        free_bytes, kept_bytes = self._look()
        return free_bytes - kept_bytes

    def for_names(self) -> bool:
        """Whether names may be added."""
        free_bytes, kept_bytes = self._look()
        return free_bytes >= kept_bytes // _NAMES_FRACTION

    def _look(self) -> tuple[int, int]:
        disk = os.statvfs(self._path)
        kept_bytes = min(KEPT_MAX_BYTES, disk.f_blocks * disk.f_frsize // _KEPT_FRACTION)
        return disk.f_bavail * disk.f_frsize, kept_bytes
