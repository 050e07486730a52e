"""The command line: `taskvault`, also installed as `tv`."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn


def main() -> None:
    """Carry out one command line and exit with its status; see docs/reference/exit-codes.md."""
    # While nothing has begun, Ctrl-C ends us without a word; `run` does it in order.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _open_streams()
    from taskvault.cli.application import run

    _leave(run(sys.argv[1:]))


def _leave(status: int) -> NoReturn:
    """End at once: to take apart what was loaded takes as long as many a command."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        sys.exit(status)  # which says what of it has to be said
    os._exit(status)


def _open_streams() -> None:
    """Give closed standard streams to the null device: a socket or a pack must never become our standard output."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
            os.set_inheritable(number, True)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # as long as we live
