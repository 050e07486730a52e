"""Which directory a run is relative to: keys and patterns name paths below it, so that checkouts share results."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tvfs.errors import TaskVaultError

MARKERS = (".taskvault.toml", ".git")
"""What makes a directory a root, the strongest first: the first, however far above, wins over the next."""


class RootInvalid(TaskVaultError):
    """The directory given as root cannot be one."""

    def __init__(self, root: Path, reason: str) -> None:
        super().__init__(f"{str(root)!r} cannot be the root of this run: {reason}.")
        self.root = root


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run happens."""

    root: Path
    """Absolute, symlinks resolved."""
    workdir: str
    """The working directory relative to the root; empty for the root itself, absolute if it lies outside."""


def find_place(workdir: Path, named: Path | None, *, anywhere: bool = False) -> Place:
    """Return the root for a command started in `workdir`, which is to lie below it or `anywhere`; raise `RootInvalid`.

    The root is `named`, else the nearest directory at or above `workdir` with a `.taskvault.toml`, else the nearest
    with a `.git`, else `workdir`.
    """
    resolved = Path(os.path.realpath(workdir))
    if named is None:
        root = next((found for marker in MARKERS if (found := _nearest(resolved, marker))), resolved)
    else:
        root = Path(os.path.realpath(named))
        if not root.is_dir():
            raise RootInvalid(named, "it is not a directory; name one that exists")
    if not resolved.is_relative_to(root):
        if anywhere:
            return Place(root, str(resolved))
        raise RootInvalid(root, f"the working directory {str(resolved)!r} is not below it; name one above")
    relative = resolved.relative_to(root)
    return Place(root, "" if relative == Path() else str(relative))


def _nearest(start: Path, marker: str) -> Path | None:
    place = str(start)
    while not os.path.exists(f"{place}/{marker}"):
        if place == "/":
            return None
        place = os.path.dirname(place)
    return Path(place)
