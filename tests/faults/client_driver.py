"""A `tv` that a failpoint ends: `client_driver FAILPOINTS COMMAND...`."""

from __future__ import annotations

import sys

from taskvault.cli.application import run
from tvfs import failpoints

if __name__ == "__main__":
    failpoints.arm_from(sys.argv[1])
    sys.exit(run(sys.argv[2:]))
