"""Mount a filesystem and serve it until it is unmounted.

Cancelling `serve` is an orderly end: the kernel is made to write its dirty pages and to unmount while requests are
still answered.  pyfuse3 has one mount per process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyfuse3
import structlog
import trio

from tvfs.filesystem.lookups import LookupCounts
from tvfs.fuse.intake import quick_intake
from tvfs.fuse.mount_point import FuseUnavailable, check_fuse_available, mount_source, prepare_mount_point
from tvfs.fuse.mount_table import mounts_at
from tvfs.fuse.operations import FilesystemOperations
from tvfs.fuse.served_filesystem import ServedFilesystem
from tvfs.fuse.stall_guard import StallGuard
from tvfs.fuse.tuning import tune
from tvfs.fuse.unmount import FLUSH_TIMEOUT_S, UnmountFailed, unmount

_log = structlog.get_logger()
_SESSION_END_TIMEOUT_S = 1.0
"""How long after the unmount the session may last: files that are still open prolong it, or another mount namespace."""


@dataclass(frozen=True, slots=True)
class MountSettings:
    """How a vault is mounted."""

    vault: str
    """Name of the vault, in the mount table as `taskvault:<vault>`: tells our dead mounts from foreign ones."""
    read_ahead_kib: int = 4096
    """How much the kernel reads ahead of a sequential reader; its own 128 makes eight times as many requests.

    A request is 1 MiB at most: with four the kernel asks for the next while one is decoded, and a file of 1 MiB takes
    two requests instead of three.  Set only as root.
    """
    max_background: int = 64
    """Requests that the kernel may have waiting without a process waiting; its default is 12.  Set only as root."""
    max_tasks: int = 24
    """Requests served at a time.  Each task keeps a buffer of 1 MiB: the owner's memory budget has 32 MiB for them."""
    xattrs: bool = False
    """Whether files have extended attributes.  Costs one round trip for each `write` system call."""
    suid_and_devices: bool = False
    """Whether set-user-id bits and device files work."""
    allow_other: bool | None = None
    """Whether other users may enter; None: if root mounts, or /etc/fuse.conf has `user_allow_other`."""
    flush_timeout_s: float = FLUSH_TIMEOUT_S
    """How long the kernel may take to write its dirty pages when the mount ends."""


@dataclass(frozen=True, slots=True)
class Mounted:
    """What `serve` reports when the mount answers."""

    point: str
    """Absolute path of the mount point."""
    operations: FilesystemOperations
    """`counts` in it has the number of requests of each kind."""


async def serve(
    filesystem: ServedFilesystem,
    lookups: LookupCounts,
    mount_point: str | os.PathLike[str],
    settings: MountSettings,
    *,
    task_status: trio.TaskStatus[Mounted] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Mount and serve until unmounted, by `unmount` or by anyone; cancelling unmounts with force.

    `lookups` must be the filesystem's own.  Raises `FuseUnavailable`, `MountPointBusy`, `MountPointInvalid`,
    `MountPointNotEmpty` before anything is mounted.  Main thread only (see `StallGuard`).
    """
    check_fuse_available()
    source = mount_source(settings.vault)
    point = await prepare_mount_point(os.fspath(mount_point), source)
    operations = _Announcing(filesystem, lookups, xattrs=settings.xattrs)
    ended = trio.Event()
    try:
        with quick_intake(), _session(operations, point, _options(settings, source)), StallGuard():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_unmount_when_cancelled, point, ended, settings)
                nursery.start_soon(_announce, Mounted(point, operations), operations.initialised, settings, task_status)
                # Cancelled handlers would leave the kernel without answers: only the end of the session ends them.
                try:
                    with trio.CancelScope(shield=True):
                        await pyfuse3.main(max_tasks=settings.max_tasks)
                finally:
                    ended.set()
                    nursery.cancel_scope.cancel()
    finally:
        for ino in lookups.clear():
            filesystem.forgotten(ino)


class _Announcing(FilesystemOperations):
    """Tells when the kernel has shaken hands: only then do its tunables stay as they are set."""

    def __init__(self, filesystem: ServedFilesystem, lookups: LookupCounts, *, xattrs: bool) -> None:
        super().__init__(filesystem, lookups, xattrs=xattrs)
        self.initialised = trio.Event()

    def init(self) -> None:
        self.initialised.set()


async def _announce(
    mounted: Mounted, initialised: trio.Event, settings: MountSettings, task_status: trio.TaskStatus[Mounted]
) -> None:
    await initialised.wait()
    for mount in mounts_at(mounted.point)[-1:]:
        await tune(mount, read_ahead_kib=settings.read_ahead_kib, max_background=settings.max_background)
    task_status.started(mounted)


async def _unmount_when_cancelled(point: str, ended: trio.Event, settings: MountSettings) -> None:
    try:
        await trio.sleep_forever()
    finally:
        if not ended.is_set():
            with trio.CancelScope(shield=True):
                await _end(point, ended, settings)


async def _end(point: str, ended: trio.Event, settings: MountSettings) -> None:
    try:
        await unmount(point, force=True, timeout_s=settings.flush_timeout_s)
    except UnmountFailed as exc:
        _log.warning("the mount is ended without the kernel's help", reason=str(exc))
    with trio.move_on_after(_SESSION_END_TIMEOUT_S):
        await ended.wait()
    if not ended.is_set():
        pyfuse3.terminate()


@contextmanager
def _session(operations: FilesystemOperations, point: str, options: set[str]) -> Iterator[None]:
    try:
        pyfuse3.init(operations, point, options)
    except RuntimeError as exc:
        raise FuseUnavailable(f"mounting at {point} was refused ({exc}; the reason is on stderr)") from exc
    ours = {mount.device for mount in mounts_at(point)[-1:]}
    try:
        yield
    finally:
        # Unmounted by its path only if it is still there: something else may be mounted there by now.
        pyfuse3.close(unmount=any(mount.device in ours for mount in mounts_at(point)))


def _options(settings: MountSettings, source: str) -> set[str]:
    options = {"default_permissions", f"fsname={source}", "subtype=taskvault"}
    allowed = os.geteuid() == 0 or _user_allow_other()
    if allowed if settings.allow_other is None else settings.allow_other:
        options.add("allow_other")
    if settings.suid_and_devices:
        options |= {"suid", "dev"}
    return options


def _user_allow_other() -> bool:
    with suppress(OSError):
        return "user_allow_other" in map(str.strip, Path("/etc/fuse.conf").read_text().splitlines())
    return False
