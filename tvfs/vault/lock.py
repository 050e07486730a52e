"""One owner for each vault."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from tvfs.errors import TaskVaultError


class VaultInUse(TaskVaultError):
    """Another process owns the vault."""

    def __init__(self, home: Path, pid: int | None) -> None:
        who = f"process {pid}" if pid is not None else "another process"
        super().__init__(f"The vault {home} is in use by {who}; stop it with `tv down`, or use the daemon that runs.")
        self.home = home
        self.pid = pid


class VaultLock:
    """An flock on a file, held until `release` or the end of the process, whatever ends it.

    The file holds the owner's pid for people and is never removed: a lock on an unlinked file would guard nothing.
    """

    def __init__(self, path: Path, *, note_pid: bool = True) -> None:
        """Take the lock at once; raise `VaultInUse`.  Without `note_pid` not a byte is changed."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._descriptor, 32, 0).strip()
            os.close(self._descriptor)
            raise VaultInUse(path.parent, int(owner) if owner.isdigit() else None) from None
        if note_pid:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        """Let others own the vault."""
        os.close(self._descriptor)
