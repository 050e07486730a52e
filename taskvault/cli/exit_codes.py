"""What the exit status of `tv` says; docs/reference/exit-codes.md is the table for people.

`tv run` exits with the command's status instead, and 128 + n if signal n ended the command.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit statuses, the same for every command."""

    OK = 0
    NO = 1
    """The answer is no: a miss, no such key, a check that failed."""
    USAGE = 2
    """The command line cannot be understood."""
    UNREACHABLE = 3
    """No daemon answers."""
    REFUSED = 4
    """The daemon, or `tv` itself, refused: the key exists, the path is not under the mount …"""
    TROUBLE = 5
    """The vault or the machine is in trouble: full, damaged, an operation of the system failed."""
    NOT_STARTED = 126
    """`tv run`: the command is there but cannot be started."""
    NOT_FOUND = 127
    """`tv run`: there is no such command."""
    INTERRUPTED = 130
    """Ctrl-C."""
    PIPE_CLOSED = 141
    """Whoever read the output has gone."""


MISSING_KINDS = frozenset({"KeyMissing", "SnapshotMissing", "RunMissing"})
"""Refusals of the daemon that mean: the answer is no."""

REFUSING_ERRORS = frozenset(
    {
        "PathInTheWay",
        "TargetInTheWay",
        "KeyTaken",
        "KindMismatch",
        "NotUnderMount",
        "NotAdoptable",
        "NotRemovable",
        "PathMissing",
        "PathsConflict",
    }
)
"""Errors of this process that mean: refused, nothing was changed.  By name, so that no module is loaded for them."""

TROUBLE_KINDS = frozenset({"VaultFull", "Internal", "VaultDamaged", "ChunkMissing", "ChunkDamaged"})
"""Refusals of the daemon that mean: the vault is in trouble."""
