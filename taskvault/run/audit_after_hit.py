"""After a hit, and as often as somebody wants it: audit that run, in a process of its own that nobody waits for."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from taskvault.run.project import ProjectRules

VARIABLE = "TASKVAULT_AUDIT"
"""One in how many hits; 0 turns off what the project wants."""


def audit_sometimes(
    home: Path,
    environment: Mapping[str, str],
    rules: ProjectRules,
    run: str,
    *,
    drawn: Callable[[int], int] = random.randrange,
) -> None:
    """Begin an audit of a run that was just replayed, after one in so many; trouble with that is nobody's."""
    every = audit_every(environment, rules)
    if not every or not run or drawn(every):
        return
    with suppress(OSError):
        process = subprocess.Popen(
            [sys.executable, "-m", "taskvault", "--home", str(home), "audit", "runs", "--run", run],
            cwd="/",
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        process.returncode = 0  # it is not ours any more: it outlives us


def audit_every(environment: Mapping[str, str], rules: ProjectRules) -> int:
    """Return after one in how many hits the run is audited; 0 for never."""
    said = environment.get(VARIABLE, "")
    if said.isascii() and said.isdigit() and len(said) < 10:
        return int(said)
    return rules.audit_every
