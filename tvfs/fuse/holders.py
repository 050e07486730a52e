"""Find out which processes keep a mount from being unmounted; looks into /proc only, never at the mount."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Holder:
    """One process and the first reason found."""

    pid: int
    command: str
    path: str
    """What it has open, mapped, or as a directory it stands in."""

    def __str__(self) -> str:
        return f"{self.command} (pid {self.pid}: {self.path})"


def holders_of(point: str, *, proc: Path = Path("/proc")) -> list[Holder]:
    """Return the processes with something open below `point`; takes milliseconds, blocks."""
    found = []
    for process in proc.iterdir():
        if process.name.isdigit():
            path = next(_held_below(process, point), None)
            if path is not None:
                found.append(Holder(int(process.name), _command(process), path))
    return sorted(found, key=lambda holder: holder.pid)


def _held_below(process: Path, point: str) -> Iterator[str]:
    for path in _references(process):
        if path == point or path.startswith(point + "/"):
            yield path


def _references(process: Path) -> Iterator[str]:
    # A process may end while it is looked at, and those of other users tell nothing.
    for link in ("cwd", "root", "exe"):
        with suppress(OSError):
            yield os.readlink(process / link)
    with suppress(OSError):
        for descriptor in os.listdir(process / "fd"):
            with suppress(OSError):
                yield os.readlink(process / "fd" / descriptor)
    with suppress(OSError):
        for line in (process / "maps").read_text(errors="surrogateescape").splitlines():
            fields = line.split(maxsplit=5)
            if len(fields) == 6:
                yield fields[5]


def _command(process: Path) -> str:
    with suppress(OSError):
        return (process / "comm").read_text(errors="replace").strip()
    return "?"
