"""What is mounted where, as /proc/self/mountinfo tells it; reading it touches no mounted filesystem."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MOUNTINFO = Path("/proc/self/mountinfo")
_DEVICE = re.compile(r"[0-9]{1,10}:[0-9]{1,10}", re.ASCII)
_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class MountEntry:
    """One mount."""

    device: str
    """`major:minor`, as in /sys/class/bdi."""
    point: str
    type: str
    source: str

    @property
    def fuse_connection(self) -> str:
        """Name of the directory in /sys/fs/fuse/connections."""
        major, minor = self.device.split(":")
        return str(int(major) << 20 | int(minor))


def mounts_at(point: str, table: str | None = None) -> list[MountEntry]:
    """Return what is mounted exactly at `point`, the visible one last."""
    return [entry for entry in _entries(table) if entry.point == point]


def mounts_of(device: str, table: str | None = None) -> list[MountEntry]:
    """Return where a filesystem is mounted."""
    return [entry for entry in _entries(table) if entry.device == device]


def without_touching(path: str) -> str:
    """Return the absolute path with symlinks resolved, except that a mount point at its end is never looked at.

    A mount point whose server hangs would block whoever looks.
    """
    for _ in range(40):
        parent, name = os.path.split(os.path.abspath(path))
        path = os.path.join(os.path.realpath(parent), name)
        if mounts_at(path) or not os.path.islink(path):
            return path
        path = os.path.join(os.path.dirname(path), os.readlink(path))
    return path


def _entries(table: str | None) -> Iterator[MountEntry]:
    text = _MOUNTINFO.read_text(errors="surrogateescape") if table is None else table
    return (entry for entry in map(_parse, text.splitlines()) if entry is not None)


def _parse(line: str) -> MountEntry | None:
    # 36 35 98:0 /root /point options [optional fields] - type source superoptions
    before, separator, after = line.partition(" - ")
    left, right = before.split(" "), after.split(" ")
    if not separator or len(left) < 5 or len(right) < 2 or not _DEVICE.fullmatch(left[2]):
        return None
    return MountEntry(device=left[2], point=_plain(left[4]), type=right[0], source=_plain(right[1]))


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)
