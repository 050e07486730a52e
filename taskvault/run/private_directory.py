"""The user's own directory for what lives no longer than the system runs: sockets, and what is remembered of files.

It has the same name in every environment, whatever TMPDIR says: processes of one user find each other there.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from tvfs.errors import TaskVaultError

_ABOVE = "/tmp"  # noqa: S108  # shared, sticky: nobody else can put something else in the place of what is ours


class NotPrivate(TaskVaultError):
    """The directory belongs to somebody else, or others may look into it."""

    def __init__(self, place: Path) -> None:
        super().__init__(f"{place} is not a directory of yours alone, so it is not used; remove it.")
        self.place = place


def private_directory() -> Path:
    """Return the directory, made if it is not there; raise `NotPrivate` or `OSError`."""
    place = Path(_ABOVE, f"taskvault-{os.geteuid()}")
    with suppress(FileExistsError):
        os.mkdir(place, 0o700)
        os.chmod(place, 0o700)  # whatever the umask
    status = os.lstat(place)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise NotPrivate(place)
    return place
