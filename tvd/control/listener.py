"""Makes the control socket."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

import trio

from taskvault.protocol.address import SOCKET_NAME, socket_address
from tvfs.errors import TaskVaultError

_BACKLOG = 128
"""Connections that wait while the owner is busy; a client that finds no place tries again until its deadline."""


class SocketNotMade(TaskVaultError):
    """The control socket cannot be made."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"The control socket {path} cannot be made ({reason}); look at what is in its place.")
        self.path = path


def listen(home: Path, group_gid: int | None) -> trio.socket.SocketType:
    """Return a listening socket at `HOME/control.sock`, for its owner only unless a group is given.

    For the holder of the vault's lock: whatever socket lies there belonged to an owner that has ended.  Raises
    `SocketNotMade`.  The group may go through `HOME`, but not look into it.
    """
    path = home / SOCKET_NAME
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    # The file is made with its final mode: between making and restricting it anybody could connect.
    umask_before = os.umask(0o177)
    try:
        if path.is_socket():
            path.unlink()
        with socket_address(home) as address:
            listener.bind(address)
        if group_gid is not None:
            os.chown(path, -1, group_gid)
            os.chmod(path, 0o660)
            _let_through(home, group_gid)
        listener.listen(_BACKLOG)
    except OSError as exc:
        listener.close()
        raise SocketNotMade(path, exc.strerror or str(exc)) from exc
    finally:
        os.umask(umask_before)
    return trio.socket.from_stdlib_socket(listener)


def _let_through(home: Path, group_gid: int) -> None:
    mode = stat.S_IMODE(os.stat(home).st_mode)
    if not mode & 0o001:
        os.chown(home, -1, group_gid)
        os.chmod(home, mode & 0o700 | 0o010)  # noqa: S103 - through it, to the socket, and no more


def remove_socket(home: Path) -> None:
    """Remove the socket file, for the holder of the vault's lock."""
    with suppress(OSError):
        (home / SOCKET_NAME).unlink()
