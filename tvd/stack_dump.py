"""What SIGUSR1 writes beside the stacks of the threads: each task and where it waits, and the oldest requests.

Python's handlers run between two steps of the main thread's program, so this also works while a task holds the event
loop up.  Where a call into a library does, the stacks of the threads are all there is: a handler in C writes those.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import structlog
import trio

from tvd.activity import ActivityRecorder, Live
from tvfs.filesystem.inspection import Inspection

REQUESTS_SHOWN = 20
SLOW_S = 30.0
"""A request that takes longer is named in the log, once."""
_LOOK_S = 10.0
HANDLES = frozenset({"fs.read", "fs.write", "fs.fsync"})
"""Filesystem requests that name a handle, not an inode."""


class Dump:
    """Writes to a descriptor, which stays the same whatever the log's file is called."""

    def __init__(self, descriptor: int) -> None:
        """Until `requests` is set there are none."""
        self._descriptor = descriptor
        self.requests: Callable[[], Sequence[str]] = tuple

    def __call__(self, number: int, frame: object) -> None:
        """Write; never raise, since this runs between two steps of whatever it is that goes on."""
        try:
            text = "\n".join(["Tasks:", *_tasks(), "Requests, oldest first:", *self.requests(), ""])
        except Exception as exc:  # noqa: BLE001 - a dump that cannot be made must not end what it was to show
            text = f"Tasks and requests could not be listed: {exc!r}\n"
        os.write(self._descriptor, text.encode("utf-8", "backslashreplace"))


class RequestNames:
    """Says what requests are under way, with the paths of those of the kernel."""

    def __init__(self, activity: ActivityRecorder, inspection: Inspection) -> None:
        self._activity = activity
        self._inspection = inspection
        self._named: set[Live] = set()

    def __call__(self) -> Sequence[str]:
        """Return a line for each of the oldest; may take a second for files in a large vault."""
        return [self.line(live) for live in list(self._activity.under_way())[:REQUESTS_SHOWN]]

    def line(self, live: Live) -> str:
        """Say what a request is about, and since when."""
        age_s = (self._activity.clock_ns() - live.began_ns) / 1e9
        return f"  {live.name} {self._subject(live)} for {age_s:.1f} s"

    async def name_slow_ones(self) -> None:
        """Log each request that takes long, once, until cancelled."""
        log = structlog.get_logger().bind(part="owner")
        while True:
            await trio.sleep(_LOOK_S)
            slow = {live for live in self._activity.live if self._activity.clock_ns() - live.began_ns > SLOW_S * 1e9}
            for live in slow - self._named:
                log.warning("a request takes long", request=self.line(live).strip())
            self._named = slow

    def _subject(self, live: Live) -> str:
        if isinstance(live.subject, str) or not isinstance(live.subject, int):
            return str(live.subject)
        handle = live.name in HANDLES
        path = self._inspection.place_of(live.subject, is_handle=handle)
        shown = f"{'handle' if handle else 'inode'} {live.subject}"
        return shown if path is None else f"{path.decode('utf-8', 'backslashreplace')} ({shown})"


def _tasks() -> Iterator[str]:
    waiting: list[tuple[trio.lowlevel.Task, int]] = []
    root = trio.lowlevel.current_root_task()
    if root is not None:
        waiting.append((root, 1))
    while waiting:
        task, depth = waiting.pop()
        frames = list(task.iter_await_frames()) if task.coro.cr_frame is not None else []
        where = " > ".join(
            f"{os.path.basename(frame.f_code.co_filename)}:{line} {frame.f_code.co_name}" for frame, line in frames[-4:]
        )
        yield f"{'  ' * depth}{task.name}: {where or 'running'}"
        waiting += [(child, depth + 1) for nursery in task.child_nurseries for child in nursery.child_tasks]
