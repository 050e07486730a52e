"""Which warm processes of a user there are."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from taskvault.run.private_directory import private_directory
from taskvault.run.shims import LAUNCHER

LOCK = ".lock"
"""Behind the name of the socket: held as long as the process lives."""

TROUBLE = ".trouble"
"""The same: what went wrong inside of it the last time."""

_PREFIX = "warm-"


@dataclass(frozen=True, slots=True)
class Running:
    """One of them, with its workers."""

    place: Path
    """Its socket."""
    trouble: str
    """The last line of what went wrong inside of it, if anything did."""


def can_be() -> bool:
    """Whether the launcher is there that asks for them: it is compiled."""
    return os.access(LAUNCHER, os.X_OK)


def running() -> Iterator[Running]:
    """Yield those of this user; raise `OSError` or `NotPrivate`."""
    for place in sorted(private_directory().glob(f"{_PREFIX}*{LOCK}")):
        if _is_held(place):
            name = Path(str(place).removesuffix(LOCK))
            yield Running(name, _last_line(Path(f"{name}{TROUBLE}")))


def _is_held(place: Path) -> bool:
    with open(place, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _last_line(place: Path) -> str:
    try:
        return place.read_text(encoding="utf-8").rstrip().rpartition("\n")[2]
    except FileNotFoundError:
        return ""
