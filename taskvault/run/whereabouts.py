"""What binds a result to where it was made: the path of its root, or its name, if the result holds them.  Pure."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Held:
    """What was found in a result."""

    texts: frozenset[bytes]
    """Of those that were looked for."""
    unsearchable: bool
    """Whether there is a file that may hold anything, because it is compressed."""


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a run happens, as far as what it makes may tell."""

    root: str
    logical_roots: frozenset[str]
    """The root as the shell may name it, through symlinks."""
    scratch: str

    @property
    def paths(self) -> set[bytes]:
        """Absolute ones."""
        return {os.fsencode(path) for path in (self.root, self.scratch, *self.logical_roots) if len(path) > 1}

    @property
    def names(self) -> set[bytes]:
        """The last names of the root, as it may be named."""
        return {os.path.basename(os.fsencode(path)) for path in (self.root, *self.logical_roots)} - {b""}

    def bindings(self) -> Iterator[list[bytes]]:
        """Yield what may be added to the states of a result: nothing, the name of the root, or where all of it is."""
        yield []
        yield [b"name", *sorted(self.names)]
        yield [b"place", *map(os.fsencode, (self.root, self.scratch, *sorted(self.logical_roots)))]

    def binding(self, held: Held) -> list[bytes]:
        """Return what is added for a result that holds this."""
        anyone, same_name, same_place = self.bindings()
        if held.unsearchable or held.texts & self.paths:
            return same_place
        return same_name if held.texts & self.names else anyone
