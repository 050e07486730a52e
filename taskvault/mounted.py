"""What a client does to the tree under the mount: the owner prepares, the client publishes by rename.

So permissions, the kernel's caches and inotify see an ordinary rename by the caller.  What was prepared and not
published goes to the trash with the connection.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from taskvault.client import Client
from taskvault.protocol.messages import Discard, PrepareAttach, PrepareTrash, SnapshotRef
from tvfs.errors import TaskVaultError

if TYPE_CHECKING:
    import ctypes

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2


class NotUnderMount(TaskVaultError):
    """The path does not lie under the mount of the vault."""

    def __init__(self, path: Path, mount: Path | None) -> None:
        where = f"under {mount}" if mount else "under the mount, and the daemon has none"
        super().__init__(f"{str(path)!r} is not {where}; this works only there.")
        self.path = path


class PathInTheWay(TaskVaultError):
    """Something is where a path should be put."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{str(path)!r} {reason}; nothing was changed.")
        self.path = path


@dataclass(frozen=True, slots=True)
class MountedTree:
    """The mount as a client sees it."""

    client: Client
    mount: Path
    """Absolute, symlinks resolved."""

    @classmethod
    def of(cls, client: Client) -> MountedTree | None:
        """Return the mount of the vault, or None if it has none."""
        mount = client.welcome.mount
        return None if mount is None else cls(client, Path(os.path.realpath(mount)))

    def holds(self, path: Path) -> bool:
        """Whether a path lies under the mount; its last part may be missing, or a symlink, which is not followed."""
        return resolved(path).is_relative_to(self.mount)

    def relative(self, path: Path) -> str:
        """Return the path below the mount, as messages write it; empty for the mount itself."""
        inside = str(resolved(path).relative_to(self.mount))
        return "" if inside == "." else inside

    @contextmanager
    def attached(self, snapshot: SnapshotRef, subpath: str = "") -> Iterator[Path]:
        """Yield the place of a freshly attached snapshot, to be renamed; what is left of it afterwards is discarded."""
        name = self.client.call(PrepareAttach(snapshot, subpath)).path
        try:
            yield self.mount / name
        finally:
            self._discard(name)

    def attach(self, snapshot: SnapshotRef, target: Path, subpath: str = "") -> None:
        """Give `target`, which must not exist, the content of a snapshot; raise `PathInTheWay`."""
        with self.attached(snapshot, subpath) as place:
            publish_new(place, target)

    def remove(self, path: Path) -> None:
        """Remove a path and everything below by one rename; the owner sweeps it in the background."""
        name = self.client.call(PrepareTrash()).path
        os.rename(path, self.mount / name)
        self._discard(name)

    def _discard(self, name: str) -> None:
        if os.path.lexists(self.mount / name):
            self.client.call(Discard(name))


def resolved(path: Path) -> Path:
    """Return an absolute path without symlinks, but for the last part, which is left as it is."""
    absolute = Path(os.path.abspath(path))
    return Path(os.path.realpath(absolute.parent)) / absolute.name


def publish_new(source: Path, target: Path) -> None:
    """Rename to a name that does not exist; raise `PathInTheWay` if it does, with nothing changed."""
    try:
        _renameat2(source, target, _RENAME_NOREPLACE)
    except FileExistsError:
        raise PathInTheWay(target, "exists already") from None


def exchange(one: str | Path, other: str | Path) -> None:
    """Swap two names in one step; each must exist."""
    _renameat2(one, other, _RENAME_EXCHANGE)


def merge(source: Path, target: Path) -> None:
    """Move everything below `source` to the same place below the directory `target`.

    What does not exist there is moved whole, by one rename; files replace files; directories that exist are merged.
    Raise `PathInTheWay`, before anything was moved, if a directory would have to replace a file or the reverse.
    """
    moves = list(_planned(source, target))
    for old, new in moves:
        os.rename(old, new)


def _planned(source: Path, target: Path) -> Iterator[tuple[Path, Path]]:
    with os.scandir(source) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
    for entry in listed:
        old, new = source / entry.name, target / entry.name
        mode = _mode(new)
        if mode is None:
            yield old, new
        elif entry.is_dir(follow_symlinks=False) and stat.S_ISDIR(mode):
            yield from _planned(old, new)
        elif entry.is_dir(follow_symlinks=False):
            raise PathInTheWay(new, "is there and is no directory, but a directory belongs there")
        elif stat.S_ISDIR(mode):
            raise PathInTheWay(new, "is a directory, but a file belongs there")
        else:
            yield old, new


def _mode(path: Path) -> int | None:
    with suppress(FileNotFoundError):
        return os.lstat(path).st_mode
    return None


@cache
def _libc() -> ctypes.CDLL:
    # Imported here: it costs more than everything else that `tv status` loads.
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _renameat2(source: str | Path, target: str | Path, flags: int) -> None:
    import ctypes

    if _libc().renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), ctypes.c_uint(flags)):
        code = ctypes.get_errno()
        if code == errno.EXDEV:
            raise OSError(code, "is not on the mount that the content was prepared on", str(target))
        raise OSError(code, os.strerror(code), str(source), None, str(target))
