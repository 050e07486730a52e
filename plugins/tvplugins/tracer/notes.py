"""What has been observed so far: each use once for a process, in the order of the first time."""

from __future__ import annotations

from collections.abc import Iterable

from tvfs.plugin_api.tracer import Before, Event, Use
from tvplugins.tracer.links import above


class Notes:
    """Grows while a record is folded."""

    def __init__(self) -> None:
        self._events: dict[tuple[Use, str, int, str], Before | None] = {}
        self._troubles: dict[str, None] = {}
        self._led_through: set[str] = set()

    @property
    def events(self) -> Iterable[Event]:
        """What was observed."""
        return (Event(*key, before) for key, before in self._events.items())

    @property
    def troubles(self) -> Iterable[str]:
        """Why it is not everything."""
        return self._troubles

    def add(self, use: Use, path: str, process: int, detail: str = "", before: Before | None = None) -> None:
        """Take a use in, if it is the first of its kind."""
        if not self._is_first(use, path, process, detail, before):
            return
        for directory in above(path):
            if directory in self._led_through:
                break
            self._led_through.add(directory)

    def _is_first(self, use: Use, path: str, process: int, detail: str, before: Before | None) -> bool:
        key = (use, path, process, detail)
        if key in self._events:
            return False
        self._events[key] = before
        return True

    def trouble(self, reason: str) -> None:
        """Take in why the observation is incomplete."""
        self._troubles[reason] = None

    def depends_on_process(self) -> None:
        """What is noted now would be something else for another process, as what /proc shows is."""

    def led_through(self, path: str) -> bool:
        """Whether something below this path was used."""
        return path in self._led_through
