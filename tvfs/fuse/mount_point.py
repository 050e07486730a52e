"""Make sure that a mount point can be mounted on, before anything is.

The kernel would mount over anything: over files, which disappear, and over a dead mount, which stays below.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from enum import Enum
from urllib.parse import quote

from tvfs.errors import TaskVaultError
from tvfs.fuse.helper_process import run_helper
from tvfs.fuse.mount_table import MountEntry, mounts_at, without_touching

SOURCE_PREFIX = "taskvault:"
"""How our mounts are known in the mount table: followed by the vault's name."""
PROBE_TIMEOUT_S = 3.0
_STACKED_MAX = 16
# Prints nothing; the exit status is the errno of looking into the mount, 0 if it answers.
_PROBE = "import os, sys\ntry: os.statvfs(sys.argv[1])\nexcept OSError as exc: sys.exit(exc.errno)"


class MountPointInvalid(TaskVaultError):
    """The mount point is no directory, or cannot be made one."""

    def __init__(self, point: str, reason: str) -> None:
        self.point = point
        super().__init__(f"{point} cannot be a mount point: {reason}; name an empty directory (`tv up --mount DIR`).")


class MountPointNotEmpty(TaskVaultError):
    """There are files in the directory; mounting would hide them."""

    def __init__(self, point: str, example: str) -> None:
        self.point = point
        super().__init__(
            f"{point} is not empty (it has {example!r}), and mounting would hide what is in it; "
            "move it away or name an empty directory (`tv up --mount DIR`)."
        )


class MountPointBusy(TaskVaultError):
    """Something is mounted there that is not ours to replace."""

    def __init__(self, point: str, source: str, state: str) -> None:
        self.point = point
        self.source = source
        super().__init__(
            f"{source} is mounted at {point} and {state}; unmount it (`umount {point}`) or name another directory "
            "(`tv up --mount DIR`)."
        )


class FuseUnavailable(TaskVaultError):
    """This machine or container does not let us mount."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"FUSE cannot be used here: {reason}.  In a container pass --device /dev/fuse and --cap-add SYS_ADMIN; "
            "on a machine `modprobe fuse` and install fuse3.  Everything but the mount works with `tv up --no-mount`."
        )


def mount_source(vault: str) -> str:
    """Return the source that a vault's mounts carry in the mount table: ASCII, without commas or spaces."""
    return SOURCE_PREFIX + quote(os.fsencode(vault), safe="/")


async def prepare_mount_point(path: str, source: str) -> str:
    """Return the absolute path of an empty directory with nothing mounted on it.

    A missing directory is made.  A mount of ours (`source`) whose daemon has died is taken away.  Raises
    `MountPointBusy`, `MountPointNotEmpty`, `MountPointInvalid`.
    """
    point = without_touching(path)
    for _ in range(_STACKED_MAX):
        mounted = mounts_at(point)
        if not mounted:
            _claim_directory(point)
            return point
        await _take_away(mounted[-1], source)
    raise MountPointBusy(point, source, "does not go away")


async def _take_away(mount: MountEntry, source: str) -> None:
    ours = mount.type.startswith("fuse") and mount.source == source
    state = await _probe(mount.point)
    if state is not MountState.DEAD or not ours:
        raise MountPointBusy(mount.point, mount.source, state.value)
    await detach(mount.point)


class MountState(Enum):
    """Whether a mount answers."""

    ALIVE = "is in use"
    DEAD = "its daemon has died"
    SILENT = "does not answer"


async def _probe(point: str) -> MountState:
    # In a child, because the answer may never come.
    result = await run_helper([sys.executable, "-I", "-S", "-c", _PROBE, point], timeout_s=PROBE_TIMEOUT_S)
    if result.status is None:
        return MountState.SILENT
    return MountState.DEAD if result.status in {errno.ENOTCONN, errno.ECONNABORTED} else MountState.ALIVE


async def detach(point: str) -> None:
    """Take a mount out of the tree at once; what is open on it stays open."""
    point = without_touching(point)
    if os.geteuid() == 0:
        command = ["umount", "--internal-only", "--no-canonicalize", "--lazy", point]
    else:
        command = ["fusermount3", "-u", "-z", point]
    result = await run_helper(command, timeout_s=PROBE_TIMEOUT_S)
    if result.status != 0 and mounts_at(point):
        raise MountPointBusy(point, mounts_at(point)[-1].source, f"cannot be taken away ({result.message})")


def _claim_directory(point: str) -> None:
    try:
        os.makedirs(point, exist_ok=True)
        if not stat.S_ISDIR(os.lstat(point).st_mode):
            raise MountPointInvalid(point, "it is no directory")
        with os.scandir(point) as listed:
            first = next(listed, None)
    except OSError as exc:
        raise MountPointInvalid(point, "it is no directory" if exc.errno == errno.EEXIST else str(exc)) from exc
    if first is not None:
        raise MountPointNotEmpty(point, first.name)


def check_fuse_available() -> None:
    """Raise `FuseUnavailable` if /dev/fuse cannot be opened."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as exc:
        raise FuseUnavailable(str(exc)) from exc
