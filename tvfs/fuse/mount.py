"""Mount a filesystem and serve it until it is unmounted, through one transport or another.

Cancelling `serve` is an orderly end: the kernel is made to write its dirty pages and to unmount while requests are
still answered.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
import trio

from tvfs.filesystem.lookups import LookupCounts
from tvfs.filesystem.session_record import SessionRecord
from tvfs.fuse.hand_over import HandOver
from tvfs.fuse.mount_point import check_fuse_available, detach, mount_source, prepare_mount_point
from tvfs.fuse.mount_table import mounts_at, without_touching
from tvfs.fuse.served_filesystem import ServedFilesystem
from tvfs.fuse.settings import MountSettings
from tvfs.fuse.transport import Transport
from tvfs.fuse.tuning import tune
from tvfs.fuse.unmount import UnmountFailed, unmount

_log = structlog.get_logger()
_SESSION_END_TIMEOUT_S = 1.0
"""How long after the unmount the session may last: files that are still open prolong it, or another mount namespace."""
_BEGUN_TIMEOUT_S = 10.0
"""How long requests that were begun hold a hand-over up."""


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
    hand_over: HandOver | None = None,
    task_status: trio.TaskStatus[Mounted] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Mount and serve until unmounted, by `unmount` or by anyone; cancelling unmounts with force.

    `lookups` must be the filesystem's own.  With `hand_over` a session that was inherited, and checked, is served on
    instead; and cancelling leaves the mount to the next daemon if that is asked for.  Raises `FuseUnavailable`,
    `MountPointBusy`, `MountPointInvalid`, `MountPointNotEmpty` before anything is mounted.  Main thread only, one at a
    time.
    """
    check_fuse_available()
    source = mount_source(settings.vault)
    transport = _transport(filesystem, lookups, settings, hand_over)
    point = await _begin(transport, os.fspath(mount_point), source, hand_over)
    ours = {mount.device for mount in mounts_at(point)[-1:]}
    try:
        await _serve(transport, point, settings, hand_over, task_status)
    finally:
        if hand_over is not None and hand_over.asked and _is_mounted(point, ours):
            transport.close(unmount=False)
            hand_over.done = True
        else:
            await _finish(transport, point, ours)
            if hand_over is not None:
                hand_over.ended()
            for ino in lookups.clear():
                filesystem.forgotten(ino)


async def _begin(transport: Transport, mount_point: str, source: str, hand_over: HandOver | None) -> str:
    if hand_over is not None and hand_over.inherited is not None:
        from tvfs.fuse.kernel.session import KernelTransport

        assert isinstance(transport, KernelTransport), "no other can, as was checked"
        transport.resume(hand_over)
        return without_touching(mount_point)
    point = await prepare_mount_point(mount_point, source)
    # Not interrupted: a mount that nobody serves would be left.
    with trio.CancelScope(shield=True):
        await transport.mount(point, source)
    return point


async def _finish(transport: Transport, point: str, ours: set[str]) -> None:
    # Unmounted by its path only if it is still there: something else may be mounted there by now.
    transport.close(unmount=_is_mounted(point, ours))
    if _is_mounted(point, ours):
        with trio.CancelScope(shield=True):
            await detach(point)


def _transport(
    filesystem: ServedFilesystem, lookups: LookupCounts, settings: MountSettings, hand_over: HandOver | None
) -> Transport:
    # Imported here, so that neither needs what only the other does: libfuse, or a Linux of the last years.
    if settings.transport == "kernel":
        from tvfs.fuse.kernel.session import KernelTransport

        return KernelTransport(filesystem, lookups, settings, hand_over)
    from tvfs.fuse.pyfuse3_session import Pyfuse3Transport

    return Pyfuse3Transport(filesystem, lookups, settings)


def _is_mounted(point: str, devices: set[str]) -> bool:
    return any(mount.device in devices for mount in mounts_at(point))


async def _serve(
    transport: Transport,
    point: str,
    settings: MountSettings,
    hand_over: HandOver | None,
    task_status: trio.TaskStatus[Mounted],
) -> None:
    ended, serving = trio.Event(), trio.CancelScope(shield=True)

    async def end() -> None:
        if hand_over is not None and hand_over.asked:
            await _leave(transport, ended, hand_over.record, serving)
        else:
            await _end(transport, point, ended, settings)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_when_cancelled, end, ended)
        nursery.start_soon(_announce, Mounted(point, transport), settings, task_status)
        # Cancelled handlers would leave the kernel without answers: only the end of the session ends them.
        try:
            with serving:
                await transport.serve()
        finally:
            ended.set()
            nursery.cancel_scope.cancel()


async def _announce(mounted: Mounted, settings: MountSettings, task_status: trio.TaskStatus[Mounted]) -> None:
    await mounted.transport.initialised.wait()
    for mount in mounts_at(mounted.point)[-1:]:
        await tune(mount, read_ahead_kib=settings.read_ahead_kib, max_background=settings.max_background)
    task_status.started(mounted)


async def _when_cancelled(end: Callable[[], Awaitable[None]], ended: trio.Event) -> None:
    try:
        await trio.sleep_forever()
    finally:
        if not ended.is_set():
            with trio.CancelScope(shield=True):
                await end()


async def _leave(transport: Transport, ended: trio.Event, record: SessionRecord, serving: trio.CancelScope) -> None:
    transport.stop()
    with trio.move_on_after(_BEGUN_TIMEOUT_S):
        await ended.wait()
        record.settle(True)
        return
    # Who has waited so long gets the answer from the next daemon: the kernel sends it the request again.
    serving.cancel()


async def _end(transport: Transport, point: str, ended: trio.Event, settings: MountSettings) -> None:
    try:
        await unmount(point, force=True, timeout_s=settings.flush_timeout_s)
    except UnmountFailed as exc:
        _log.warning("the mount is ended without the kernel's help", reason=str(exc))
    with trio.move_on_after(_SESSION_END_TIMEOUT_S):
        await ended.wait()
    if not ended.is_set():
        transport.stop()
