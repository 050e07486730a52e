"""End a mount without losing what the kernel has not written yet.

With the writeback cache an open file may have dirty pages that we have never seen.  Whatever ends the session before
they are written loses them, so the kernel is made to unmount, which writes them, while we still serve.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import trio

from tvfs.errors import TaskVaultError
from tvfs.fuse.helper_process import HelperResult, run_helper
from tvfs.fuse.holders import Holder, holders_of
from tvfs.fuse.mount_table import mounts_at, without_touching
from tvfs.fuse.settings import FLUSH_TIMEOUT_S

_NAMED_HOLDERS_MAX = 5
# The descriptor keeps the mount within reach after it has left the tree; what was written meanwhile is flushed too.
_DETACH_AND_FLUSH = 'exec 9<"$1" && sync -f "$1"; {detach} "$1"; status=$?; sync -f /proc/self/fd/9; exit $status'


class MountHeld(TaskVaultError):
    """Processes still use the mount."""

    def __init__(self, point: str, holders: Sequence[Holder]) -> None:
        self.point = point
        self.holders = tuple(holders)
        named = ", ".join(map(str, self.holders[:_NAMED_HOLDERS_MAX])) or "a process that cannot be seen from here"
        more = len(self.holders) - _NAMED_HOLDERS_MAX
        super().__init__(
            f"{point} is in use by {named}{f' and {more} more' if more > 0 else ''}; "
            "let them finish or leave the directory, then try again (`tv down --force` does not wait for them)."
        )


class UnmountFailed(TaskVaultError):
    """The kernel did not unmount, for a reason other than users of the mount."""

    def __init__(self, point: str, reason: str) -> None:
        self.point = point
        super().__init__(f"{point} could not be unmounted: {reason}; try again, or `umount -l {point}`.")


async def unmount(point: str, *, force: bool = False, timeout_s: float = FLUSH_TIMEOUT_S) -> None:
    """Have the kernel write its dirty pages and unmount; call while requests are still served.

    Raises `MountHeld` if somebody uses the mount.  With `force` the pages are written all the same and the mount leaves
    the tree; files that are still open work until the session ends.  Nothing mounted is no error.
    """
    point = without_touching(point)
    if not mounts_at(point):
        return
    result = await run_helper(_UMOUNT[_is_root()] + [point], timeout_s=timeout_s)
    if not mounts_at(point):
        return
    if force:
        result = await _detach_flushed(point, timeout_s)
        if mounts_at(point):
            raise UnmountFailed(point, result.message)
        return
    if "busy" in result.message:
        raise MountHeld(point, await trio.to_thread.run_sync(holders_of, point))
    raise UnmountFailed(point, result.message)


_UMOUNT = {True: ["umount", "--internal-only", "--no-canonicalize"], False: ["fusermount3", "-u"]}
_DETACH = {True: "umount --internal-only --no-canonicalize --lazy", False: "fusermount3 -u -z"}


def _is_root() -> bool:
    return os.geteuid() == 0


async def _detach_flushed(point: str, timeout_s: float) -> HelperResult:
    script = _DETACH_AND_FLUSH.format(detach=_DETACH[_is_root()])
    return await run_helper(["sh", "-c", script, "sh", point], timeout_s=timeout_s)
