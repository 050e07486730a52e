"""`tvd --caretaker …`: runs the daemon, keeps its mount while it is replaced, and starts it again when it was killed.

A store of descriptors that speaks systemd's protocol (`FDSTORE=1` to it, `LISTEN_FDS` from it), for daemons that
systemd did not start.  It imports nothing that is large, and does nothing that could fail: what it keeps must outlive
all else.

A daemon that was killed is started again after a moment in which clients of the mount wait, and whoever killed it may
look at the vault (`tv fsck`); `tv up` and `tv down` end that moment.
"""

from __future__ import annotations

import array
import fcntl
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from taskvault.protocol.caretaking import GIVE_UP, GO_ON, caretaker_address

HANDED_OVER = 6
"""Exit status of a daemon that wants to be started again: `tvd.main.ExitCode.HANDED_OVER`."""
DEATHS_MAX, DEATHS_WITHIN_S = 5, 60.0
"""So often the daemon may be killed; then something is wrong that starting it does not put right."""
GRACE_S = 2.0
"""So long after a kill the vault is nobody's."""
OPTION = "--caretaker"
"""With `=N,S`: how often the daemon may be killed, and after how many seconds it is started again."""
KEPT_MAX = 8
_FIRST_PASSED = 3
_OUT_OF_THE_WAY = 64
_CREDENTIALS = struct.Struct("3i")
_MESSAGE_BYTES = 4096
_LOOK_MS = 50
"""How often it looks whether a signal came."""


class Caretaker:
    """One daemon after the other, until one ends by itself."""

    def __init__(self, command: Sequence[str], *, deaths_max: int = DEATHS_MAX, grace_s: float = GRACE_S) -> None:
        """`command` starts the daemon, in the foreground."""
        self._command = list(command)
        self._deaths_max = deaths_max
        self._grace_s = grace_s
        self._told_to_go_on = False
        self._deaths: list[float] = []
        self._kept: list[tuple[str, int]] = []
        self._daemon = 0
        self._stopping = False
        self._notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._notices.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._address = self._bound()

    def run(self) -> int:
        """Return the exit status of the last daemon; 128 and the signal if it was killed and nothing can be kept."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
            signal.signal(number, self._pass_on)
        while True:
            self._start()
            status = self._wait()
            if os.WIFEXITED(status) and os.WEXITSTATUS(status) != HANDED_OVER:
                return os.WEXITSTATUS(status)
            if os.WIFSIGNALED(status) and not (self._may_start_again() and self._grace_is_over()):
                return 128 + os.WTERMSIG(status)
            self._command = _without_ready(self._command)

    def _bound(self) -> bytes:
        """Return the address that the socket has got: that of the vault, if nobody has it yet."""
        address = b"\0taskvault-caretaker-%d-%s" % (os.getpid(), os.urandom(8).hex().encode())
        with suppress(ValueError, IndexError, OSError):
            of_vault = caretaker_address(self._command[self._command.index("--home") + 1])
            self._notices.bind(of_vault)
            return of_vault
        self._notices.bind(address)
        return address

    def _grace_is_over(self) -> bool:
        """Wait until the daemon is to be started again; return False if it is not."""
        over_s = time.monotonic() + self._grace_s
        poll = select.poll()
        poll.register(self._notices, select.POLLIN)
        while not (self._stopping or self._told_to_go_on or time.monotonic() >= over_s):
            poll.poll(_LOOK_MS)
            self._take_notices()
        return not self._stopping

    def _start(self) -> None:
        self._told_to_go_on = False
        daemon = os.fork()
        if not daemon:
            try:
                self._become_daemon()
            finally:
                os._exit(127)
        self._daemon = daemon
        with suppress(ValueError, IndexError, OSError):
            # Whoever waits for it to be ready must see it end.
            os.close(int(self._command[self._command.index("--ready-fd") + 1]))

    def _become_daemon(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
            signal.signal(number, signal.SIG_DFL)
        environment = {**os.environ, "NOTIFY_SOCKET": "@" + self._address[1:].decode(), "FDSTORE": str(KEPT_MAX)}
        for name in ("WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"):
            environment.pop(name, None)
        if self._kept:
            # By way of high numbers: none is overwritten before it was moved.
            moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY) for _, descriptor in self._kept]
            for place, descriptor in enumerate(moved, _FIRST_PASSED):
                os.dup2(descriptor, place)
            environment |= {
                "LISTEN_FDS": str(len(self._kept)),
                "LISTEN_PID": str(os.getpid()),
                "LISTEN_FDNAMES": ":".join(name for name, _ in self._kept),
            }
        os.execve(self._command[0], self._command, environment)  # noqa: S606  # to become it is the point

    def _wait(self) -> int:
        """Keep what the daemon sends until it has ended; return how."""
        ended = os.pidfd_open(self._daemon)
        try:
            poll = select.poll()
            poll.register(ended, select.POLLIN)
            poll.register(self._notices, select.POLLIN)
            while True:
                ready = {descriptor for descriptor, _ in poll.poll()}
                self._take_notices()
                if ended in ready:
                    break
        finally:
            os.close(ended)
        status = os.waitpid(self._daemon, 0)[1]
        self._daemon = 0
        return status

    def _take_notices(self) -> None:
        passed = array.array("i", [0] * KEPT_MAX)
        room = socket.CMSG_SPACE(passed.itemsize * len(passed)) + socket.CMSG_SPACE(_CREDENTIALS.size)
        while True:
            try:
                message, ancillary, _, _ = self._notices.recvmsg(_MESSAGE_BYTES, room, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            sender, user, descriptors = 0, -1, array.array("i")
            for _, kind, content in ancillary:
                if kind == socket.SCM_CREDENTIALS:
                    sender, user, _ = _CREDENTIALS.unpack(content)
                elif kind == socket.SCM_RIGHTS:
                    descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
            if sender == self._daemon:
                self._take(message, descriptors)
                continue
            for descriptor in descriptors:
                os.close(descriptor)
            if user in (0, os.getuid()):
                self._told_to_go_on |= message == GO_ON
                if message == GIVE_UP:
                    self._pass_on(signal.SIGTERM, None)

    def _take(self, message: bytes, descriptors: Sequence[int]) -> None:
        told = dict(line.partition("=")[::2] for line in message.decode(errors="replace").splitlines())
        name = told.get("FDNAME", "stored")
        if told.get("FDSTOREREMOVE") == "1":
            for kept in [kept for kept in self._kept if kept[0] == name]:
                self._kept.remove(kept)
                os.close(kept[1])
        for descriptor in descriptors:
            if told.get("FDSTORE") == "1" and len(self._kept) < KEPT_MAX:
                self._kept.append((name, descriptor))
            else:
                os.close(descriptor)

    def _may_start_again(self) -> bool:
        """Whether a daemon that was killed has a successor: only where there is a mount to go on with."""
        now = time.monotonic()
        self._deaths = [*(death for death in self._deaths if now - death < DEATHS_WITHIN_S), now]
        return bool(self._kept) and not self._stopping and len(self._deaths) <= self._deaths_max

    def _pass_on(self, number: int, frame: object) -> None:
        self._stopping = self._stopping or number != signal.SIGUSR2
        if self._daemon:
            with suppress(ProcessLookupError):
                os.kill(self._daemon, number)


def take_care(arguments: Sequence[str]) -> int:
    """Run the daemon that this process was started as, without the option; return its exit status."""
    option = next(argument for argument in arguments if is_asked_for([argument]))
    command = [sys.executable, *(argument for argument in sys.orig_argv[1:] if argument != option)]
    deaths, _, grace_s = option.partition("=")[2].partition(",")
    return Caretaker(command, deaths_max=int(deaths or DEATHS_MAX), grace_s=float(grace_s or GRACE_S)).run()


def is_asked_for(arguments: Sequence[str]) -> bool:
    """Whether the option is among the arguments."""
    return any(argument.partition("=")[0] == OPTION for argument in arguments)


def _without_ready(command: list[str]) -> list[str]:
    """Return the command for another start: whoever waited for the first has been told."""
    if "--ready-fd" not in command:
        return command
    at = command.index("--ready-fd")
    return command[:at] + command[at + 2 :]
