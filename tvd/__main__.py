"""The program `tvd`, and `python -m tvd`: see `tvd.main`."""

import gc
import sys


def main() -> int:
    """Run the daemon, or what takes care of one; return the exit status."""
    from tvd import caretaker

    if caretaker.is_asked_for(sys.argv[1:]):
        return caretaker.take_care(sys.argv[1:])
    # Imports make a hundred thousand objects that live as long as the process: looking for garbage among them took a
    # quarter of the start.  Frozen, they are never looked at again.
    gc.disable()
    from tvd.main import main as run

    gc.freeze()
    gc.enable()
    return run()


if __name__ == "__main__":
    sys.exit(main())
