"""Where a daemon's caretaker listens, and what it can be told; for a caretaker, so nothing large is imported."""

from __future__ import annotations

import os
import struct

GO_ON = b"GO_ON=1"
"""Start the daemon that was killed again now, instead of in a moment."""
GIVE_UP = b"GIVE_UP=1"
"""Let go of the mount, and stop the daemon if it is there."""

CREDENTIALS = struct.Struct("3i")
"""How the kernel says who sent a datagram: process, user, group."""


def caretaker_address(home: str | os.PathLike[str]) -> bytes:
    """Return the abstract unix address of datagrams for the caretaker of a vault; raise `OSError`.

    It sends back what it follows.  Anybody can have such an address, so whoever asks looks at who answers.
    """
    status = os.stat(home)
    return b"\0taskvault-caretaker-%x-%x" % (status.st_dev, status.st_ino)
