"""What files under the mount hold, told by the owner of the vault: not read, as long as nobody writes to them."""

from __future__ import annotations

import os
import stat

from taskvault.client import Client
from taskvault.protocol.messages import FindDigests, MountedFile
from taskvault.run.memory import Memory
from tvfs.errors import TaskVaultError

MOUNTED = "fuse.taskvault"
"""The kind of file system that the kernel calls a mount."""


class MountedDigests:
    """Asks over one connection, a file at a time.

    The owner knows a file by the number of the file system, which is its own mount's alone, and by number, mode, size
    and times as they were seen here: one of another vault's mount, or one that has changed since, is unknown to it.
    """

    def __init__(self, client: Client, memory: Memory, *, patience_s: float) -> None:
        self._client = client
        self._memory = memory
        self._patience_s = patience_s

    def __call__(self, place: bytes, status: os.stat_result) -> bytes | None:
        """Return the hash of a file's content; None if it must be read."""
        if not stat.S_ISREG(status.st_mode) or self._memory.kind(place, status) != MOUNTED:
            return None
        seen = MountedFile(
            status.st_dev, status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        )
        try:
            return self._client.call(FindDigests([seen]), timeout_s=self._patience_s).hashes[0] or None
        except (TaskVaultError, IndexError, OverflowError):
            return None
