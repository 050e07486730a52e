"""Talks to the owner of a vault: one request, one reply, each within a deadline.

Blocking and small, because `tv status` and every `tv run` start with it: it imports the standard library's socket and
msgspec, nothing of the server.
"""

from __future__ import annotations

import errno
import math
import os
import select
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Self, overload

from taskvault.errors import DaemonUnreachable, DaemonWedged, NotLetIn, ProtocolMismatch, Refused
from taskvault.protocol import messages as m
from taskvault.protocol.address import socket_address
from taskvault.protocol.framing import (
    HEADER,
    MAX_DESCRIPTORS,
    ProtocolError,
    decode_reply,
    encode,
    payload_length,
)

CONNECT_TIMEOUT_S = 2.0
"""Connecting and the greeting; the owner answers within milliseconds unless something is wrong."""

CALL_TIMEOUT_S = 60.0
"""One request, when the caller names no deadline: a commit may wait for a slow disk's fsync."""

_FIRST_BYTES = 4096
"""Room for a reply with its length: most fit, and are read at once."""

_RETRY_S = 0.005
"""Between attempts to connect while the owner's queue of new connections is full."""


class Client:
    """One connection to the owner.  What it was promised (leases, packs, prepared names) ends when it is closed.

    Calls from several threads take turns.  After `DaemonUnreachable`, `DaemonWedged` or `ProtocolError` the connection
    is closed: a late reply must not be taken for the answer to the next request.
    """

    def __init__(self, connection: socket.socket, home: Path) -> None:
        """Wrap a connected socket; use `Client.connect`."""
        self._socket = connection
        # Waited for by deadline, and only where it must be: Python's own timeouts wait before each call.
        self._socket.setblocking(True)
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(connection, select.POLLIN)
        self._writable.register(connection, select.POLLOUT)
        self._turn = threading.Lock()
        self._welcome: m.Welcome | None = None
        self.home = home

    @classmethod
    def connect(cls, home: Path, *, timeout_s: float = CONNECT_TIMEOUT_S) -> Self:
        """Connect and exchange greetings; raise `DaemonUnreachable`, `DaemonWedged` or `ProtocolMismatch`."""
        deadline = time.monotonic() + timeout_s
        client = cls(_connect(home, deadline, timeout_s), home)
        try:
            client._welcome = client.call(m.Hello(), timeout_s=max(deadline - time.monotonic(), 0.001))
            if client._welcome.version != m.PROTOCOL_VERSION:
                raise ProtocolMismatch(m.PROTOCOL_VERSION, client._welcome.version)
        except BaseException:
            client.close()
            raise
        return client

    @property
    def welcome(self) -> m.Welcome:
        """The vault's fixed choices, as the owner told them when we connected."""
        assert self._welcome is not None, "a Client comes from Client.connect"
        return self._welcome

    @overload
    def call(self, request: m.Hello, *, timeout_s: float = ...) -> m.Welcome: ...
    @overload
    def call(self, request: m.GetStatus, *, timeout_s: float = ...) -> m.Status: ...
    @overload
    def call(self, request: m.GetStatistics, *, timeout_s: float = ...) -> m.Statistics: ...
    @overload
    def call(self, request: m.FindMissing | m.Commit | m.CheckChunks, *, timeout_s: float = ...) -> m.Missing: ...
    @overload
    def call(self, request: m.GetRows, *, timeout_s: float = ...) -> m.Rows: ...
    @overload
    def call(
        self, request: m.SaveEntry | m.GetEntry | m.SetPin | m.FindNewest, *, timeout_s: float = ...
    ) -> m.EntryReply: ...
    @overload
    def call(self, request: m.ListEntries, *, timeout_s: float = ...) -> m.Entries: ...
    @overload
    def call(self, request: m.PrepareAttach | m.PrepareTrash, *, timeout_s: float = ...) -> m.Prepared: ...
    @overload
    def call(self, request: m.SnapshotLive | m.FindSnapshot, *, timeout_s: float = ...) -> m.SnapshotReply: ...
    @overload
    def call(self, request: m.MeasurePath, *, timeout_s: float = ...) -> m.PathMeasured: ...
    @overload
    def call(self, request: m.DescribePath, *, timeout_s: float = ...) -> m.PathDescribed: ...
    @overload
    def call(self, request: m.FindDigests, *, timeout_s: float = ...) -> m.DigestsFound: ...
    @overload
    def call(self, request: m.GetActivity, *, timeout_s: float = ...) -> m.Activity: ...
    @overload
    def call(self, request: m.GetPluginUse, *, timeout_s: float = ...) -> m.PluginUse: ...
    @overload
    def call(self, request: m.CollectGarbage, *, timeout_s: float = ...) -> m.Collected: ...
    @overload
    def call(self, request: m.VerifySome, *, timeout_s: float = ...) -> m.Verified: ...
    @overload
    def call(self, request: m.NameHolders, *, timeout_s: float = ...) -> m.HoldersNamed: ...
    @overload
    def call(self, request: m.ReadAudit, *, timeout_s: float = ...) -> m.AuditRecords: ...
    @overload
    def call(self, request: m.VerifyAudit, *, timeout_s: float = ...) -> m.AuditVerified: ...
    @overload
    def call(self, request: m.RecordRun, *, timeout_s: float = ...) -> m.RunReply: ...
    @overload
    def call(self, request: m.FindRuns, *, timeout_s: float = ...) -> m.Runs: ...
    @overload
    def call(self, request: m.GetRunSums, *, timeout_s: float = ...) -> m.RunSums: ...
    @overload
    def call(
        self,
        request: m.Shutdown
        | m.EndPack
        | m.RemoveEntry
        | m.MarkUnsteady
        | m.Discard
        | m.NameSnapshot
        | m.RemoveSnapshot
        | m.MarkEvictable,
        *,
        timeout_s: float = ...,
    ) -> m.Done: ...
    def call(self, request: m.Request, *, timeout_s: float = CALL_TIMEOUT_S) -> m.Reply:
        """Send a request and return its reply.

        Raise `Refused` if the owner said no, `DaemonUnreachable` if it has gone, `DaemonWedged` if it did not answer in
        time, and `ProtocolError` if what it answered makes no sense.
        """
        reply, descriptors = self._exchange(request, timeout_s)
        _close_all(descriptors)
        return reply

    def tell(self, request: m.NoteRun, *, timeout_s: float = CALL_TIMEOUT_S) -> None:
        """Send a request that has no reply; raise `DaemonUnreachable` or `DaemonWedged` if that cannot be done."""
        frame = encode(request)
        with self._turn:
            try:
                self._send(frame, time.monotonic() + timeout_s)
            except TimeoutError:
                self.close()
                raise DaemonWedged(self.home, timeout_s) from None
            except OSError as exc:
                self.close()
                raise DaemonUnreachable(self.home, exc.strerror or str(exc)) from exc

    @overload
    def call_with_descriptors(
        self, request: m.OpenPack, *, timeout_s: float = ...
    ) -> tuple[m.PackOpened, list[int]]: ...
    @overload
    def call_with_descriptors(self, request: m.Locate, *, timeout_s: float = ...) -> tuple[m.Located, list[int]]: ...
    def call_with_descriptors(
        self, request: m.Request, *, timeout_s: float = CALL_TIMEOUT_S
    ) -> tuple[m.Reply, list[int]]:
        """Like `call`, and return the file descriptors that came with the reply; the caller closes them."""
        return self._exchange(request, timeout_s)

    @property
    def is_closed(self) -> bool:
        """Whether it is of no further use."""
        return self._socket.fileno() < 0

    def close(self) -> None:
        """Give up the connection and everything that was promised to it."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _exchange(self, request: m.Request, timeout_s: float) -> tuple[m.Reply, list[int]]:
        frame = encode(request)
        descriptors: list[int] = []
        with self._turn:
            try:
                reply = decode_reply(self._round_trip(frame, timeout_s, descriptors))
                if not isinstance(reply, (m.ANSWERS[type(request)], m.Failed)):
                    raise ProtocolError(f"{type(request).__name__} was answered with {type(reply).__name__}")
            except BaseException:
                _close_all(descriptors)
                self.close()
                raise
        if isinstance(reply, m.Failed):
            _close_all(descriptors)
            raise Refused(reply.kind, reply.message)
        return reply, descriptors

    def _round_trip(self, frame: bytes, timeout_s: float, descriptors: list[int]) -> memoryview:
        deadline = time.monotonic() + timeout_s
        received, count = bytearray(_FIRST_BYTES), 0
        try:
            # The owner may have answered (why it hangs up, say) before it read everything.
            with suppress(BrokenPipeError, ConnectionResetError):
                self._send(frame, deadline)
            while count < HEADER.size:
                count += self._receive(memoryview(received)[count:], deadline, descriptors)
            length = HEADER.size + payload_length(received)
            received += bytes(max(0, length - len(received)))
            while count < length:
                count += self._receive(memoryview(received)[count:], deadline, descriptors)
        except TimeoutError:
            raise DaemonWedged(self.home, timeout_s) from None
        except OSError as exc:
            raise DaemonUnreachable(self.home, exc.strerror or str(exc)) from exc
        return memoryview(received)[HEADER.size : length]

    def _send(self, frame: bytes, deadline: float) -> None:
        rest = memoryview(frame)
        while True:
            with suppress(BlockingIOError):
                rest = rest[self._socket.send(rest, socket.MSG_DONTWAIT) :]
            if not rest:
                return
            _await(self._writable, deadline)

    def _receive(self, room: memoryview, deadline: float, descriptors: list[int]) -> int:
        """Read what there is of the reply to one request, behind which nothing comes; return how many bytes."""
        while True:
            _await(self._readable, deadline)
            with suppress(BlockingIOError):
                count = _receive_into(self._socket, room, descriptors)
                if count == 0:
                    raise DaemonUnreachable(self.home, "it closed the connection")
                return count


def _await(ready: select.poll, deadline: float) -> None:
    """Return when the socket is ready, or has ended; raise `TimeoutError` at the deadline."""
    left_s = deadline - time.monotonic()
    if left_s <= 0 or not ready.poll(math.ceil(left_s * 1000)):
        raise TimeoutError


def _connect(home: Path, deadline: float, timeout_s: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        while True:
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                with socket_address(home) as address:
                    connection.connect(address)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise TimeoutError from None
                time.sleep(_RETRY_S)
            else:
                return connection
    except TimeoutError:
        connection.close()
        raise DaemonWedged(home, timeout_s) from None
    except PermissionError:
        connection.close()
        raise NotLetIn(home) from None
    except OSError as exc:
        connection.close()
        raise DaemonUnreachable(home, _why_unreachable(exc)) from exc
    except BaseException:
        connection.close()
        raise


def _why_unreachable(exc: OSError) -> str:
    if exc.errno == errno.ENOENT:
        return "it has not been started"
    if exc.errno == errno.ECONNREFUSED:
        return "it has stopped"
    return exc.strerror or str(exc)


def _receive_into(connection: socket.socket, buffer: memoryview, descriptors: list[int]) -> int:
    space = socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)
    count, ancillary, _flags, _address = connection.recvmsg_into(
        [buffer], space, socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
    )
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            whole = memoryview(content)[: len(content) // 4 * 4]
            descriptors.extend(whole.cast("i"))
    return count


def _close_all(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
