"""Mount a filesystem and serve it until it is unmounted, through one transport or another.

Cancelling `serve` is an orderly end: the kernel is made to write its dirty pages and to unmount while requests are
still answered.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import structlog
import trio

from tvfs.filesystem.lookups import LookupCounts
from tvfs.fuse.mount_point import check_fuse_available, detach, mount_source, prepare_mount_point
from tvfs.fuse.mount_table import mounts_at
from tvfs.fuse.served_filesystem import ServedFilesystem
from tvfs.fuse.settings import MountSettings
from tvfs.fuse.transport import Transport
from tvfs.fuse.tuning import tune
from tvfs.fuse.unmount import UnmountFailed, unmount

_log = structlog.get_logger()
_SESSION_END_TIMEOUT_S = 1.0
"""How long after the unmount the session may last: files that are still open prolong it, or another mount namespace."""


@dataclass(frozen=True, slots=True)
class Mounted:
    """What `serve` reports when the mount answers."""

    point: str
    """Absolute path of the mount point."""
    transport: Transport
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
    `MountPointNotEmpty` before anything is mounted.  Main thread only, one at a time.
    """
    check_fuse_available()
    source = mount_source(settings.vault)
    point = await prepare_mount_point(os.fspath(mount_point), source)
    transport = _transport(filesystem, lookups, settings)
    try:
        # Not interrupted: a mount that nobody serves would be left.
        with trio.CancelScope(shield=True):
            await transport.mount(point, source)
        ours = {mount.device for mount in mounts_at(point)[-1:]}
        try:
            await _serve(transport, point, settings, task_status)
        finally:
            # Unmounted by its path only if it is still there: something else may be mounted there by now.
            transport.close(unmount=_is_mounted(point, ours))
            if _is_mounted(point, ours):
                with trio.CancelScope(shield=True):
                    await detach(point)
    finally:
        for ino in lookups.clear():
            filesystem.forgotten(ino)


def _transport(filesystem: ServedFilesystem, lookups: LookupCounts, settings: MountSettings) -> Transport:
    # Imported here, so that neither needs what only the other does: libfuse, or a Linux of the last years.
    if settings.transport == "kernel":
        from tvfs.fuse.kernel.session import KernelTransport

        return KernelTransport(filesystem, lookups, settings)
    from tvfs.fuse.pyfuse3_session import Pyfuse3Transport

    return Pyfuse3Transport(filesystem, lookups, settings)


def _is_mounted(point: str, devices: set[str]) -> bool:
    return any(mount.device in devices for mount in mounts_at(point))


async def _serve(
    transport: Transport, point: str, settings: MountSettings, task_status: trio.TaskStatus[Mounted]
) -> None:
    ended = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_unmount_when_cancelled, transport, point, ended, settings)
        nursery.start_soon(_announce, Mounted(point, transport), settings, task_status)
        # Cancelled handlers would leave the kernel without answers: only the end of the session ends them.
        try:
            with trio.CancelScope(shield=True):
                await transport.serve()
        finally:
            ended.set()
            nursery.cancel_scope.cancel()


async def _announce(mounted: Mounted, settings: MountSettings, task_status: trio.TaskStatus[Mounted]) -> None:
    await mounted.transport.initialised.wait()
    for mount in mounts_at(mounted.point)[-1:]:
        await tune(mount, read_ahead_kib=settings.read_ahead_kib, max_background=settings.max_background)
    task_status.started(mounted)


async def _unmount_when_cancelled(transport: Transport, point: str, ended: trio.Event, settings: MountSettings) -> None:
    try:
        await trio.sleep_forever()
    finally:
        if not ended.is_set():
            with trio.CancelScope(shield=True):
                await _end(transport, point, ended, settings)


async def _end(transport: Transport, point: str, ended: trio.Event, settings: MountSettings) -> None:
    try:
        await unmount(point, force=True, timeout_s=settings.flush_timeout_s)
    except UnmountFailed as exc:
        _log.warning("the mount is ended without the kernel's help", reason=str(exc))
    with trio.move_on_after(_SESSION_END_TIMEOUT_S):
        await ended.wait()
    if not ended.is_set():
        transport.stop()
