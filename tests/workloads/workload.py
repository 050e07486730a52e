"""What a workload is: a project as it is found in the world, a command, and what may be expected of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Change:
    """One input that becomes another; afterwards the command must make what it makes without us."""

    name: str
    script: str = ""
    """For `sh`, in the root of the project."""
    environment: Mapping[str, str] = field(default_factory=dict)
    built: bool = False
    """It happens to a project that was built, and what follows is `Workload.again`."""


@dataclass(frozen=True)
class Workload:
    """One kind of work.

    Scripts are for `sh`.  They see HOME, a directory of the workload's own; TOOLS, the first directory of PATH, empty
    at first; and all of `sources` by their names in capitals.
    """

    name: str
    says: str
    arrange: str
    """Makes the project, in an empty directory."""
    command: str
    changes: tuple[Change, ...]
    programs: tuple[str, ...] = ()
    """What must be installed."""
    sources: tuple[str, ...] = ()
    """Functions or releases of `tests.workloads.sources`."""
    finished: Mapping[str, str] = field(default_factory=dict)
    """Commands that find nothing to do after a replay, and what they then say."""
    again: str = ""
    """What is run again and again in a project that was built."""
    unstored_again: str = ""
    """A part of why that is not stored; nothing if it is."""
    varies: tuple[str, ...] = ()
    """Patterns of paths of which no two runs of the command make the same, even without us."""
    restamped: tuple[str, ...] = ()
    """Patterns of paths into which a replay writes its own time."""
    says_more: bool = False
    """What it writes to stdout or stderr differs from run to run, even without us."""
    bound: str = ""
    """Why its result holds in no other place; nothing if it holds anywhere."""
    environment: Mapping[str, str] = field(default_factory=dict)
    fewest_made: int = 1
    """Files that it makes at least."""
    small: bool = False
    """Takes a moment, and needs only what is on every machine."""
