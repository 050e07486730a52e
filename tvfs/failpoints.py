"""Named points in the commit order at which a test may stop the process.

In production `reach` is a dictionary look-up in an empty table.  A test arms a point in-process with `arm`, or in
another process through `TASKVAULT_FAILPOINTS="name=kill,other=enospc"`, which `tvd` reads once at start
(`tvd/config_file.py`) and passes to `arm_from`.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable

POINTS = (
    "commit.before_append",
    "commit.after_append",
    "commit.after_pack_sync",
    "commit.after_batch",
    "commit.after_wal_sync",
    "stage.before_file",
    "stage.after_file",
    "stage.write",
    "stage.before_map",
    "stage.after_map",
    "stage.after_truncate",
    "seal.append",
    "seal.after_commit",
    "seal.after_batch",
    "seal.before_unlink",
    "seal.after_unlink",
    "snapshot.after_seal",
    "snapshot.after_build",
    "entry.after_batch",
    "entry.after_wal",
    "request.changed",
    "request.opened",
    "notification.waits",
    "fsync.before_data",
    "fsync.after_file",
    "fsync.after_data",
    "fsync.after_batch",
    "fsync.after_wal",
    "collect.after_batch",
    "compact.after_copy",
    "compact.after_sync",
    "compact.after_rows",
    "compact.after_wal",
    "compact.before_unlink",
    "adopt.after_journal",
    "adopt.after_publish",
    "adopt.after_switch",
    "adopt.going_back",
    "adopt.after_decision",
    "adopt.after_removal",
    "release.after_journal",
    "release.after_copy",
    "release.after_switch",
    "replay.prepared",
)
"""Every point that exists, in commit order; arming another name is an error."""

_armed: dict[str, Callable[[], None]] = {}


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _no_space() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _io_error() -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def _hang() -> None:
    while True:
        time.sleep(3600)


ACTIONS: dict[str, Callable[[], None]] = {"kill": _kill, "enospc": _no_space, "eio": _io_error, "hang": _hang}
"""What can happen at a point."""


def reach(point: str) -> None:
    """Do what is armed at `point`; nothing, unless a test armed it."""
    action = _armed.get(point)
    if action is not None:
        action()


def arm(point: str, action: Callable[[], None]) -> None:
    """Call `action` whenever `point` is reached; raise `ValueError` for a point that does not exist."""
    if point not in POINTS:
        raise ValueError(f"no failpoint is called {point!r}; known: {', '.join(POINTS)}")
    _armed[point] = action


def disarm_all() -> None:
    """Forget everything that was armed."""
    _armed.clear()


def arm_from(text: str) -> None:
    """Arm what `text` says: `point=action` pairs separated by commas; `point=action@N` acts at the N-th time only."""
    for pair in filter(None, text.split(",")):
        point, _, action = pair.partition("=")
        name, _, nth = action.partition("@")
        arm(point, _at_nth(ACTIONS[name], int(nth)) if nth else ACTIONS[name])


def _at_nth(action: Callable[[], None], nth: int) -> Callable[[], None]:
    reached = 0

    def act_once() -> None:
        nonlocal reached
        reached += 1
        if reached == nth:
            action()

    return act_once
