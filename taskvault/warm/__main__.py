"""`python -m taskvault.warm HOME IDENTITY SOCKET`: the launcher starts it so, with a lock among its descriptors."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from taskvault.protocol.address import socket_address
from taskvault.warm.code_watch import CodeWatch
from taskvault.warm.pool import IDLE_S, Pool
from taskvault.warm.replayer import Replayer
from taskvault.warm.running import TROUBLE
from taskvault.warm.worker import Worker

LOCK_DESCRIPTOR = 3
"""Held as long as we listen: see `native/start.c`."""

MOST_WORKERS = 4
"""More would be more memory: one answers some 300 calls a second."""


def main(home: str, identity: str, place: str) -> None:
    """Serve until nobody asks any more."""
    os.set_inheritable(LOCK_DESCRIPTOR, False)
    vault = Path(os.path.abspath(home))
    replayer = Replayer(vault, identity)
    # Before anything is asked: what is loaded later was there already.
    code = CodeWatch()

    def tell(trouble: str) -> None:
        Path(place + TROUBLE).write_text(trouble, encoding="utf-8")

    def serve(listener: socket.socket, parent: int, used: Callable[[], None]) -> int:
        def let_go() -> None:
            for descriptor in (parent, LOCK_DESCRIPTOR):
                os.close(descriptor)

        return Worker(listener, replayer, code, used=used, tell=tell, let_go=let_go).serve(parent)

    idle_s = float(os.environ.get("TASKVAULT_WARM_IDLE_S", IDLE_S))
    Pool(Path(place), serve, lambda: has_owner(vault), idle_s=idle_s).run(min(os.cpu_count() or 1, MOST_WORKERS))


def has_owner(home: Path) -> bool:
    """Return whether a daemon listens for a vault, be it so busy that it takes nobody in."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as asking:
        try:
            with socket_address(home) as address:
                asking.connect(address)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return True


if __name__ == "__main__":
    main(*sys.argv[1:])
