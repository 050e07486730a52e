"""Room for what the filesystem writes: in the vault, and on the disk below it.

On the disk some room stays free, so that a full one can be emptied.  Removing a file takes a row in the catalog's log;
if staged bytes had the last block of the disk, nothing could be removed any more, and the daemon could not even start
again.
"""

from __future__ import annotations

import os
from pathlib import Path

from tvfs.vault.reservations import Reservations
from tvfs.vault.room import Room

KEPT_MAX_BYTES = 32 << 20
_KEPT_FRACTION = 16
_PLENTY_OF_PACKS = 4
_RECORDS_FRACTION = 16
_RECORDS_BYTES = 64 << 10
_NAMES_FRACTION = 2
"""New names may take half of what is kept: after them there is still room to remove things."""


class DiskRoom:
    """Asks the disk each time, which takes a microsecond: others write to it too."""

    def __init__(self, path: Path, room: Room) -> None:
        self._path = path
        self._room = room

    def for_bytes(self) -> int:
        """How much more may be written at once; negative if the disk is fuller than that already."""
        return min(self._room.free_bytes(), self.on_disk())

    def for_sealing(self) -> int:
        """How much may be copied into packs before the staging files of it are removed.

        Where there is little room, what fits into the one pack that is kept for those who make some.
        """
        reservations = self._room.reservations
        room_bytes = min(reservations.free_bytes, self.on_disk())
        if not has_plenty(reservations):
            room_bytes = min(reservations.free_with_kept_bytes, reservations.pack_bytes, self.on_disk())
        return room_bytes - with_records(room_bytes) + room_bytes

    @property
    def pack_bytes(self) -> int:
        """How long a pack is."""
        return self._room.reservations.pack_bytes

    def on_disk(self) -> int:
        """How much more may be written to the disk, whatever the vault has room for."""
        free_bytes, kept_bytes = self._look()
        return free_bytes - kept_bytes

    def for_names(self, size_bytes: int = 0) -> bool:
        """Whether names, or other rows of so many bytes, may be added."""
        free_bytes, kept_bytes = self._look()
        return free_bytes >= kept_bytes // _NAMES_FRACTION and self._room.admits_names(size_bytes)

    def for_moves(self) -> bool:
        """Whether names may change places: some longer than names may be added, since it is how things are tidied."""
        free_bytes, kept_bytes = self._look()
        return free_bytes >= kept_bytes // _NAMES_FRACTION and self._room.reservations.admits_moves

    def _look(self) -> tuple[int, int]:
        disk = os.statvfs(self._path)
        kept_bytes = min(KEPT_MAX_BYTES, disk.f_blocks * disk.f_frsize // _KEPT_FRACTION)
        return disk.f_bavail * disk.f_frsize, kept_bytes


def has_plenty(reservations: Reservations) -> bool:
    """Whether whole packs may be reserved, and kept, for what may be little."""
    return reservations.free_bytes >= _PLENTY_OF_PACKS * reservations.pack_bytes


def with_records(size_bytes: int) -> int:
    """Return what contents of so many bytes take in packs at most: with a header for each record."""
    return size_bytes + size_bytes // _RECORDS_FRACTION + _RECORDS_BYTES
