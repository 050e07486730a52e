"""Which files of a project lie in version control: how they compare by time says only how they were checked out."""

from __future__ import annotations

import os
import subprocess

_TIMEOUT_S = 10.0


def tracked_files(root: str) -> frozenset[str]:
    """Return the absolute paths of all files below a root that git knows; none if there is no git."""
    if not os.path.exists(os.path.join(root, ".git")):
        return frozenset()
    try:
        listed = subprocess.run(
            ["git", "-C", root, "ls-files", "-z"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return frozenset()
    names = listed.stdout.split(b"\0") if listed.returncode == 0 else []
    return frozenset(os.path.join(root, os.fsdecode(name)) for name in names if name)
