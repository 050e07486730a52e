"""What somebody asked to be run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path


class Mode(Enum):
    """What to do with a stored result."""

    NORMAL = "normal"
    """Replay it."""
    REFRESH = "refresh"
    """Run in any case, and put the new result in its place."""
    CHECK = "check"
    """Run in any case, and compare."""


@dataclass(frozen=True, slots=True)
class RunRequest:
    """One `tv run`."""

    command: tuple[str, ...]
    workdir: Path
    """Where it is started; absolute."""
    environment: Mapping[str, str]
    """The caller's whole environment."""
    root: Path | None
    """As named by the caller."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    variables: tuple[str, ...]
    """`NAME` or `NAME=VALUE`."""
    scope: str
    with_stdin: bool
    store: bool
    mode: Mode
    quiet: bool
