"""What binds a result to where it was made: the path of its root, or its name, if the result holds them.  Pure."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Held:
    """What was found in a result."""

    texts: frozenset[bytes]
    """Of those that were looked for."""
    unsearchable: bool
    """Whether there is a file that may hold anything, because it is compressed."""
    holders: Mapping[bytes, str] = field(default_factory=dict, compare=False)
    """What was found to hold a text first; under no text, what cannot be searched."""


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

    def reason(self, held: Held) -> str:
        """Return why a result that holds this is not for every place; nothing if it is."""
        paths = sorted(held.texts & self.paths)
        if paths:
            return f"{held.holders.get(paths[0], 'what it made')} holds the path {os.fsdecode(paths[0])}"
        if held.unsearchable:
            return f"{held.holders.get(b'', 'what it made')} is compressed and may hold its path"
        names = sorted(held.texts & self.names)
        return f"{held.holders.get(names[0], 'what it made')} holds the name {os.fsdecode(names[0])}" if names else ""

    def binding(self, held: Held) -> list[bytes]:
        """Return what is added for a result that holds this."""
        anyone, same_name, same_place = self.bindings()
        if held.unsearchable or held.texts & self.paths:
            return same_place
        return same_name if held.texts & self.names else anyone
