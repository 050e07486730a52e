"""Kinds of place: what lies in the project, what is the run's own, and what is nobody's input.  Pure."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, lru_cache

from taskvault.run import rules
from taskvault.run.project import absolute


class Place(Enum):
    """Where a path lies."""

    PROJECT = "project"
    """Below the root: read as input, written as output."""
    SCRATCH = "scratch"
    """The run's own directory for temporary files: gone afterwards."""
    CACHE = "cache"
    """A tool's cache outside of the root: read as input, what is written is dropped."""
    NOTHING = "nothing"
    """Devices, and what the kernel says of the process itself or measures anew: neither input nor output."""
    PREPARED = "prepared"
    """Where the owner of the vault puts what a replay inside moves into place: what is there is what it was told."""
    PROCESSES = "processes"
    """Other processes."""
    SYSTEM = "system"
    """Everything else: read as input, not to be written to."""


@dataclass(frozen=True)
class Places:
    """The places of one run."""

    root: str
    """Absolute, symlinks resolved."""
    scratch: str
    home: str
    """The caller's; empty if it is not known."""
    sockets: frozenset[str] = frozenset()
    """Of the vault itself: what a run inside gets there was stored under a key that counts all that it depends on."""
    channels: frozenset[str] = frozenset()
    """Pipes that a caller gave to the command, as make's jobserver."""
    ignored: tuple[str, ...] = ()
    """Patterns of paths that the project wants to be no input and no output."""
    caches: tuple[str, ...] = ()
    """Patterns of tool caches that the project names."""
    prepared: str = ""
    """The directory of `Place.PREPARED`; empty without a mount."""

    def place(self, path: str) -> Place:
        """Return where an absolute path lies."""
        if _any_of(self._ignored)(path):
            return Place.NOTHING
        if self.prepared and path.startswith(f"{self.prepared}/"):
            return Place.PREPARED
        if self.in_root(path):
            return Place.PROJECT
        if path.startswith(("/dev/", "/proc", "/sys/")):
            if rules.DEVICES.match(path) or rules.ITSELF.match(path) or rules.VOLATILE.match(path):
                return Place.NOTHING
            if rules.OTHER_PROCESSES.match(path):
                return Place.PROCESSES
        if path == self.scratch or path.startswith(f"{self.scratch}/"):
            return Place.SCRATCH
        if path in self.channels:
            return Place.NOTHING
        if _any_of(self._cache_notes)(path):
            return Place.NOTHING
        if _any_of(self._caches)(path):
            return Place.CACHE
        return Place.SYSTEM

    def in_root(self, path: str) -> bool:
        """Whether a path is the root or lies below it."""
        return path.startswith(self._root_slash) or path == self.root

    def leads_to_scratch(self, path: str) -> bool:
        """Whether the run's own directory lies below a path."""
        return self.scratch.startswith(f"{path.rstrip('/')}/") and not self.in_root(path)

    def names_its_content(self, path: str) -> bool:
        """Whether the name of a path in a tool's cache is the digest of what its content was made from."""
        return bool(_any_of(self._caches_by_digest)(path))

    def item_path(self, path: str) -> bytes:
        """Return a path as pathsets have it."""
        if path == self.root:
            return b""
        return os.fsencode(path[len(self._root_slash) :] if self.in_root(path) else path)

    @cached_property
    def above(self) -> tuple[str, ...]:
        """The directories above the root, the nearest first, `/` last."""
        found = []
        path = self.root
        while path != "/":
            path = os.path.dirname(path)
            found.append(path)
        return tuple(found)

    @cached_property
    def _root_slash(self) -> str:
        return f"{self.root.rstrip('/')}/"

    @cached_property
    def _caches(self) -> tuple[str, ...]:
        return (*self._below_home(rules.TOOL_CACHES), *self._absolute(self.caches))

    @cached_property
    def _ignored(self) -> tuple[str, ...]:
        return self._absolute(self.ignored)

    @cached_property
    def _caches_by_digest(self) -> tuple[str, ...]:
        return self._below_home(rules.CACHES_BY_DIGEST)

    @cached_property
    def _cache_notes(self) -> tuple[str, ...]:
        return self._below_home(rules.CACHE_NOTES)

    def _absolute(self, patterns: tuple[str, ...]) -> tuple[str, ...]:
        found = (absolute(pattern, self.root, self.home) for pattern in patterns)
        return tuple(pattern for pattern in found if pattern is not None)

    def _below_home(self, patterns: tuple[str, ...]) -> tuple[str, ...]:
        usable = (p for p in patterns if self.home or not p.startswith("~"))
        return tuple(p.replace("~", self.home.rstrip("/"), 1) if p.startswith("~") else p for p in usable)


@lru_cache(maxsize=64)
def _any_of(patterns: tuple[str, ...]) -> Callable[[str], object]:
    """Return what tells whether a path matches one of the patterns: one expression, for it is asked of every path."""
    return re.compile("|".join(map(fnmatch.translate, patterns)) or r"(?!)").match
