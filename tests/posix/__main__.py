"""All long proofs of the filesystem, one after the other: `make posix`, hours; docs/design/posix.md has the results."""

from __future__ import annotations

import os
import subprocess
import sys

COMMANDS = (
    ["-m", "tests.posix.exerciser", "--steps", "20000"],
    ["-m", "tests.posix.load"],
    ["-m", "tests.posix.twin_machine", "--steps", "100000"],
    ["-m", "tests.model.filesystem_steps", "--steps", "1000000"],
    ["-m", "pytest", "-ra", "-n0", "-m", "slow", "--timeout", "3600", "tests/posix"],
)


def main() -> int:
    """Run them all; with PJDFSTEST, a directory of that suite, built, it is run first."""
    suite = os.environ.get("PJDFSTEST")
    commands = ([["-m", "tests.posix.pjdfstest", suite]] if suite else []) + list(COMMANDS)
    if not suite:
        print("posix: PJDFSTEST names no directory of pjdfstest, built; without it")
    failed = []
    for command in commands:
        print(f"posix: python {' '.join(command)}", flush=True)
        if subprocess.run([sys.executable, *command], check=False).returncode:
            failed.append(command[1])
    print(f"posix: {f'failed: {failed}' if failed else 'clean'}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
