"""What `tv doctor` looks at, each with its remedy; it works without a vault, and with a daemon that is dead."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from taskvault.cli import host_checks, vault_checks
from taskvault.cli.answers import Finding


def examine(home: Path) -> list[Finding]:
    """Look at everything; a look that fails itself is a finding too."""
    checks: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("FUSE device", host_checks.fuse_device),
        ("FUSE module", host_checks.fuse_module),
        ("fusermount3", host_checks.mount_program),
        ("other users", host_checks.other_users),
        ("kernel", host_checks.kernel),
        ("kernel features", host_checks.kernel_features),
        ("open files", host_checks.open_files),
        ("locked memory", host_checks.locked_memory),
        ("python packages", host_checks.python_packages),
        ("clock", host_checks.clock),
        ("warm process", host_checks.warm_process),
        ("vault", lambda: vault_checks.permissions(home)),
        ("last record", lambda: vault_checks.last_record(home)),
        ("disk space", lambda: vault_checks.disk_space(home)),
        ("file system", lambda: vault_checks.file_system(home)),
        ("fsync", lambda: vault_checks.fsync(home)),
        ("socket", lambda: vault_checks.control_socket(home)),
        ("mount", lambda: vault_checks.stale_mounts(home)),
        ("daemon", lambda: vault_checks.daemon(home)),
    ]
    return [finding for name, check in checks for finding in _looked_at(name, check)]


def _looked_at(name: str, check: Callable[[], Iterable[Finding]]) -> Iterable[Finding]:
    try:
        return list(check())
    except OSError as exc:
        place = f" ({os.fsdecode(exc.filename)})" if isinstance(exc.filename, str | bytes) else ""
        remedy = "see whether the directory and its disk are in order"
        return [Finding(name=name, state="warning", fact=f"could not look: {exc.strerror}{place}", remedy=remedy)]
