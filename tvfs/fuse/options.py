"""What the kernel is told when a filesystem is mounted."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from tvfs.fuse.settings import MountSettings


def mount_options(settings: MountSettings) -> list[str]:
    """Return the options that every transport gives: who may enter, and that the kernel checks permissions."""
    options = ["default_permissions"]
    allowed = os.geteuid() == 0 or _user_allow_other()
    if allowed if settings.allow_other is None else settings.allow_other:
        options.append("allow_other")
    return options


def _user_allow_other() -> bool:
    with suppress(OSError):
        return "user_allow_other" in map(str.strip, Path("/etc/fuse.conf").read_text().splitlines())
    return False
