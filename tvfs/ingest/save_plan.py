"""Which paths are saved, and where each lies in the snapshot: worked out before anything is read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from tvfs.errors import TaskVaultError


class PathsConflict(TaskVaultError):
    """Two of the paths to be saved would lie at the same place."""

    def __init__(self, first: bytes, second: bytes) -> None:
        super().__init__(
            f"{os.fsdecode(first)} and {os.fsdecode(second)} would have the same name in the snapshot; save them "
            f"separately, or from a directory above both."
        )
        self.paths = (first, second)


@dataclass(slots=True)
class PlannedPath:
    """One place in the snapshot."""

    source: bytes
    """Absolute local path."""
    whole: bool = False
    """Everything below is wanted; otherwise only `children`."""
    children: dict[bytes, PlannedPath] = field(default_factory=dict)


def plan_paths(base_dir: str | bytes, paths: Sequence[str | bytes]) -> PlannedPath:
    """Return the root of what to save.

    Each path lies where it lies below `base_dir`; one outside lies at the root under its last name; `.` is everything
    in `base_dir`.  Raises `PathsConflict`.
    """
    base = os.path.abspath(os.fsencode(base_dir))
    root = PlannedPath(base)
    for path in paths:
        source = os.path.normpath(os.path.join(base, os.fsencode(path)))
        _add(root, base, source)
    return root


def _add(root: PlannedPath, base: bytes, source: bytes) -> None:
    relative = os.path.relpath(source, base)
    parts = relative.split(b"/")
    if parts == [b"."]:
        root.whole = True
        return
    if parts[0] == b"..":
        # The root directory itself has no name of its own.
        parts = [os.path.basename(source) or b"root"]
    node = root
    for depth, part in enumerate(parts, 1):
        place = source if depth == len(parts) else os.path.join(base, *parts[:depth])
        child = node.children.setdefault(part, PlannedPath(place))
        if child.source != place:
            raise PathsConflict(child.source, place)
        node = child
    node.whole = True
