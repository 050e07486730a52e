"""The command line: `taskvault`, also installed as `tv`."""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Carry out one command line and exit with its status; see docs/reference/exit-codes.md."""
    # While nothing has begun, Ctrl-C ends us without a word; `run` does it in order.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _open_streams()
    from taskvault.cli.application import run

    sys.exit(run(sys.argv[1:]))


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
