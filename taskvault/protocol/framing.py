"""How messages lie on the socket: a length of four bytes (big-endian), then that many bytes of msgpack.

Pure: bytes in, messages out.  File descriptors travel as SCM_RIGHTS with the first byte of the frame they belong to;
whoever owns the socket collects them.
"""

from __future__ import annotations

import struct

import msgspec

from taskvault.protocol.messages import Reply, Request
from tvfs.errors import TaskVaultError

MAX_FRAME_BYTES = 16 << 20
"""No longer payload is sent or read; whoever has more to say says it in several requests."""

MAX_DESCRIPTORS = 16
"""File descriptors that may travel with one frame."""

HEADER = struct.Struct(">I")

_encoder = msgspec.msgpack.Encoder()
_request_decoder: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_reply_decoder: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


class ProtocolError(TaskVaultError):
    """The other side sent what the protocol does not allow; the connection cannot go on."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"The connection broke the protocol: {reason}; check that both programs come from one installation."
        )
        self.reason = reason


class FrameTooLarge(ProtocolError):
    """A message is longer than `MAX_FRAME_BYTES`."""

    def __init__(self, size: int) -> None:
        super().__init__(f"a message of {size} bytes is longer than the {MAX_FRAME_BYTES} that one frame may have")
        self.size = size


def encode(message: Request | Reply) -> bytes:
    """Return the frame of a message; raise `FrameTooLarge`."""
    frame = bytearray(HEADER.size)
    _encoder.encode_into(message, frame, HEADER.size)
    size = len(frame) - HEADER.size
    if size > MAX_FRAME_BYTES:
        raise FrameTooLarge(size)
    HEADER.pack_into(frame, 0, size)
    return bytes(frame)


def payload_length(header: bytes | bytearray | memoryview) -> int:
    """Return how many bytes follow a header of `HEADER.size` bytes; raise `ProtocolError`."""
    (size,) = HEADER.unpack_from(header)
    if size > MAX_FRAME_BYTES:
        raise FrameTooLarge(size)
    if size == 0:
        raise ProtocolError("a frame is empty")
    return int(size)


def decode_request(payload: bytes | bytearray | memoryview) -> Request:
    """Return the request in a payload; raise `ProtocolError`."""
    try:
        return _request_decoder.decode(payload)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
        raise ProtocolError(f"a request cannot be read ({exc})") from exc


def decode_reply(payload: bytes | bytearray | memoryview) -> Reply:
    """Return the reply in a payload; raise `ProtocolError`."""
    try:
        return _reply_decoder.decode(payload)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
        raise ProtocolError(f"a reply cannot be read ({exc})") from exc
