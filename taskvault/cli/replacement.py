"""Has the daemon replaced by a new one while its mount stays; and tells its caretaker what to do after a kill."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from pathlib import Path

from taskvault.cli.context import Context
from taskvault.cli.errors import HostTrouble, Refusal

START_TIMEOUT_S = 120.0
_POLL_S = 0.01
_ANSWER_TIMEOUT_S = 1.0
"""A caretaker answers at once: it does nothing else."""


def replaced(context: Context) -> int:
    """Ask the daemon to leave its mount to a new one; return the new one's process when it answers.

    Raises `DaemonStopped` for settings with which none could start, before anything is asked.
    """
    from taskvault.cli.daemon_process import run_tvd
    from taskvault.errors import DaemonUnreachable, DaemonWedged, Refused
    from taskvault.protocol.messages import GetStatus, Shutdown

    run_tvd(["--home", str(context.home), "--print-config"])
    with context.connect() as client:
        old = client.call(GetStatus()).pid
        try:
            client.call(Shutdown(hand_over=True))
        except Refused as refused:
            raise Refusal(str(refused)) from refused
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        with suppress(DaemonUnreachable, DaemonWedged), context.connect() as client:
            pid = client.call(GetStatus()).pid
            if pid != old:
                return pid
        time.sleep(_POLL_S)
    raise HostTrouble(f"No daemon answers {START_TIMEOUT_S:g} s after the old one was asked to end; see its tvd.log.")


def goes_on(context: Context) -> bool:
    """Have the daemon that was killed started again, if somebody keeps its mount; return when it answers."""
    from taskvault.errors import DaemonUnreachable, DaemonWedged
    from taskvault.protocol.caretaking import GO_ON

    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and _told(context.home, GO_ON):
        with suppress(DaemonUnreachable, DaemonWedged), context.connect():
            return True
        time.sleep(_POLL_S)
    return False


def give_up(home: Path) -> None:
    """Have whoever keeps the mount of a daemon that was killed let go of it; return when that has ended."""
    from taskvault.protocol.caretaking import GIVE_UP

    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and _told(home, GIVE_UP):
        time.sleep(_POLL_S)


def _told(home: Path, message: bytes) -> bool:
    """Whether the caretaker of the vault, and not somebody else at its address, has got the message."""
    from taskvault.protocol.caretaking import CREDENTIALS, caretaker_address

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
        try:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            ours.settimeout(_ANSWER_TIMEOUT_S)
            ours.bind("")
            ours.sendto(message, caretaker_address(home))
            _, ancillary, _, _ = ours.recvmsg(len(message), socket.CMSG_SPACE(CREDENTIALS.size))
            trusted = (0, os.getuid(), os.stat(home).st_uid)
        except OSError:
            return False
    return any(
        kind == socket.SCM_CREDENTIALS and CREDENTIALS.unpack(content)[1] in trusted for _, kind, content in ancillary
    )


def caretaker_of(pid: int) -> int | None:
    """Return the process that starts the daemon again when it is killed, if there is one."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        parent = int(fields[1])
        command = Path(f"/proc/{parent}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError, IndexError):
        return None
    named = any(os.fsdecode(argument).partition("=")[0] == "--caretaker" for argument in command)
    return parent if named else None
