"""Runs that make the same outputs in the same place take turns: two at once would store a mixture of both.

A turn is an abstract unix socket: it needs no file, and the kernel gives it back whatever becomes of its owner.
"""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tvfs.errors import TaskVaultError

_NOTHING_WAITED_FOR = frozenset({errno.ECONNREFUSED, errno.ECONNRESET, errno.EAGAIN, errno.EPIPE})
"""The turn ended, or had only begun, between our two looks at it."""

_RETRY_S = 0.005


@contextmanager
def turn(root: Path, outputs: Sequence[str], *, waiting: Callable[[int], None]) -> Iterator[None]:
    """Hold the only turn for these outputs in the body; `waiting` is told which process is waited for.

    A run inside a run that makes the same outputs is part of the outer one's turn, and does not wait.
    """
    if not outputs:
        yield
        return
    name = b"\0taskvault-turn-" + hashlib.sha256(os.fsencode("\0".join([str(root), *outputs]))).hexdigest().encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as ours:
        while not _taken(ours, name):
            if not _waited(name, waiting):
                break
        yield


class AlreadyTaken(TaskVaultError):
    """Somebody holds a turn that nobody is to wait for."""

    def __init__(self, process: int) -> None:
        super().__init__(f"Process {process} does the same; wait until it has ended.")
        self.process = process


@contextmanager
def only_turn(place: Path, what: str) -> Iterator[None]:
    """Hold the only turn for this in the body; raise `AlreadyTaken` if somebody else does."""

    def give_up(process: int) -> None:
        raise AlreadyTaken(process)

    with turn(place, [what], waiting=give_up):
        yield


def _taken(ours: socket.socket, name: bytes) -> bool:
    try:
        ours.bind(name)
    except OSError as exc:
        if exc.errno != errno.EADDRINUSE:
            raise
        return False
    ours.listen(socket.SOMAXCONN)
    return True


def _waited(name: bytes, waiting: Callable[[int], None]) -> bool:
    """Wait until the holder of the turn has ended it; return False if that is a process which waits for us."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(name)
        except OSError as exc:
            if exc.errno in _NOTHING_WAITED_FOR:
                time.sleep(_RETRY_S)
                return True
            raise
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        holder: int = struct.unpack("3i", credentials)[0]
        if holder in _ancestors():
            return False
        waiting(holder)
        with suppress(ConnectionResetError):
            connection.recv(1)
    return True


def _ancestors() -> Iterator[int]:
    pid = os.getpid()
    with suppress(OSError):
        while pid > 1:
            yield pid
            # After the name, which may hold anything, come state and parent.
            pid = int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
