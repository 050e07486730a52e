"""When what was seen of a file or directory may be remembered: as long as its identity says that it is the same.

A file system stamps a change with a clock that ticks every few milliseconds, and what is written through a mapping only
when its pages have been written back since.  So what has changed just now may change again without a trace, and is
looked at anew each time.  And only file systems are believed whose times are this machine's own.
"""

from __future__ import annotations

import os
from functools import cache

TICK_NS = 2_100_000_000
"""Names in a directory are not mapped: two seconds are the longest tick of any file system here."""

FILES_OF = frozenset({
    "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "bcachefs", "overlay", "erofs", "squashfs", "iso9660",
    "fuse.taskvault",
})  # fmt: skip
"""File systems of which the content of files may be remembered.  Not tmpfs: it never writes pages back."""

DIRECTORIES_OF = FILES_OF - {"fuse.taskvault"} | {"tmpfs"}
"""The same for the names in a directory.  Not our mount, parts of which are made up when they are looked at."""

_NEVER_NS = 1 << 62


@cache
def mapped_ns() -> int:
    """Return how old the last change of a file must be: what is mapped may be written to that long without a trace.

    Twice the time after which the kernel has written pages back; a minute unless it is told to take longer.
    """
    try:
        expire, interval = (_number(f"/proc/sys/vm/dirty_{name}_centisecs") for name in ("expire", "writeback"))
    except (OSError, ValueError):
        return _NEVER_NS
    return max(60_000_000_000, 2 * (expire + interval) * 10_000_000) if interval else _NEVER_NS


class FileSystems:
    """Which file systems there are, by device; those of one mount namespace, as long as nothing is mounted."""

    def __init__(self) -> None:
        self._kinds: dict[int, str] = {}

    def kind(self, device: int, place: bytes) -> str:
        """Return the kind of file system that a path on the device is on; empty if that cannot be known."""
        found = self._kinds.get(device)
        if found is None:
            try:
                found = self._kinds[device] = _kind_at(os.path.realpath(place))
            except OSError:
                return ""
        return found


def _kind_at(place: bytes) -> str:
    """Return the kind of the mount with the longest path above a place: the last one of several at the same place."""
    longest, found = b"", ""
    with open("/proc/self/mountinfo", "rb") as table:
        for line in table:
            fields, _, rest = line.partition(b" - ")
            mount = fields.split()[4].decode("unicode_escape").encode("latin-1")
            if (place == mount or place.startswith(mount.rstrip(b"/") + b"/")) and len(mount) >= len(longest):
                longest, found = mount, rest.split()[0].decode()
    return found


def _number(place: str) -> int:
    with open(place, encoding="ascii") as file:
        return int(file.read())
