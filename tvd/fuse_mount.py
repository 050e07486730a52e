"""The mount, as the owner starts and ends it."""

from __future__ import annotations

from pathlib import Path

import trio

from tvd.config import MountConfig
from tvfs.filesystem.filesystem import Filesystem
from tvfs.filesystem.lookups import LookupCounts
from tvfs.fuse.mount import Mounted, MountSettings, serve
from tvfs.fuse.mount_point import detach
from tvfs.fuse.unmount import unmount


class FuseMount:
    """One mount point; see `tvfs.fuse.mount`."""

    def __init__(
        self, filesystem: Filesystem, lookups: LookupCounts, point: Path, *, home: Path, config: MountConfig
    ) -> None:
        self._filesystem = filesystem
        self._lookups = lookups
        self._point = str(point)
        self._flush_timeout_s = config.unmount_timeout_s
        self._settings = MountSettings(
            # What a dead mount is known by when the daemon is started again.
            vault=str(home),
            read_ahead_kib=config.read_ahead_kib,
            xattrs=config.xattrs,
            allow_other=True if config.allow_other else None,
            flush_timeout_s=config.unmount_timeout_s,
        )

    async def serve(self, *, task_status: trio.TaskStatus[Mounted]) -> None:
        """Mount, report when it answers, and serve until it is unmounted; cancelling flushes first."""
        await serve(self._filesystem, self._lookups, self._point, self._settings, task_status=task_status)

    async def unmount(self, *, force: bool) -> None:
        """Make the kernel flush and let go, while `serve` goes on; raise `MountHeld` if it is in use and not forced."""
        await unmount(self._point, force=force, timeout_s=self._flush_timeout_s)

    async def detach(self) -> None:
        """Let go at once, flushed or not."""
        await detach(self._point)
