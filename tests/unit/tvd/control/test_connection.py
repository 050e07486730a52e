from __future__ import annotations

import os
import socket

import trio
import trio.testing

from taskvault.protocol import messages as m
from taskvault.protocol.framing import encode
from tvd.config import ControlConfig
from tvd.control.connection import Connection


async def test_descriptors_go_once_and_with_their_reply_though_the_socket_was_full() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    filled = 0
    try:
        while True:
            filled += ours.send(bytes(4096))
    except BlockingIOError:
        pass
    connection = Connection(ours, ControlConfig())
    given = os.memfd_create("given")
    reply = m.Rows([bytes(1 << 20)])
    received, descriptors = bytearray(), []

    def take() -> None:
        while len(received) < filled + len(encode(reply)):
            part, more, _, _ = socket.recv_fds(theirs, 1 << 16, 16)
            received.extend(part)
            descriptors.extend(more)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.send, reply, [given])
            await trio.testing.wait_all_tasks_blocked()
            await trio.to_thread.run_sync(take)
    assert bytes(received[filled:]) == encode(reply)
    assert len(descriptors) == 1
    assert os.fstat(descriptors[0]).st_ino == os.fstat(given).st_ino
    for descriptor in (given, *descriptors):
        os.close(descriptor)
    theirs.close()
    connection.close()
