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

_FIRST_BYTES = 16 << 10
"""The same of what may be a new frame: most are shorter, and come in one piece with their length."""


MOST_OBJECTS = 400_000
"""Values in one request: a commit of 4 MiB has 300,000, which take 30 ms to decode."""


class ClientTooSlow(ProtocolError):
    """A frame did not arrive, or was not taken, in time."""

    def __init__(self, what: str, timeout_s: float) -> None:
        super().__init__(f"{what} took longer than {timeout_s:g} s")
        self.timeout_s = timeout_s


class Connection:
    """Frames over one socket.  Used by one task.

    The socket is read and written directly, and waited for only when it is not ready: with a wait at each call, a
    request took the owner twice as long as what it asks for.
    """

    def __init__(self, connected: socket.socket, settings: ControlConfig) -> None:
        """Take over a connected socket that does not block."""
        self._socket = connected
        self._settings = settings
        self._received = bytearray()
        """The beginning of the next frames."""

    async def receive(self, waiting: trio.CancelScope) -> Request | None:
        """Return the next request, or None when the client has closed the connection or `waiting` is cancelled.

        `waiting` covers only the time in which nothing of the next frame has arrived.  Always a checkpoint.  Raise
        `ProtocolError` for what is no request, and `OSError` when the connection breaks.
        """
        if self._received:
            await trio.lowlevel.checkpoint()
        with waiting:
            while not self._received:
                await trio.lowlevel.wait_readable(self._socket)
                if self._fill(_FIRST_BYTES) == 0:
                    break
        if not self._received:
            return None
        payload = self._payload()
        if payload is None:
            payload = await self._rest()
        if len(payload) > UNCOUNTED_BYTES:
            await _check(payload)
        return decode_request(payload)

    async def send(self, reply: Reply, descriptors: Sequence[int] = ()) -> None:
        """Send a reply; raise `FrameTooLarge`, `ClientTooSlow`, or `OSError` when the connection breaks."""
        rest = memoryview(encode(reply))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        timeout_s = self._settings.send_timeout_s
        sent = self._send(rest, rights)
        if sent == len(rest):
            return
        with trio.move_on_after(timeout_s):
            while rest := rest[sent:]:
                await trio.lowlevel.wait_writable(self._socket)
                if sent:  # the descriptors went with the first byte
                    rights = []
                sent = self._send(rest, rights)
            return
        raise ClientTooSlow("taking a reply", timeout_s)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _send(self, frame: memoryview, rights: Sequence[tuple[int, int, array.array[int]]]) -> int:
        try:
            return self._socket.sendmsg([frame], rights) if rights else self._socket.send(frame)
        except BlockingIOError:
            return 0

    def _fill(self, most: int) -> int | None:
        """Read what there is, and return how many bytes: 0 at the end, None if nothing has come yet."""
        try:
            # `recv` without room for descriptors: the kernel drops what a client sends us.
            some = self._socket.recv(most)
        except BlockingIOError:
            return None
        self._received += some
        return len(some)

    def _payload(self) -> bytearray | None:
        """Take the first frame if it is whole; raise `ProtocolError` as soon as it is seen to be too long."""
        if len(self._received) < HEADER.size:
            return None
        end = HEADER.size + payload_length(self._received)
        if len(self._received) < end:
            return None
        payload = self._received[HEADER.size : end]
        del self._received[:end]
        return payload

    async def _rest(self) -> bytearray:
        """Return the payload of a frame that has begun to arrive."""
        timeout_s = self._settings.receive_timeout_s
        with trio.move_on_after(timeout_s):
            while (payload := self._payload()) is None:
                await trio.lowlevel.wait_readable(self._socket)
                if self._fill(_RECEIVE_BYTES) == 0:
                    raise ProtocolError("the connection ended in the middle of a frame")
            return payload
        raise ClientTooSlow("sending a request", timeout_s)


async def _check(payload: bytearray) -> None:
    """Raise `ProtocolError` for a payload that would take everybody's time and memory to decode."""
    try:
        await trio.to_thread.run_sync(check_shape, payload, MOST_OBJECTS)
    except TooManyObjects as exc:
        raise ProtocolError(exc.reason) from exc
