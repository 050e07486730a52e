"""The guard interrupts a blocking read and leaves no trace; that this frees pyfuse3 is shown in tests/kernel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from tvfs.fuse.stall_guard import StallGuard

# In C, so that nobody tries again after EINTR; the other end of the pipe stays open and silent.
INTERRUPTED = """
import ctypes, errno, os
from tvfs.fuse.stall_guard import StallGuard
libc = ctypes.CDLL(None, use_errno=True)
ours, _ = os.pipe()
with StallGuard(0.01):
    assert libc.read(ours, ctypes.create_string_buffer(1), 1) == -1
assert ctypes.get_errno() == errno.EINTR
"""


def test_a_blocking_read_is_interrupted() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", INTERRUPTED], check=True, timeout=20, env=environment)


def test_the_timer_and_the_handler_before_it_are_put_back() -> None:
    handler = signal.getsignal(signal.SIGALRM)
    timer = signal.setitimer(signal.ITIMER_REAL, 0.0)
    try:
        with StallGuard(5.0):
            assert signal.getitimer(signal.ITIMER_REAL)[1] == 5.0
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
        assert signal.getsignal(signal.SIGALRM) == handler
    finally:
        # Someone else's, such as the test runner's.
        signal.setitimer(signal.ITIMER_REAL, *timer)
