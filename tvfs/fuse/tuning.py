"""Raise the kernel's limits for one mount, where the operator's rights allow it: faster with, right without."""

from __future__ import annotations

import os

import structlog

from tvfs.fuse.helper_process import run_helper
from tvfs.fuse.mount_table import MountEntry

_log = structlog.get_logger()
_TIMEOUT_S = 5.0
_CONNECTIONS = "/sys/fs/fuse/connections"
# In a mount namespace of its own, so that mounting fusectl where nobody has leaves nothing behind.
_SET = f"""
echo "$2" >"/sys/class/bdi/$1/read_ahead_kb" || exit 1
test -e "{_CONNECTIONS}/$3" || mount -t fusectl none {_CONNECTIONS} || exit 1
echo "$4" >"{_CONNECTIONS}/$3/max_background" && echo "$5" >"{_CONNECTIONS}/$3/congestion_threshold"
"""


async def tune(mount: MountEntry, *, read_ahead_kib: int, max_background: int) -> None:
    """Set read-ahead and queued background requests; call after the session's handshake, which sets them too."""
    if os.geteuid() != 0:
        return
    values = [
        mount.device,
        str(read_ahead_kib),
        mount.fuse_connection,
        str(max_background),
        str(max_background * 3 // 4),
    ]
    result = await run_helper(["unshare", "--mount", "sh", "-c", _SET, "sh", *values], timeout_s=_TIMEOUT_S)
    if result.status != 0:
        _log.info("kernel limits of the mount not raised", reason=result.message)
