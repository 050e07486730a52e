"""The mount, as the owner starts and ends it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import trio

from tvd.config import MountConfig
from tvfs.filesystem.lookups import LookupCounts
from tvfs.fuse.hand_over import HandOver
from tvfs.fuse.mount import Mounted, serve
from tvfs.fuse.mount_point import detach, mount_source
from tvfs.fuse.mount_table import mounts_at
from tvfs.fuse.served_filesystem import ServedFilesystem
from tvfs.fuse.settings import MountSettings
from tvfs.fuse.transport import Transport
from tvfs.fuse.unmount import unmount


class FuseMount:
    """One mount point; see `tvfs.fuse.mount`."""

    def __init__(
        self,
        filesystem: ServedFilesystem,
        lookups: LookupCounts,
        point: Path,
        *,
        home: Path,
        config: MountConfig,
        hand_over: HandOver | None = None,
    ) -> None:
        self._filesystem = filesystem
        self._lookups = lookups
        self._point = str(point)
        self._transport: Transport | None = None
        self._device: int | None = None
        self._flush_timeout_s = config.unmount_timeout_s
        self._settings = mount_settings(home, config)
        self._hand_over = hand_over

    async def serve(self, *, task_status: trio.TaskStatus[Mounted]) -> None:
        """Mount, report when it answers, and serve until it is unmounted; cancelling flushes first."""
        noted = _Noted(self._use, task_status)
        await serve(
            self._filesystem, self._lookups, self._point, self._settings, hand_over=self._hand_over, task_status=noted
        )

    def name_removed(self, parent: int, name: bytes, ino: int) -> None:
        """Tell the kernel that the owner removed a name by itself; returns at once."""
        if self._transport is not None:
            self._transport.name_removed(parent, name, ino)

    def listing_changed(self, ino: int) -> None:
        """Tell the kernel that the owner added a name to a directory; returns at once."""
        if self._transport is not None:
            self._transport.listing_changed(ino)

    def device(self) -> int | None:
        """Return the number of the file system, which nothing else has that is mounted anywhere; None without it."""
        return self._device

    async def unmount(self, *, force: bool) -> None:
        """Make the kernel flush and let go, while `serve` goes on; raise `MountHeld` if it is in use and not forced."""
        await unmount(self._point, force=force, timeout_s=self._flush_timeout_s)

    async def detach(self) -> None:
        """Let go at once, flushed or not."""
        await detach(self._point)

    def _use(self, mounted: Mounted) -> None:
        self._transport = mounted.transport
        # Once: the table may be long.
        for entry in mounts_at(self._point)[-1:]:
            if entry.source == mount_source(self._settings.vault):
                major, minor = map(int, entry.device.split(":"))
                self._device = os.makedev(major, minor)


def mount_settings(home: Path, config: MountConfig) -> MountSettings:
    """Return how the vault is mounted."""
    return MountSettings(
        # What a dead mount is known by when the daemon is started again.
        vault=str(home),
        transport=config.transport,
        passthrough=config.passthrough,
        read_ahead_kib=config.read_ahead_kib,
        xattrs=config.xattrs,
        allow_other=True if config.allow_other else None,
        flush_timeout_s=config.unmount_timeout_s,
    )


class _Noted:
    """Passes on that the mount answers, and notes by which transport."""

    def __init__(self, note: Callable[[Mounted], None], task_status: trio.TaskStatus[Mounted]) -> None:
        self._note = note
        self._task_status = task_status

    def started(self, value: Mounted | None = None) -> None:
        assert value is not None, "the mount says what it is"
        self._note(value)
        self._task_status.started(value)
