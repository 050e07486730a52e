"""Serves the control socket: one task a connection, one request at a time on each.

The server knows connections and deadlines, not the vault: what requests mean is in the table of handlers, and what a
connection was promised is in its session, which is closed with it.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import structlog
import trio

from taskvault.protocol.framing import FrameTooLarge, ProtocolError
from taskvault.protocol.messages import UNANSWERED, Failed, Hello, Request
from tvd.config import ControlConfig
from tvd.control.answer import Answer, Table
from tvd.control.connection import Connection
from tvd.control.peer import Admission, Peer, peer_of
from tvfs.errors import TaskVaultError

_NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_ACCEPT_RETRY_S = 0.1


class Session(Protocol):
    """What one connection has been promised."""

    async def close(self) -> None:
        """Give everything back; must not fail because something has already gone."""
        ...


S = TypeVar("S", bound=Session)


class NotAdmitted(TaskVaultError):
    """The peer's credentials do not allow it to talk to this vault."""

    def __init__(self, peer: Peer) -> None:
        super().__init__(
            f"User {peer.uid} may not use this vault; ask its owner to set control.group to a group that you are in."
        )
        self.peer = peer


class TooManyConnections(TaskVaultError):
    """The bound on connections is reached."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"The daemon already serves {limit} connections; try again, or raise control.max_connections.")
        self.limit = limit


class GreetingMissing(ProtocolError):
    """The first request of a connection was not a Hello."""

    def __init__(self) -> None:
        super().__init__("a connection must begin with Hello")


class ControlServer(Generic[S]):
    """Accepts connections on a listening socket until told to drain."""

    def __init__(
        self,
        listener: trio.socket.SocketType,
        *,
        settings: ControlConfig,
        admission: Admission,
        table: Table[S],
        open_session: Callable[[Peer], S],
        on_refusal: Callable[[TaskVaultError], None] = lambda error: None,
    ) -> None:
        """`on_refusal` hears of every request that was refused."""
        self._listener = listener
        self._settings = settings
        self._admission = admission
        self._table = table
        self._open_session = open_session
        self._on_refusal = on_refusal
        self._accepting = trio.CancelScope()
        self._idle: set[trio.CancelScope] = set()
        self._draining = False
        self._connections = 0
        self._log = structlog.get_logger().bind(part="control")

    @property
    def connections(self) -> int:
        """How many are open."""
        return self._connections

    async def serve(self) -> None:
        """Serve until `drain` has been called and every request that was being carried out has been answered."""
        async with trio.open_nursery() as nursery:
            try:
                with self._accepting:
                    while True:
                        accepted = await self._accept()
                        if accepted is not None:
                            nursery.start_soon(self._serve_connection, accepted)
            finally:
                self._listener.close()

    def drain(self) -> None:
        """Stop accepting, and close each connection as soon as it is not in the middle of a request."""
        self._draining = True
        self._accepting.cancel()
        for scope in self._idle:
            scope.cancel()

    async def _accept(self) -> socket.socket | None:
        try:
            accepted, _address = await self._listener.accept()
        except OSError as exc:
            if exc.errno in _NO_DESCRIPTORS:
                self._log.warning("cannot accept a connection", error=exc.strerror)
                await trio.sleep(_ACCEPT_RETRY_S)
            return None
        connected = socket.socket(fileno=accepted.detach())
        connected.setblocking(False)
        return connected

    async def _serve_connection(self, connected: socket.socket) -> None:
        connection = Connection(connected, self._settings)
        self._connections += 1
        try:
            peer = peer_of(connected)
            await self._admit(connection, peer)
        except OSError:  # it hung up before we looked
            pass
        except Exception as exc:  # noqa: BLE001 - the outermost line of this task: the others live on
            self._log.error("a connection failed", exc_info=exc)
        finally:
            self._connections -= 1
            connection.close()

    async def _admit(self, connection: Connection, peer: Peer) -> None:
        refusal: TaskVaultError | None = None
        if not self._admission.allows(peer):
            refusal = NotAdmitted(peer)
        elif self._connections > self._settings.max_connections:
            refusal = TooManyConnections(self._settings.max_connections)
        if refusal is not None:
            self._log.warning("connection refused", reason=str(refusal), uid=peer.uid, pid=peer.pid)
            await connection.send(_failed(refusal))
            return
        session = self._open_session(peer)
        try:
            await self._converse(connection, session, peer)
        finally:
            with trio.CancelScope(shield=True):
                await session.close()

    async def _converse(self, connection: Connection, session: S, peer: Peer) -> None:
        greeted = False
        while True:
            try:
                request = await self._next_request(connection)
                if request is None:
                    return
                if not greeted and not isinstance(request, Hello):
                    raise GreetingMissing
                greeted = True
            except ProtocolError as exc:
                self._log.warning("connection closed", reason=exc.reason, uid=peer.uid, pid=peer.pid)
                await connection.send(_failed(exc))
                return
            answer = await self._carry_out(session, request)
            try:
                if type(request) not in UNANSWERED:
                    await self._send(connection, answer)
            except ProtocolError as exc:
                self._log.warning("connection closed", reason=exc.reason, uid=peer.uid, pid=peer.pid)
                return
            finally:
                answer.close()

    async def _next_request(self, connection: Connection) -> Request | None:
        if self._draining:
            return None
        waiting = trio.CancelScope()
        self._idle.add(waiting)
        try:
            return await connection.receive(waiting)
        finally:
            self._idle.discard(waiting)

    async def _carry_out(self, session: S, request: Request) -> Answer:
        kind = type(request)
        try:
            answer = await self._table[kind](session, request)
        except TaskVaultError as exc:
            self._on_refusal(exc)
            return Answer(_failed(exc))
        except Exception as exc:  # noqa: BLE001 - a bug of ours must not take the daemon with it
            self._log.error("a request failed", request=kind.__name__, exc_info=exc)
            return Answer(
                Failed("Internal", f"The daemon failed at {kind.__name__} ({exc}); its tvd.log has the details.")
            )
        return answer if isinstance(answer, Answer) else Answer(answer)

    async def _send(self, connection: Connection, answer: Answer) -> None:
        try:
            await connection.send(answer.reply, answer.descriptors)
        except FrameTooLarge as exc:
            await connection.send(_failed(exc))


def _failed(error: TaskVaultError) -> Failed:
    return Failed(type(error).__name__, str(error))
