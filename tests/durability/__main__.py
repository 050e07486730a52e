"""The long proofs of durability, one after the other: `make durability`; docs/design/durability.md has the results."""

from __future__ import annotations

import random
import subprocess
import sys

COMMANDS = (
    ["-m", "tests.durability.power_loss", "--rounds", "4", "--steps", "250", "--cuts", "300", "--seed"],
    ["-m", "tests.durability.crash_loop", "--rounds", "500", "--seed"],
)


def main() -> int:
    """Run them all, each with a seed of its own, which is printed; say what failed."""
    failed = []
    for command in COMMANDS:
        whole = [*command, str(random.SystemRandom().randrange(1 << 31))]
        print(f"durability: python {' '.join(whole)}", flush=True)
        if subprocess.run([sys.executable, *whole], check=False).returncode:
            failed.append(command[1])
    print(f"durability: {f'failed: {failed}' if failed else 'clean'}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
