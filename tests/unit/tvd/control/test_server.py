from __future__ import annotations

import os
import signal
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import trio

from taskvault.client import Client
from taskvault.errors import DaemonUnreachable, DaemonWedged, ProtocolMismatch, Refused
from taskvault.protocol import messages as m
from taskvault.protocol.framing import ProtocolError, encode
from tvd.control.peer import Admission

in_thread = partial(trio.to_thread.run_sync, abandon_on_cancel=True)


async def connect(daemon: Any, **options: Any) -> Client:
    client: Client = await in_thread(partial(Client.connect, daemon.home, **options))
    return client


async def call(client: Client, request: Any, **options: Any) -> Any:
    return await in_thread(partial(client.call, request, **options))


def raw_connection(daemon: Any) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    connection.connect(str(daemon.home / "control.sock"))
    return connection


def read_all(connection: socket.socket) -> bytes:
    received = b""
    while some := connection.recv(1 << 16):
        received += some
    return received


async def test_a_client_learns_what_the_vault_is_when_it_connects(daemon: Any) -> None:
    daemon.start()
    client = await connect(daemon)
    assert client.welcome.hash == "blake3"
    assert daemon.sessions[0].peer.pid == os.getpid()
    assert daemon.sessions[0].peer.uid == os.geteuid()
    client.close()


async def test_a_refusal_carries_its_kind_and_its_sentence_and_the_connection_goes_on(daemon: Any) -> None:
    daemon.start()
    with await connect(daemon) as client:
        with pytest.raises(Refused, match="It is Monday") as refused:
            await call(client, m.GetStatus())
        assert refused.value.kind == "SomethingWrong"
        daemon.go_on.set()
        assert (await call(client, m.FindMissing([b"x"]))).chunk_ids == [b"x"]


async def test_a_handler_that_crashes_is_logged_and_everything_lives_on(
    daemon: Any, expect_log: Callable[[str], None]
) -> None:
    expect_log("a request failed")
    daemon.start()
    with await connect(daemon) as client:
        with pytest.raises(Refused, match="a bug") as refused:
            await call(client, m.GetStatistics())
        assert refused.value.kind == "Internal"
        daemon.go_on.set()
        await call(client, m.FindMissing([]))


async def test_a_request_that_nobody_handles_is_refused(daemon: Any, expect_log: Callable[[str], None]) -> None:
    expect_log("a request failed")
    daemon.start()
    client = await connect(daemon)
    with client, pytest.raises(Refused):
        await call(client, m.Shutdown())


async def test_descriptors_arrive_with_their_reply_and_are_closed_by_the_sender(daemon: Any) -> None:
    daemon.start()
    with await connect(daemon) as client:
        before = len(os.listdir("/proc/self/fd"))
        opened, descriptors = await in_thread(partial(client.call_with_descriptors, m.OpenPack(1)))
        assert opened == m.PackOpened(7, 100)
        assert os.pread(descriptors[0], 100, 0) == b"this pack"
        assert not os.get_inheritable(descriptors[0])
        os.close(descriptors[0])
        await call(client, m.OpenPack(1))  # asked for without wanting the descriptor
        assert len(os.listdir("/proc/self/fd")) == before


async def test_a_reply_that_is_too_long_is_refused_instead(daemon: Any) -> None:
    daemon.rows = bytes((16 << 20) + 1)
    daemon.start()
    with await connect(daemon) as client:
        with pytest.raises(Refused) as refused:
            await call(client, m.GetRows([]))
        assert refused.value.kind == "FrameTooLarge"
        daemon.rows = bytes(12 << 20)
        assert len((await call(client, m.GetRows([]))).values[0]) == 12 << 20


async def test_what_a_connection_was_promised_ends_with_it(daemon: Any) -> None:
    daemon.start()
    client = await connect(daemon)
    assert daemon.closed == []
    client.close()
    await daemon.session_closed.wait()
    assert daemon.closed == daemon.sessions


async def test_a_client_that_dies_in_the_middle_of_a_request_gives_everything_back(daemon: Any) -> None:
    daemon.start()
    with raw_connection(daemon) as connection:
        connection.sendall(encode(m.Hello()) + encode(m.FindMissing([])))
        await daemon.request_begun.wait()
    daemon.go_on.set()
    await daemon.session_closed.wait()


async def test_a_client_that_is_slow_does_not_keep_others_waiting(
    daemon: Any, expect_log: Callable[[str], None]
) -> None:
    expect_log("connection closed")
    daemon.rows = bytes(12 << 20)
    daemon.start(send_timeout_s=0.5)
    with raw_connection(daemon) as lazy:
        lazy.sendall(encode(m.Hello()) + encode(m.GetRows([])))
        with await connect(daemon) as client:
            daemon.go_on.set()
            await call(client, m.FindMissing([]))
            await daemon.session_closed.wait()  # the lazy one's: it never read its reply


def noted(root: str) -> m.NoteRun:
    return m.NoteRun(m.RunRecord("", 1, 2, ["make"], root, ".", "main", "", "hit", "", 0))


async def test_what_is_told_is_never_answered_not_even_if_it_is_refused(daemon: Any) -> None:
    daemon.start()
    daemon.go_on.set()
    with await connect(daemon) as client:
        for number in range(3):
            await in_thread(client.tell, noted("/one"))
            await in_thread(client.tell, noted("/refused"))
            # Whatever came back of it would be taken for the answer to this.
            assert (await call(client, m.FindMissing([b"%d" % number]))).chunk_ids == [b"%d" % number]
    assert daemon.noted == ["/one", "/refused"] * 3


async def test_to_tell_a_daemon_that_has_gone_is_an_error_that_says_so(daemon: Any) -> None:
    daemon.start()
    with await connect(daemon) as client:
        daemon.server.drain()
        await daemon.served.wait()
        with pytest.raises(DaemonUnreachable):
            client.tell(noted("/one"))
        assert client.is_closed


@pytest.mark.parametrize("cut", [1, 3, 4, 5, 40])
async def test_requests_that_come_in_other_pieces_than_frames_are_all_answered(daemon: Any, cut: int) -> None:
    daemon.start()
    daemon.go_on.set()
    frames = encode(m.Hello()) + b"".join(encode(m.FindMissing([b"%d" % number])) for number in range(3))
    with raw_connection(daemon) as connection:
        connection.sendall(frames[:cut])
        await trio.testing.wait_all_tasks_blocked()
        connection.sendall(frames[cut:])
        connection.shutdown(socket.SHUT_WR)
        answered = await in_thread(read_all, connection)
    assert answered.endswith(b"".join(encode(m.Missing([b"%d" % number])) for number in range(3)))


async def test_one_who_sends_without_a_pause_does_not_keep_others_waiting(daemon: Any) -> None:
    daemon.start()
    daemon.go_on.set()
    noted_before: list[int] = []

    async def other() -> None:
        noted_before.append(len(daemon.noted))

    with raw_connection(daemon) as connection:
        connection.sendall(encode(m.Hello()) + b"".join(encode(noted(f"/{number}")) for number in range(50)))
        await daemon.request_begun.wait()
        daemon.nursery.start_soon(other)
        await trio.testing.wait_all_tasks_blocked()
    assert noted_before[0] < 50
    assert len(daemon.noted) == 50


HOSTILE = {
    "not a message": struct.pack(">I", 4) + b"\xde\xad\xbe\xef",
    "an empty frame": struct.pack(">I", 0),
    "a frame of 4 GiB": struct.pack(">I", 2**32 - 1),
    "a reply": encode(m.Done()),
    "nested a thousand deep": struct.pack(">I", 50_000) + b"\x91" * 50_000,
    "no greeting": encode(m.GetStatus()),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
async def test_a_hostile_frame_ends_its_own_connection_only(
    daemon: Any, hostile: bytes, expect_log: Callable[[str], None]
) -> None:
    expect_log("connection closed")
    daemon.start()
    with await connect(daemon) as client:
        with raw_connection(daemon) as attacker:
            attacker.sendall(hostile)
            assert b"broke the protocol" in await in_thread(read_all, attacker)
        daemon.go_on.set()
        await call(client, m.FindMissing([]))


async def test_half_a_frame_is_not_waited_for_for_ever(daemon: Any, expect_log: Callable[[str], None]) -> None:
    expect_log("connection closed")
    daemon.start(receive_timeout_s=0.1)
    with raw_connection(daemon) as attacker:
        attacker.sendall(struct.pack(">I", 1000) + b"abc")
        assert b"took longer" in await in_thread(read_all, attacker)


async def test_descriptors_that_a_client_sends_are_not_kept(daemon: Any) -> None:
    daemon.start()
    with raw_connection(daemon) as attacker:
        before = len(os.listdir("/proc/self/fd"))
        socket.send_fds(attacker, [encode(m.Hello())], [0] * 100)
        assert await in_thread(attacker.recv, 4096)
        # One more: the daemon's end of the connection.
        assert len(os.listdir("/proc/self/fd")) <= before + 1


async def test_more_connections_than_allowed_are_told_so(daemon: Any, expect_log: Callable[[str], None]) -> None:
    expect_log("connection refused")
    daemon.start(max_connections=1)
    with await connect(daemon):
        with pytest.raises(Refused, match="already serves 1 connections") as refused:
            await connect(daemon)
        assert refused.value.kind == "TooManyConnections"


async def test_a_user_who_is_not_admitted_is_told_whom_to_ask(daemon: Any, expect_log: Callable[[str], None]) -> None:
    if os.geteuid() == 0:
        # Root is always admitted; what is refused to others is tested with the check itself, in test_peer.py.
        daemon.admission = NobodyAdmitted(0)
    else:
        daemon.admission = Admission(os.geteuid() + 1)
    expect_log("connection refused")
    daemon.start()
    with pytest.raises(Refused, match="ask its owner"):
        await connect(daemon)
    assert daemon.sessions == []


class NobodyAdmitted(Admission):
    def allows(self, peer: Any) -> bool:
        return False


async def test_a_drain_answers_the_request_in_hand_and_closes_the_idle(daemon: Any) -> None:
    daemon.start()
    idle = await connect(daemon)
    busy = await connect(daemon)
    answers: list[Any] = []

    async def ask() -> None:
        answers.append(await call(busy, m.FindMissing([b"1"])))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await daemon.request_begun.wait()
        daemon.server.drain()
        await trio.testing.wait_all_tasks_blocked()
        assert not daemon.served.is_set()
        daemon.go_on.set()
    assert answers == [m.Missing([b"1"])]
    await daemon.served.wait()
    with pytest.raises(DaemonUnreachable):
        await call(idle, m.FindMissing([]))
    with pytest.raises(DaemonUnreachable, match="it has stopped"):
        await connect(daemon)
    busy.close()


async def test_a_client_does_not_wait_for_a_daemon_that_does_not_answer(daemon: Any) -> None:
    daemon.start()
    with await connect(daemon) as client:
        with pytest.raises(DaemonWedged, match=r"0\.05 s"):
            await call(client, m.FindMissing([]), timeout_s=0.05)
        # A late answer must not be taken for the next one's.
        with pytest.raises(DaemonUnreachable):
            await call(client, m.GetStatus())
    daemon.go_on.set()


def test_a_deadline_holds_for_all_of_a_call_however_slowly_it_is_taken(tmp_path: Any) -> None:
    ours, theirs = socket.socketpair()
    client = Client(ours, tmp_path)
    ended, taken = threading.Event(), [0]
    request = m.FindMissing([b"x" * 32] * 400_000)

    def take_slowly() -> None:
        while not ended.wait(0.03):
            with suppress(OSError):
                taken[0] += len(theirs.recv(1 << 16))

    taking = threading.Thread(target=take_slowly)
    taking.start()
    try:
        with pytest.raises(DaemonWedged):
            client.call(request, timeout_s=0.2)
    finally:
        ended.set()
        taking.join()
        theirs.close()
    # Each piece alone is taken within the deadline, and so all of them would be.
    assert taken[0] < len(encode(request)) / 2


def test_a_signal_in_the_middle_does_not_begin_the_deadline_anew(tmp_path: Any) -> None:
    ours, theirs = socket.socketpair()
    heard: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: heard.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        with theirs, Client(ours, tmp_path) as client, pytest.raises(DaemonWedged):
            client.call(m.GetStatus(), timeout_s=0.3)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert heard


def test_without_a_socket_the_daemon_is_unreachable_at_once(tmp_path: Any) -> None:
    with pytest.raises(DaemonUnreachable, match="`tv up`"):
        Client.connect(tmp_path)


def test_a_socket_that_is_never_accepted_from_is_a_wedged_daemon(tmp_path: Any) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "control.sock"))
        listener.listen(1)
        with pytest.raises(DaemonWedged):
            Client.connect(tmp_path, timeout_s=0.05)
        # The queue of new connections is full now.
        for _ in range(5):
            with pytest.raises(DaemonWedged):
                Client.connect(tmp_path, timeout_s=0.05)


def serve_once(listener: socket.socket, answer: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(1 << 16)
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1 << 16)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (encode(m.Welcome(99, "", "", "", {}, "", 1, None)), ProtocolMismatch),
        (encode(m.Done()), ProtocolError),
        (b"", DaemonUnreachable),
        (b"\0\0", DaemonUnreachable),
        (struct.pack(">I", 3) + b"\xc1\xc1\xc1", ProtocolError),
        (struct.pack(">I", 2**32 - 1), ProtocolError),
        (encode(m.Failed("NotAdmitted", "No.")), Refused),
    ],
    ids=["another version", "another reply", "nothing", "half a header", "no message", "a frame of 4 GiB", "a refusal"],
)
async def test_a_strange_daemon_is_an_error_with_a_name(tmp_path: Any, answer: bytes, error: type[Exception]) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "control.sock"))
        listener.listen(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_thread, serve_once, listener, answer)
            with pytest.raises(error):
                await in_thread(partial(Client.connect, tmp_path, timeout_s=5))
