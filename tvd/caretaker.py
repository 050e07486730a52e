"""`tvd --caretaker …`: runs the daemon, keeps its mount while it is replaced, and starts it again when it was killed.

A store of descriptors that speaks systemd's protocol (`FDSTORE=1` to it, `LISTEN_FDS` from it), for daemons that
systemd did not start.  It imports nothing that is large, and does nothing that could fail: what it keeps must outlive
all else.

It also hears the daemon's watchdog notices, which come from its event loop.  A loop that stopped is told in the log,
with the stacks of the daemon; some time later the daemon is killed and another goes on with its mount.

A daemon that was killed is started again after a moment in which clients of the mount wait, and whoever killed it may
look at the vault (`tv fsck`); `tv up` and `tv down` end that moment.
"""

from __future__ import annotations

import array
import fcntl
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from taskvault.protocol.caretaking import CREDENTIALS, GIVE_UP, GO_ON, caretaker_address

HANDED_OVER = 6
"""Exit status of a daemon that wants to be started again: `tvd.main.ExitCode.HANDED_OVER`."""
DEATHS_MAX, DEATHS_WITHIN_S = 5, 60.0
"""So often the daemon may be killed; then something is wrong that starting it does not put right."""
GRACE_S = 5.0
"""So long after a kill the vault is nobody's."""
OPTION = "--caretaker"
"""With `=N,S,A,B`: how often the daemon may be killed, after how many seconds it is started again, and after how many
seconds of silence its stacks are written, and it is killed."""
SILENT_S, SILENT_MAX_S = 15.0, 60.0
"""So long the loop may stand still before that is told, and before the daemon is killed for it; the second is longer
than anything that the daemon does at once, also on a machine that swaps."""
KEPT_MAX = 8
_FIRST_PASSED = 3
_OUT_OF_THE_WAY = 64
_MESSAGE_BYTES = 4096
_LOOK_MS = 50
"""How often it looks whether a signal came."""


class Caretaker:
    """One daemon after the other, until one ends by itself."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        deaths_max: int = DEATHS_MAX,
        grace_s: float = GRACE_S,
        silent_s: float = SILENT_S,
        silent_max_s: float = SILENT_MAX_S,
    ) -> None:
        """`command` starts the daemon, in the foreground."""
        self._command = list(command)
        self._deaths_max = deaths_max
        self._grace_s = grace_s
        self._silent_s = silent_s
        self._silent_max_s = silent_max_s
        self._heard_s: float | None = None
        """When the daemon was heard last; None while nobody waits for that: it starts, or it stops."""
        self._told_of_silence = self._killed_for_it = False
        self._told_to_go_on = False
        self._deaths: list[float] = []
        self._kept: list[tuple[str, int]] = []
        self._daemon = 0
        self._stopping = False
        self._notices = _listener()
        self._address = b"\0taskvault-caretaker-%d-%s" % (os.getpid(), os.urandom(8).hex().encode())
        self._notices.bind(self._address)
        self._orders = _listener()
        self._has_address = False
        """Whether `_orders` has the vault's address."""

    def run(self) -> int:
        """Return the exit status of the last daemon; 128 and the signal if it was killed and nothing can be kept."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
            signal.signal(number, self._pass_on)
        while True:
            self._start()
            status = os.waitstatus_to_exitcode(self._wait())
            if status != HANDED_OVER and not (status < 0 and self._may_start_again() and self._grace_is_over()):
                if self._kept:
                    self._let_go(status)
                return status if status >= 0 else 128 - status
            self._command = _without_ready(self._command)

    def _take_address(self) -> None:
        """Listen at the vault's address, if nobody else has it: only whose daemon has the vault is there for long."""
        if self._has_address:
            return
        with suppress(ValueError, IndexError, OSError):
            self._orders.bind(caretaker_address(self._home()))
            self._has_address = True

    def _home(self) -> str:
        return self._command[self._command.index("--home") + 1]

    def _let_go(self, status: int) -> None:
        """Nobody goes on with the mount: everybody who waits for it is told, it is taken away, and the log says why."""
        kept, self._kept = dict(self._kept), []
        # Nothing is left to take care of, so it may be large, and may fail.
        with suppress(Exception):
            from tvd.succession import let_go

            let_go(self._home(), kept, f"signal {-status}" if status < 0 else f"exit status {status}")

    def _grace_is_over(self) -> bool:
        """Wait until the daemon is to be started again; return False if it is not."""
        # Nobody has killed what we did: nobody wants to look at the vault.
        over_s = time.monotonic() + (0.0 if self._killed_for_it else self._grace_s)
        poll = self._poll()
        self._take_address()
        while not (self._stopping or self._told_to_go_on or time.monotonic() >= over_s):
            poll.poll(_LOOK_MS)
            self._take_notices()
        return not self._stopping

    def _start(self) -> None:
        self._told_to_go_on = self._told_of_silence = self._killed_for_it = False
        self._heard_s = None
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
        for name in ("WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"):
            environment.pop(name, None)
        environment["WATCHDOG_USEC"] = str(int(self._silent_s * 1e6))
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
            poll = self._poll()
            poll.register(ended, select.POLLIN)
            while True:
                ready = {descriptor for descriptor, _ in poll.poll(self._silent_s / 4 * 1000)}
                self._take_notices()
                self._watch()
                if ended in ready:
                    break
        finally:
            os.close(ended)
        status = os.waitpid(self._daemon, 0)[1]
        self._daemon = 0
        return status

    def _watch(self) -> None:
        """See whether the daemon's loop runs; say so if it does not, and at last end it, if another can go on."""
        now_s = time.monotonic()
        if self._heard_s is None or now_s - self._heard_s < self._silent_s:
            return
        if _is_stopped(self._daemon):
            self._heard_s = now_s  # by a debugger, or by whoever sent SIGSTOP: they know
        elif not self._told_of_silence:
            self._told_of_silence = True
            self._say("the daemon's loop stands still; its stacks follow", since_s=round(now_s - self._heard_s, 1))
            os.kill(self._daemon, signal.SIGUSR1)
        elif now_s - self._heard_s >= self._silent_max_s and self._kept and not self._killed_for_it:
            self._killed_for_it = True
            self._say("the daemon's loop stood still for too long; it is killed and started again")
            os.kill(self._daemon, signal.SIGKILL)

    def _say(self, event: str, **facts: object) -> None:
        line = {"part": "caretaker", **facts, "event": event, "level": "error", "timestamp": _now()}
        with suppress(ValueError, IndexError, OSError):
            log = os.open(f"{self._home()}/tvd.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(log, json.dumps(line).encode() + b"\n")
            finally:
                os.close(log)

    def _poll(self) -> select.poll:
        poll = select.poll()
        for listener in (self._notices, self._orders):
            poll.register(listener, select.POLLIN)
        return poll

    def _take_notices(self) -> None:
        while True:
            try:
                message, sender, _, descriptors, _ = _received(self._notices)
            except BlockingIOError:
                break
            # 0 is everybody who cannot be seen from here.
            if sender and sender == self._daemon:
                self._take(message, descriptors)
            else:
                _close(descriptors)
        while True:
            try:
                message, _, user, descriptors, address = _received(self._orders)
            except BlockingIOError:
                return
            _close(descriptors)
            if user in (0, os.getuid()):
                self._follow(message)
                # That shows who we are: anybody may have taken the address before us.
                with suppress(OSError):
                    self._orders.sendto(message, address)

    def _follow(self, order: bytes) -> None:
        self._told_to_go_on |= order == GO_ON
        if order == GIVE_UP and not self._stopping:
            self._pass_on(signal.SIGTERM, None)

    def _take(self, message: bytes, descriptors: Sequence[int]) -> None:
        told = dict(line.partition("=")[::2] for line in message.decode(errors="replace").splitlines())
        name = told.get("FDNAME", "stored")
        if told.get("WATCHDOG") == "1":
            self._heard_s, self._told_of_silence = time.monotonic(), False
        if told.get("STOPPING") == "1":
            self._heard_s = None
        if told.get("READY") == "1":
            self._heard_s = time.monotonic()
            self._take_address()
            if self._stopping:
                # It was told before it could hear.
                self._pass_on(signal.SIGHUP, None)
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
        if number != signal.SIGUSR2:
            if not self._stopping:
                # Whoever ends a session tells the daemon too; a second SIGTERM would mean that there is no time.
                number = signal.SIGHUP
            self._stopping = True
        if self._daemon:
            with suppress(ProcessLookupError):
                os.kill(self._daemon, number)


def take_care(arguments: Sequence[str]) -> int:
    """Run the daemon that this process was started as, without the option; return its exit status."""
    option = next(argument for argument in arguments if is_asked_for([argument]))
    command = [sys.executable, *(argument for argument in sys.orig_argv[1:] if argument != option)]
    deaths, grace_s, silent_s, silent_max_s = [*option.partition("=")[2].split(","), "", "", "", ""][:4]
    return Caretaker(
        command,
        deaths_max=int(deaths or DEATHS_MAX),
        grace_s=float(grace_s or GRACE_S),
        silent_s=float(silent_s or SILENT_S),
        silent_max_s=float(silent_max_s or SILENT_MAX_S),
    ).run()


def is_asked_for(arguments: Sequence[str]) -> bool:
    """Whether the option is among the arguments."""
    return any(argument.partition("=")[0] == OPTION for argument in arguments)


def _listener() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return made


def _received(listener: socket.socket) -> tuple[bytes, int, int, array.array[int], bytes]:
    """Return a message, its sender's process and user, the descriptors with it, and where to answer."""
    descriptors = array.array("i")
    room = socket.CMSG_SPACE(descriptors.itemsize * KEPT_MAX) + socket.CMSG_SPACE(CREDENTIALS.size)
    message, ancillary, _, address = listener.recvmsg(_MESSAGE_BYTES, room, socket.MSG_CMSG_CLOEXEC)
    sender, user = 0, -1
    for _, kind, content in ancillary:
        if kind == socket.SCM_CREDENTIALS:
            sender, user, _ = CREDENTIALS.unpack(content)
        elif kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    return message, sender, user, descriptors, address


def _is_stopped(process: int) -> bool:
    """Whether somebody keeps it from running, or traces it."""
    try:
        with open(f"/proc/{process}/stat", "rb") as status:
            return status.read().rpartition(b")")[2].split()[0] in (b"T", b"t")
    except OSError:
        return False


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _without_ready(command: list[str]) -> list[str]:
    """Return the command for another start: whoever waited for the first has been told."""
    if "--ready-fd" not in command:
        return command
    at = command.index("--ready-fd")
    return command[:at] + command[at + 2 :]
