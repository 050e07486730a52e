"""What has been observed so far: each use once for a process, in the order of the first time."""

from __future__ import annotations

from collections.abc import Iterable

from tvfs.plugin_api.tracer import Event, Use
from tvplugins.tracer.links import above


class Notes:
    """Grows while a record is folded."""

    def __init__(self) -> None:
        self._events: dict[tuple[Use, str, int, str], None] = {}
        self._troubles: dict[str, None] = {}
        self._led_through: set[str] = set()

    @property
    def events(self) -> Iterable[Event]:
        """What was observed."""
        return (Event(use, path, process, detail) for use, path, process, detail in self._events)

    @property
    def troubles(self) -> Iterable[str]:
        """Why it is not everything."""
        return self._troubles

    def add(self, use: Use, path: str, process: int, detail: str = "") -> None:
        """Take a use in, if it is the first of its kind."""
        key = (use, path, process, detail)
        if key in self._events:
            return
        self._events[key] = None
        for directory in above(path):
            if directory in self._led_through:
                break
            self._led_through.add(directory)

    def trouble(self, reason: str) -> None:
        """Take in why the observation is incomplete."""
        self._troubles[reason] = None

    def led_through(self, path: str) -> bool:
        """Whether something below this path was used."""
        return path in self._led_through
