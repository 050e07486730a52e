"""One client's connection: frames in, frames out, each within a deadline, nothing unbounded."""

from __future__ import annotations

import array
import socket
from collections.abc import Sequence

import trio

from taskvault.protocol.framing import HEADER, ProtocolError, decode_request, encode, payload_length
from taskvault.protocol.messages import Reply, Request
from tvd.config import ControlConfig
from tvfs.content.msgpack_shape import UNCOUNTED_BYTES, TooManyObjects, check_shape

_RECEIVE_BYTES = 256 << 10
"""Read at a time.  A frame's buffer grows as its bytes arrive: announcing 16 MiB costs the sender 16 MiB, not us."""


MOST_OBJECTS = 400_000
"""Values in one request: a commit of 4 MiB has 300,000, which take 30 ms to decode."""


class ClientTooSlow(ProtocolError):
    """A frame did not arrive, or was not taken, in time."""

    def __init__(self, what: str, timeout_s: float) -> None:
        super().__init__(f"{what} took longer than {timeout_s:g} s")
        self.timeout_s = timeout_s


class Connection:
    """Frames over one socket.  Used by one task."""

    def __init__(self, stream: trio.socket.SocketType, settings: ControlConfig) -> None:
        """Take over a connected socket."""
        self._socket = stream
        self._settings = settings

    async def receive(self, waiting: trio.CancelScope) -> Request | None:
        """Return the next request, or None when the client has closed the connection or `waiting` is cancelled.

        `waiting` covers only the time in which nothing of the next frame has arrived.  Raise `ProtocolError` for what
        is no request, and `OSError` when the connection breaks.
        """
        first = b""
        with waiting:
            first = await self._socket.recv(HEADER.size)
        if not first:
            return None
        timeout_s = self._settings.receive_timeout_s
        with trio.move_on_after(timeout_s):
            header = first + await self._exactly(HEADER.size - len(first))
            payload = await self._exactly(payload_length(header))
            if len(payload) > UNCOUNTED_BYTES:
                await _check(payload)
            return decode_request(payload)
        raise ClientTooSlow("sending a request", timeout_s)

    async def send(self, reply: Reply, descriptors: Sequence[int] = ()) -> None:
        """Send a reply; raise `FrameTooLarge`, `ClientTooSlow`, or `OSError` when the connection breaks."""
        frame = memoryview(encode(reply))
        timeout_s = self._settings.send_timeout_s
        with trio.move_on_after(timeout_s):
            if descriptors:
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
                frame = frame[await self._socket.sendmsg([frame], [rights]) :]
            while frame:
                frame = frame[await self._socket.send(frame) :]
            return
        raise ClientTooSlow("taking a reply", timeout_s)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    async def _exactly(self, length: int) -> bytearray:
        received = bytearray()
        while len(received) < length:
            # `recv` without room for descriptors: the kernel drops what a client sends us.
            some = await self._socket.recv(min(length - len(received), _RECEIVE_BYTES))
            if not some:
                raise ProtocolError("the connection ended in the middle of a frame")
            received += some
        return received


async def _check(payload: bytearray) -> None:
    """Raise `ProtocolError` for a payload that would take everybody's time and memory to decode."""
    try:
        await trio.to_thread.run_sync(check_shape, payload, MOST_OBJECTS)
    except TooManyObjects as exc:
        raise ProtocolError(exc.reason) from exc
