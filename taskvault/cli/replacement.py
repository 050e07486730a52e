"""Has the daemon replaced by a new one while its mount stays."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from taskvault.cli.context import Context
from taskvault.cli.errors import HostTrouble, Refusal

START_TIMEOUT_S = 120.0
_POLL_S = 0.01


def replaced(context: Context) -> int:
    """Ask the daemon to leave its mount to a new one; return the new one's process when it answers."""
    from taskvault.errors import DaemonUnreachable, DaemonWedged, Refused
    from taskvault.protocol.messages import GetStatus, Shutdown

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
