"""What has been observed so far: each use once for a process, in the order of the first time."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tvfs.plugin_api.tracer import Before, Event, Use
from tvplugins.tracer.links import above

Noted = tuple[tuple[Use, str, str], ...]
"""Uses, paths and details, whoever they are of."""


class Notes:
    """Grows while a record is folded."""

    def __init__(self) -> None:
        self._events: dict[tuple[Use, str, int, str], Before | None] = {}
        self._troubles: dict[str, None] = {}
        self._led_through: set[str] = set()
        self._recorded: list[tuple[Use, str, str]] | None = None
        self._in_doubt = False

    @property
    def events(self) -> Iterable[Event]:
        """What was observed."""
        return (Event(*key, before) for key, before in self._events.items())

    @property
    def troubles(self) -> Iterable[str]:
        """Why it is not everything."""
        return self._troubles

    def record(self, action: Callable[[], None]) -> Noted | None:
        """Carry an action out; return what it noted, or None if others might have to note something else."""
        self._recorded, self._in_doubt = [], False
        try:
            action()
            return None if self._in_doubt else tuple(self._recorded)
        finally:
            self._recorded = None

    def again(self, noted: Noted, process: int) -> None:
        """Take in what was noted before, as done by a process that may be another."""
        for use, path, detail in noted:
            self._events.setdefault((use, path, process, detail), None)

    def add(self, use: Use, path: str, process: int, detail: str = "", before: Before | None = None) -> None:
        """Take a use in, if it is the first of its kind."""
        if self._recorded is not None:
            self._recorded.append((use, path, detail))
        key = (use, path, process, detail)
        if key in self._events:
            return
        self._events[key] = before
        for directory in above(path):
            if directory in self._led_through:
                break
            self._led_through.add(directory)

    def trouble(self, reason: str) -> None:
        """Take in why the observation is incomplete."""
        self._troubles[reason] = None

    def depends_on_process(self) -> None:
        """What is noted now would be something else for another process, as what /proc shows is."""
        self._in_doubt = True

    def led_through(self, path: str) -> bool:
        """Whether something below this path was used."""
        return path in self._led_through
