"""Where a daemon's caretaker listens, and what it can be told; for a caretaker, so nothing large is imported."""

from __future__ import annotations

import os

GO_ON = b"GO_ON=1"
"""Start the daemon that was killed again now, instead of in a moment."""
GIVE_UP = b"GIVE_UP=1"
"""Let go of the mount, and stop the daemon if it is there."""


def caretaker_address(home: str | os.PathLike[str]) -> bytes:
    """Return the abstract unix address of datagrams for the caretaker of a vault; raise `OSError`."""
    status = os.stat(home)
    return b"\0taskvault-caretaker-%x-%x" % (status.st_dev, status.st_ino)
