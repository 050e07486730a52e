"""The program `tvd`, and `python -m tvd`: see `tvd.main`."""

import gc
import sys


def main() -> int:
    """Run the daemon; return its exit status."""
    # Imports make a hundred thousand objects that live as long as the process: looking for garbage among them took a
    # quarter of the start.  Frozen, they are never looked at again.
    gc.disable()
    from tvd.main import main as run

    gc.freeze()
    gc.enable()
    return run()


if __name__ == "__main__":
    sys.exit(main())
