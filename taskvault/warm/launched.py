"""Starts programs as children of a launcher, which has the caller's terminal, limits and signals.

The bytes are documented in `native/run.c`.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from taskvault.run.jobserver import named_descriptors
from tvfs.plugin_api import TracedCommand

_ORDER = struct.Struct("=c5I")
_ANSWER = struct.Struct("=ci")
_STARTED, _ENDED = b"P", b"E"
_PEER = struct.Struct("3i")
"""Process, user and group."""
_STREAMS = (0, 1, 2)
_MOST_DESCRIPTORS = 32
_MOST_KEPT = 64


class LauncherGone(Exception):
    """The launcher was killed, and what became of its command is not known."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who connected."""

    process: int
    user: int


def peer_of(connection: socket.socket) -> Peer:
    """Return who is at the other end, as the kernel says."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    return Peer(*_PEER.unpack(credentials)[:2])


class Launcher:
    """The other side of a connection, ready to start one program."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = b""

    def spawn(self, arguments: Sequence[str], command: TracedCommand, descriptors: Sequence[int], /) -> LaunchedProcess:
        """Start a program there: see `tvfs.plugin_api.Spawn`.  The working directory is the launcher's own."""
        streams = (command.stdin, command.stdout, command.stderr)
        given = [number if number is not None else own for own, number in enumerate(streams)]
        kept = named_descriptors(command.environment)
        if len(kept) > _MOST_KEPT or len(descriptors) > _MOST_DESCRIPTORS - len(_STREAMS):
            raise OSError("too many descriptors to pass on")
        numbers = [*_STREAMS, *descriptors, *kept]
        texts = [*map(os.fsencode, arguments), *_variables(command.environment)]
        body = struct.pack(f"={len(numbers)}I", *numbers) + b"".join(text + b"\0" for text in texts)
        sent = [*given, *descriptors]
        order = _ORDER.pack(
            b"X", len(body), len(arguments), len(command.environment), len(sent), len(kept)
        )  # fmt: skip
        try:
            socket.send_fds(self._connection, [order], sent)
            self._connection.sendall(body)
        except OSError as exc:
            raise LauncherGone from exc
        what, number = self.heard() or (b"", 0)
        if what != _STARTED or not number:
            raise LauncherGone
        if number < 0:
            raise OSError(-number, os.strerror(-number), arguments[0])
        return LaunchedProcess(self, number)

    def heard(self, *, wait: bool = True) -> tuple[bytes, int] | None:
        """Return what the launcher says next; None if that is nothing yet.  Raise `LauncherGone`."""
        flags = 0 if wait else socket.MSG_DONTWAIT
        while len(self._received) < _ANSWER.size:
            try:
                part = self._connection.recv(_ANSWER.size - len(self._received), flags)
            except BlockingIOError:
                return None
            except OSError as exc:
                raise LauncherGone from exc
            if not part:
                raise LauncherGone
            self._received += part
        answer, self._received = self._received, b""
        what, number = _ANSWER.unpack(answer)
        return what, number


class LaunchedProcess:
    """A child of a launcher."""

    def __init__(self, launcher: Launcher, pid: int) -> None:
        self._launcher = launcher
        self._pid = pid
        self._status: int | None = None

    @property
    def pid(self) -> int:
        """Its number, which is nobody else's as long as the launcher lives."""
        return self._pid

    def poll(self) -> int | None:
        """Return its exit status, -n if signal n ended it; None while it runs."""
        return self._ask(wait=False)

    def wait(self) -> int:
        """Return the same when it has ended."""
        status = self._ask(wait=True)
        assert status is not None, "it was waited for"
        return status

    def _ask(self, *, wait: bool) -> int | None:
        if self._status is None:
            heard = self._launcher.heard(wait=wait)
            if heard is not None:
                what, self._status = heard
                if what != _ENDED:
                    raise LauncherGone
        return self._status


def leave_free(environment: Mapping[str, str]) -> None:
    """See to it that nothing which is opened from now on has the number of a pipe of make's jobserver.

    What the launcher passes on keeps its number, and so do those pipes.
    """
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for number in named_descriptors(environment):
        with suppress(OSError, OverflowError):
            try:
                os.fstat(number)
            except OSError:
                os.dup2(nothing, number, inheritable=False)


def _variables(environment: Mapping[str, str]) -> list[bytes]:
    return [os.fsencode(name) + b"=" + os.fsencode(value) for name, value in environment.items()]
