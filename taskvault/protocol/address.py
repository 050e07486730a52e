"""Where the owner's socket is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOCKET_NAME = "control.sock"

_LONGEST_ADDRESS_BYTES = 107
"""Of a unix socket, as the kernel limits it."""


@contextmanager
def socket_address(home: Path) -> Iterator[str]:
    """Yield an address of `HOME/control.sock`, good inside the `with` however long the path is; raise `OSError`."""
    path = home / SOCKET_NAME
    if len(os.fsencode(path)) <= _LONGEST_ADDRESS_BYTES:
        yield str(path)
        return
    directory = os.open(home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{SOCKET_NAME}"
    finally:
        os.close(directory)
