"""Paths freed of symlinks, as the kernel saw them when the call was made.

Records do not say which directories on a path were symlinks.  Links are looked up on disk, afterwards, and corrected
by what the command itself is known to have linked, moved and removed before or since.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from tvplugins.tracer.calls import DELETED

MOST_LINKS = 40
"""The kernel's own limit on one path."""
HEADER_BYTES = 4096
"""Enough for `#!` lines, and for the name of the dynamic loader in the files that linkers write."""


class Disk(Protocol):
    """What is asked of the filesystem, after the run."""

    def link(self, path: str) -> str | None:
        """Return the target of a symlink; None for anything else."""
        ...

    def header(self, path: str) -> bytes | None:
        """Return the first bytes of a file; None if they cannot be had."""
        ...

    def is_directory(self, path: str) -> bool:
        """Whether there is a directory."""
        ...

    def gains_rights(self, path: str) -> bool:
        """Whether a program has rights of its own: set-user-id, set-group-id or capabilities."""
        ...


class RealDisk:
    """The one of this machine.  Errors are answers: what cannot be looked at is no link and has no header."""

    def link(self, path: str) -> str | None:
        """Return the target of a symlink; None for anything else."""
        try:
            return os.readlink(path)
        except OSError:
            return None

    def header(self, path: str) -> bytes | None:
        """Return the first bytes of a file; None if they cannot be had."""
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                return None
            with open(path, "rb", buffering=0) as file:
                return file.read(HEADER_BYTES)
        except (OSError, ValueError):
            return None

    def is_directory(self, path: str) -> bool:
        """Whether there is a directory."""
        return os.path.isdir(path)

    def gains_rights(self, path: str) -> bool:
        """Whether a program has rights of its own: set-user-id, set-group-id or capabilities."""
        try:
            if os.stat(path).st_mode & (stat.S_ISUID | stat.S_ISGID):
                return True
            return "security.capability" in os.listxattr(path)
        except (OSError, ValueError):
            return False


@dataclass(frozen=True, slots=True)
class Resolved:
    """Where a path leads to."""

    path: str
    followed: tuple[tuple[str, str], ...] = ()
    """Symlinks on the way, with their targets."""
    left: tuple[str, ...] = ()
    """Directories that `..` led out of."""
    trouble: str = ""
    """Why it is not known where it leads to; empty if it is."""


class Links:
    """The symlinks of the filesystem as they are at one moment of the record."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._known: dict[str, str | None] = {}
        """Targets of links; None for what is none.  The disk's answers, and what the command did."""
        self._cache: dict[tuple[str, str, bool], Resolved] = {}
        self.version = 0
        """Another number whenever something that was asked for before would be answered otherwise."""

    def forget(self, path: str) -> None:
        """Take it that there is no link now: the command makes it later, or has removed it."""
        self.make(path, None)

    def make(self, path: str, target: str | None) -> None:
        """Take it that there is a link from now on."""
        if self._known.get(path, target) != target:
            self._cache.clear()
            self.version += 1
        self._known[path] = target

    def move(self, source: str, target: str) -> None:
        """Take it that a path, with everything below it, is somewhere else from now on."""
        for path in [known for known in self._known if known == source or known.startswith(source + "/")]:
            self.make(target + path[len(source) :], self._known[path])
            self.make(path, None)

    def target(self, path: str) -> str | None:
        """Return where a symlink leads to; None if there is none."""
        try:
            return self._known[path]
        except KeyError:
            target = self._known[path] = self._disk.link(path)
            return target

    def header(self, path: str) -> bytes | None:
        """Return the first bytes of a file as it is now; None if they cannot be had."""
        return self._disk.header(path)

    def is_directory(self, path: str) -> bool:
        """Whether there is a directory now."""
        return self._disk.is_directory(path)

    def gains_rights(self, path: str) -> bool:
        """Whether a program has rights of its own."""
        return self._disk.gains_rights(path)

    def resolve(self, start: str, path: str, *, follow: bool) -> Resolved:
        """Return where `path` leads to from the directory `start`, with its last part followed or not."""
        key = (start if not path.startswith("/") else "", path, follow)
        found = self._cache.get(key)
        if found is None:
            found = self._cache[key] = self._resolve(start, path, follow)
        return found

    def _resolve(self, start: str, path: str, follow: bool) -> Resolved:
        if not path.startswith("/") and start.endswith(DELETED):
            return Resolved(path, trouble="looked in a directory that was removed")
        here = "/" if path.startswith("/") else start
        # What is left to walk, last first: links put their targets on top.
        rest = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        if f"{here}/".startswith("/proc/") and ".." not in rest:
            # As below: what a name there is, the disk cannot tell afterwards.
            return Resolved("/".join([here, *reversed(rest)]))
        follow = follow or path.endswith(("/", "/."))
        followed: list[tuple[str, str]] = []
        left: list[str] = []
        while rest:
            part = rest.pop()
            if part == "..":
                left.append(here)
                here = here.rpartition("/")[0] or "/"
                continue
            there = f"{here.rstrip('/')}/{part}"
            if there == "/proc":
                return Resolved("/".join([there, *reversed(rest)]), tuple(followed))
            target = self.target(there) if rest or follow else None
            if target is None:
                here = there
                continue
            followed.append((there, target))
            if len(followed) > MOST_LINKS:
                return Resolved(there, tuple(followed[:1]))
            if target.startswith("/"):
                here = "/"
            rest.extend(piece for piece in reversed(target.split("/")) if piece not in ("", "."))
        return Resolved(here, tuple(followed), tuple(left))


def above(path: str) -> Iterator[str]:
    """The directories above a path, nearest first, without the root."""
    while path := path.rpartition("/")[0]:
        yield path
