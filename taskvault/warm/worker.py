"""One of the processes that answer launchers: takes the next one, looks, replays, answers."""

from __future__ import annotations

import gc
import os
import select
import socket
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from taskvault.warm.code_watch import CodeWatch
from taskvault.warm.launch_request import (
    GO,
    HEADER,
    MAGIC,
    MISSED,
    MOST_BYTES,
    NOT_HERE,
    LaunchRequest,
    NotUnderstood,
    done,
    packed_parts,
    read_request,
)
from taskvault.warm.launched import peer_of
from taskvault.warm.missed import Missed, fork_for
from taskvault.warm.replayer import NotHere, Replayer

REST_S = 1.0
"""Without a request, before the connection to the owner is let go of."""

REQUEST_S = 2.0
"""For a launcher to say all that it wants."""

_GIVEN = 2
"""Descriptors that come with a request."""

OUTDATED = 75
"""Exit status of a worker that found that the installed code has changed."""


class Worker:
    """Answers the launchers that connect to a socket, one after the other."""

    def __init__(
        self,
        listener: socket.socket,
        replayer: Replayer,
        code: CodeWatch,
        *,
        used: Callable[[], None],
        tell: Callable[[str], None],
        let_go: Callable[[], None],
    ) -> None:
        """`used` is called at each request, `tell` with what went wrong inside of us.

        `let_go` is called in a process that carries out a miss: it is to hold nothing that ends with the warm process.
        """
        self._tell = tell
        self._let_go = let_go
        self._carrying_out: set[int] = set()
        self._used = used
        self._listener = listener
        self._replayer = replayer
        self._code = code
        self._mounts = open("/proc/self/mountinfo", "rb", buffering=0)  # noqa: SIM115  # as long as we live
        self._mounts_changed = select.poll()
        self._mounts_changed.register(self._mounts, select.POLLPRI)

    def serve(self, parent: int) -> int:
        """Answer until the installed code changes, or the process at the other end of `parent` is gone."""
        # Whoever rested last is asked first: what it remembers is warm.
        with select.epoll() as waiting:
            waiting.register(self._listener, select.EPOLLIN | select.EPOLLEXCLUSIVE)
            waiting.register(parent, select.EPOLLIN)
            while True:
                ready = waiting.poll(REST_S)
                if not ready:
                    self._replayer.rest()
                    gc.collect()
                    ready = waiting.poll()
                if any(descriptor == parent for descriptor, _ in ready):
                    return 0
                self._used()
                self._reap()
                if self._code.has_changed():
                    return OUTDATED
                with suppress(BlockingIOError):
                    connection, _ = self._listener.accept()
                    with connection:
                        self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        if self._mounts_changed.poll(0):
            os.lseek(self._mounts.fileno(), 0, os.SEEK_SET)
            while self._mounts.read(65_536):
                pass
            self._replayer.forget()
        with suppress(OSError):
            connection.settimeout(REQUEST_S)
            if peer_of(connection).user != os.geteuid():
                return
            try:
                with _received(connection) as (asked, turn):
                    replayed = self._replayer.replay(asked, lambda: _may_go(connection, turn))
                    if isinstance(replayed, Missed):
                        self._leave_to_launcher(connection, replayed)
                        return
                    answer, kept_back = done(
                        replayed.status, replayed.status_if_lost, replayed.report, packed_parts(replayed.parts)
                    )
                _send(connection, answer, kept_back)
            except (NotUnderstood, NotHere):
                connection.sendall(NOT_HERE)
            except Exception:  # noqa: BLE001  # the outermost line of a request: a bug of ours must not end the next one too
                self._tell(traceback.format_exc())

    def _leave_to_launcher(self, connection: socket.socket, missed: Missed) -> None:
        connection.sendall(MISSED)

        def let_go() -> None:
            # What is there already is not looked at by every collection.
            gc.freeze()
            self._listener.close()
            self._mounts.close()
            self._replayer.rest()
            self._let_go()

        self._carrying_out.add(fork_for(missed, connection, let_go, lambda: self._tell(traceback.format_exc())))

    def _reap(self) -> None:
        for process in list(self._carrying_out):
            if os.waitpid(process, os.WNOHANG)[0]:
                self._carrying_out.discard(process)


@contextmanager
def _received(connection: socket.socket) -> Iterator[tuple[LaunchRequest, int]]:
    """Yield a request, in its directory and with its umask, and the turn; raise `NotUnderstood` or `OSError`."""
    part, descriptors, _, _ = socket.recv_fds(connection, HEADER.size, _GIVEN, socket.MSG_CMSG_CLOEXEC)
    try:
        header = bytearray(part)
        while len(header) < HEADER.size:
            header += _some(connection, HEADER.size - len(header))
        magic, length = HEADER.unpack(header)[:2]
        if magic != MAGIC or length > MOST_BYTES or len(descriptors) != _GIVEN:
            raise NotUnderstood
        body = bytearray()
        while len(body) < length:
            body += _some(connection, length - len(body))
        asked = read_request(bytes(header), bytes(body))
        os.fchdir(descriptors[0])
        umask = os.umask(asked.umask)
        try:
            yield asked, descriptors[1]
        finally:
            os.umask(umask)
            os.chdir("/")
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _some(connection: socket.socket, most: int) -> bytes:
    part = connection.recv(most)
    if not part:
        raise NotUnderstood
    return part


def _may_go(connection: socket.socket, turn: int) -> bool:
    """Take the turn; whether the launcher is still there, and has not taken it to run the command itself."""
    connection.setblocking(False)
    with suppress(BlockingIOError):
        connection.recv(1, socket.MSG_PEEK)  # it says nothing while it waits, and so it is gone
        return False
    connection.settimeout(REQUEST_S)
    os.set_blocking(turn, False)  # as every launcher has made it
    return os.read(turn, 1) == GO


def _send(connection: socket.socket, answer: bytes, kept_back: bytes) -> None:
    if not kept_back:
        connection.sendall(answer)
        return
    with open(os.memfd_create("taskvault-parts"), "wb", buffering=0) as file:
        rest = memoryview(kept_back)
        while rest:
            rest = rest[file.write(rest) :]
        socket.send_fds(connection, [answer], [file.fileno()])
