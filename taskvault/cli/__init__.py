"""The command line: `taskvault`, also installed as `tv`."""

from __future__ import annotations

import sys


def main() -> None:
    """Carry out one command line and exit with its status; see docs/reference/exit-codes.md."""
    from taskvault.cli.application import run

    sys.exit(run(sys.argv[1:]))
