"""What a caretaker tells its daemon; how it keeps a mount is in tests/daemon/test_hand_over.py."""

from __future__ import annotations

import signal
import subprocess
import sys

CARETAKER = (
    "import sys; from tvd.caretaker import Caretaker; sys.exit(Caretaker([sys.executable, *sys.argv[1:]]).run())"
)
SAYS_WHAT_IT_GETS = """
import os, signal, socket, sys
numbers = {signal.SIGHUP, signal.SIGTERM}
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
def say(what):
    print(what, flush=True)
say("here")
if sys.argv[1:]:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    sys.stdin.readline()
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    to = chr(0) + os.environ["NOTIFY_SOCKET"][1:]
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"READY=1", to)
    say(signal.Signals(signal.sigwait(numbers)).name)
    sys.exit(0)
for _ in range(2):
    say(signal.Signals(signal.sigwait(numbers)).name)
"""


def started(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CARETAKER, "-W", "ignore", "-c", SAYS_WHAT_IT_GETS, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def said(caretaker: subprocess.Popen[str]) -> str:
    assert caretaker.stdout is not None
    return caretaker.stdout.readline().strip()


def test_the_first_signal_to_end_is_passed_on_as_a_hang_up_and_the_second_as_it_is() -> None:
    with started() as caretaker:
        assert said(caretaker) == "here"
        for expected in ("SIGHUP", "SIGTERM"):
            caretaker.send_signal(signal.SIGTERM)
            assert said(caretaker) == expected
    assert caretaker.returncode == 0


def test_a_daemon_that_could_not_hear_yet_is_told_when_it_is_ready() -> None:
    with started("deaf") as caretaker:
        assert said(caretaker) == "here"
        caretaker.send_signal(signal.SIGTERM)
        assert caretaker.stdin is not None
        caretaker.stdin.write("\n")
        caretaker.stdin.flush()
        assert said(caretaker) == "SIGHUP"
    assert caretaker.returncode == 0
