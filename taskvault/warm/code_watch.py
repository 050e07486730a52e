"""Notices that the installed code is another one than this process has loaded."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable

EVERY_S = 0.5
"""An installation takes longer."""


class CodeWatch:
    """The files of the modules that were loaded when it was made, and the directories that plugins are found in."""

    def __init__(self, places: Iterable[str] | None = None, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._places = sorted(set(_loaded() if places is None else places))
        self._known = self._look()
        self._looked_s = now_s()

    def has_changed(self) -> bool:
        """Whether one of them is not what it was; looks at most twice a second."""
        if self._now_s() - self._looked_s < EVERY_S:
            return False
        self._looked_s = self._now_s()
        return self._look() != self._known

    def _look(self) -> list[tuple[int, ...]]:
        return [_identity(place) for place in self._places]


def _loaded() -> Iterable[str]:
    yield os.path.realpath(sys.executable)
    # Where plugins come and go.
    yield from (path for path in sys.path if path.endswith("-packages"))
    for module in list(sys.modules.values()):
        place = getattr(module, "__file__", None)
        if place and not place.startswith(sys.base_prefix):
            yield place


def _identity(place: str) -> tuple[int, ...]:
    try:
        status = os.stat(place)
    except OSError:
        return ()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
