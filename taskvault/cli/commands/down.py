"""`tv down`."""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
from contextlib import suppress

import click

from taskvault.cli import answers
from taskvault.cli.context import Context, json_option, notes, pass_context
from taskvault.cli.errors import HostTrouble
from taskvault.cli.mounts import is_dead, let_go, of_vault
from taskvault.cli.output import show
from taskvault.cli.replacement import caretaker_of, give_up

ORDERLY_TIMEOUT_S = 120.0
"""Unmounting waits for the kernel to write everything back."""
FORCED_TIMEOUT_S = 10.0
"""With --force: then the process is killed."""


@click.command(
    epilog=notes(
        "tv down",
        "0 it is down (also if it was before), 3 it does not answer (try --force), 4 somebody uses the mount, "
        "5 it did not stop.",
    )
)
@click.option("--force", is_flag=True, help="Do not wait for a daemon that hangs: end it and let go of the mount.")
@json_option
@pass_context
def down(context: Context, force: bool, as_json: bool) -> None:
    """Flush, unmount and stop the daemon; returns when it has ended."""
    from taskvault.errors import DaemonUnreachable, DaemonWedged

    pid = _owner(context)
    if pid is None:
        give_up(context.home)
        for point in filter(is_dead, of_vault(context.home)):
            let_go(point)  # left by a daemon that was killed
        show(as_json, answers.Down(home=str(context.home), stopped=False), "Not up.")
        return
    try:
        _stop(context, pid, force=force)
    except (DaemonUnreachable, DaemonWedged):
        if not force:
            raise
        _end(pid)
        for point in of_vault(context.home):
            let_go(point)
    show(as_json, answers.Down(home=str(context.home), stopped=True), "Down.")


def _stop(context: Context, pid: int, *, force: bool) -> None:
    """Ask the daemon to stop and wait until it has; raise `DaemonWedged` if it does not."""
    from taskvault.errors import DaemonWedged
    from taskvault.protocol.messages import Shutdown

    timeout_s = FORCED_TIMEOUT_S if force else ORDERLY_TIMEOUT_S
    with context.connect() as client:
        client.call(Shutdown(force=force), timeout_s=timeout_s)
    if not _ended(pid, timeout_s):
        if force:
            raise DaemonWedged(context.home, timeout_s)
        raise HostTrouble(f"The daemon (process {pid}) has not ended yet; look into its tvd.log, or use --force.")


def _owner(context: Context) -> int | None:
    """Return the process that serves the vault, whether or not it answers."""
    from taskvault.protocol.address import socket_address

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            with socket_address(context.home) as address:
                probe.connect(address)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            return None
        credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", credentials)[0]
    return pid


def _end(pid: int) -> None:
    caretaker = caretaker_of(pid)
    if caretaker is not None:
        # Told so, it does not start the daemon again; it passes the signal on.
        with suppress(ProcessLookupError):
            os.kill(caretaker, signal.SIGTERM)
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            # One that was only stopped can then still end in order.
            os.kill(pid, signal.SIGCONT)
        if _ended(pid, FORCED_TIMEOUT_S):
            return
    raise HostTrouble(f"The process {pid} does not end even when killed; it waits for the disk or the kernel.")


def _ended(pid: int, timeout_s: float) -> bool:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], timeout_s)[0])
    finally:
        os.close(descriptor)
