"""What a check says, and what it does about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tvfs.catalog.catalog import Batch


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be; printed as one line."""

    check: str
    """Name of the check in the table."""
    where: str
    """`pack 0000000000000001`, `entry main/deps`, `work/a/b` …"""
    what: str
    """What is wrong."""
    remedy: str
    """What was done about it; of a dry run, what would be."""
    after_stop: bool = False
    """An unclean stop leaves this behind, and the next start puts it right as well."""
    repairable: bool = True
    """False for what is only reported: it is found again each time."""


@dataclass(slots=True)
class Step:
    """One repair, atomic and the same again when repeated: rows first, then files."""

    finding: Finding | None = None
    """None for what belongs to a finding that was told already."""
    batch: Batch = field(default_factory=Batch)
    act: Callable[[], None] | None = None
    """Changes files; called when the rows are proof against a power loss, and never in a dry run."""
