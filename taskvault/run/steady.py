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

FILES_OF = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "bcachefs"})
"""File systems of which the content of files may be remembered.

Not tmpfs, which never writes pages back, and so no overlay, which may lie on one.  Not images that are only read: their
times are what whoever made them wrote.  Not our mount: what is mapped past us is stamped when nobody maps it any more.
"""

DIRECTORIES_OF = FILES_OF | {"tmpfs"}
"""The same for the names in a directory."""

_LOOP_DEVICES = 7
"""Another image may be there tomorrow, with the same numbers and times."""

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
                # Where a link itself lies, not what it leads to.
                parent, name = os.path.split(place)
                found = _kind_at(os.path.join(os.path.realpath(parent), name))
                found = self._kinds[device] = "" if os.major(device) == _LOOP_DEVICES else found
            except OSError:
                return ""
        return found


class UnknownFileSystems(FileSystems):
    """Nothing is known of any, and so nothing is remembered: where to ask for them is to be seen asking."""

    def kind(self, device: int, place: bytes) -> str:
        """Return nothing."""
        return ""


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
