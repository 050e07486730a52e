"""To wait for what happens elsewhere and is announced to nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

PATIENCE_S = 20.0
"""The machine that runs the tests may be busy."""


def wait_until(true: Callable[[], object]) -> None:
    """Return when something is true; fail if it never becomes true."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        threading.Event().wait(0.02)
