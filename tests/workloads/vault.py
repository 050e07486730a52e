"""A vault of the workloads' own, up while they run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Up:
    """How to reach it."""

    tv: list[str]
    environment: dict[str, str]


@contextmanager
def vault_up(home: Path) -> Iterator[Up]:
    """Yield a new vault, which is stopped afterwards."""
    up = Up(
        [str(Path(sys.executable).with_name("tv"))],
        # The machine may be busy.
        {"TASKVAULT_HOME": str(home), "TASKVAULT_PATIENCE_S": "20"},
    )
    _tv(up, "init", "--size", "4G")
    _tv(up, "up")
    try:
        yield up
    finally:
        _tv(up, "down")


def _tv(up: Up, *arguments: str) -> None:
    subprocess.run([*up.tv, *arguments], env={**os.environ, **up.environment}, check=True, capture_output=True)
