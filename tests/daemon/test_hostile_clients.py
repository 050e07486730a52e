"""Clients that may connect and mean harm: others are served, memory stays bounded, and nothing is changed."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from taskvault.errors import Refused
from taskvault.protocol import messages as m
from taskvault.protocol.framing import HEADER, MAX_FRAME_BYTES, decode_reply, encode
from taskvault.snapshots import take_snapshot
from tvd.control.vault_session import MOST_PREPARED

TREE = "blake3:" + "00" * 32 + "-5"
REF = m.SnapshotRef(TREE, None, bytes(32), 0, 0)


@pytest.fixture(scope="module")
def shared(shared_daemon: Any) -> Any:
    return shared_daemon


def memory_mib(daemon: Any) -> int:
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) >> 10


def reset_memory(daemon: Any) -> None:
    Path(f"/proc/{daemon.process.pid}/clear_refs").write_text("5")


def said_to(daemon: Any, payload: bytes) -> Any:
    """Send a payload after the greeting and return the reply to it."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(daemon.home / "control.sock"))
        connection.sendall(encode(m.Hello()))
        receive(connection)
        connection.sendall(HEADER.pack(len(payload)) + payload)
        return receive(connection)


def receive(connection: socket.socket) -> Any:
    def exactly(length: int) -> bytes:
        received = b""
        while len(received) < length:
            some = connection.recv(length - len(received))
            assert some, "the connection was closed without a word"
            received += some
        return received

    return decode_reply(exactly(*HEADER.unpack(exactly(HEADER.size))))


def names() -> Iterator[bytes]:
    letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    for a in letters:
        for b in letters:
            for c in letters:
                for d in letters:
                    yield bytes((a, b, c, d))


def dictionary_bomb() -> bytes:
    """A record of a run with two million inputs: a gigabyte of objects."""
    record = encode(m.RecordRun(m.RunRecord("", 1, 2, [], "/", ".", "main", "", "hit", "", 0, inputs={"a": "b"})))[4:]
    before, _, after = record.partition(b"\xa6inputs\x81\xa1a\xa1b")
    entries = b"".join(b"\xa4" + name + b"\xa1b" for name, _ in zip(names(), range(2_000_000), strict=False))
    return before + b"\xa6inputs\xdf" + struct.pack(">I", 2_000_000) + entries + after


def list_bomb() -> bytes:
    return b"\x82\xa4type\xabFindMissing\xa9chunk_ids\xdd" + struct.pack(">I", 7_000_000) + b"\xc4\x00" * 7_000_000


def nesting_bomb() -> bytes:
    return b"\x82\xa4type\xabFindMissing\xa9chunk_ids" + b"\x91" * (8 << 20) + b"\xc0"


BOMBS = {
    "a dictionary of millions": (dictionary_bomb, "more than 400000 values"),
    "a list of millions": (list_bomb, "more than 400000 values"),
    "a list in a list in a list": (nesting_bomb, "nests more than"),
    "a list that announces more than there is": (
        lambda: b"\x82\xa4type\xabFindMissing\xa9chunk_ids\xdd\xff\xff\xff\xff" + bytes(2 << 20),
        "ends too early",
    ),
}


@pytest.mark.parametrize(("bomb", "reason"), BOMBS.values(), ids=BOMBS.keys())
def test_a_frame_that_would_take_everybodys_memory_is_refused_while_others_are_served(
    shared: Any, bomb: Callable[[], bytes], reason: str
) -> None:
    payload = bomb()
    assert len(payload) <= MAX_FRAME_BYTES
    reset_memory(shared)
    before = memory_mib(shared)
    with shared.client() as other:
        reply = said_to(shared, payload)
        assert reason in reply.message
        assert reply.kind == "ProtocolError"
        assert other.call(m.GetStatus()).healthy
    assert memory_mib(shared) - before < 120, "the frame itself, and what counts it"


def test_an_answer_longer_than_a_frame_is_not_gathered(shared: Any, tmp_path: Path) -> None:
    for number in range(256):
        (tmp_path / f"{number:0200}").touch()
    with shared.client() as client:
        page = ("treepage", take_snapshot(client, tmp_path, ["."]).index + bytes(4))
        row = client.call(m.GetRows([page])).values[0]
        assert row is not None
        reset_memory(shared)
        before = memory_mib(shared)
        with pytest.raises(Refused) as refused:
            client.call(m.GetRows([page] * 20_000))
        assert refused.value.kind == "FrameTooLarge"
        assert memory_mib(shared) - before < 100 < 20_000 * len(row) >> 20


PATHS: dict[str, Callable[[], Any]] = {
    "a path without end": lambda: m.SnapshotLive("work", ["a/" * 5_000_000]),
    "a path of nothing but dots": lambda: m.SnapshotLive("./" * 7_000_000),
    "many paths of many names": lambda: m.SnapshotLive("work", ["a/" * 2000 + str(n) for n in range(1000)]),
    "what is left out, likewise": lambda: m.SnapshotLive("work", [], ["a/" * 2000 + str(n) for n in range(1000)]),
    "a digest of a million digits": lambda: m.FindSnapshot("blake3:" + "00" * 32 + "-" + "9" * 1_000_000),
    "a reference with such a digest": lambda: m.SaveEntry(
        "main", "k", "saved", m.SnapshotRef("blake3:" + "00" * 32 + "-" + "9" * 5000, None, bytes(32), 0, 0)
    ),
    "a result of megabytes": lambda: m.SaveEntry("main", "k", "run", REF, result=bytes(2 << 20)),
    "a key of megabytes": lambda: m.GetEntry("main", "k" * (8 << 20)),
    "rows of a family of megabytes": lambda: m.GetRows([("f" * (8 << 20), b"")]),
}


@pytest.mark.parametrize("request_", PATHS.values(), ids=PATHS.keys())
def test_what_is_long_beyond_sense_is_refused_at_once(shared: Any, request_: Callable[[], Any]) -> None:
    reset_memory(shared)
    before = memory_mib(shared)
    with shared.client() as client:
        asked = request_()
        started = time.perf_counter()
        with pytest.raises(Refused) as refused:
            client.call(asked, timeout_s=30)
        assert time.perf_counter() - started < 5
        assert refused.value.kind != "Internal"
        assert client.call(m.GetStatus()).healthy
    assert memory_mib(shared) - before < 75


def test_names_are_not_prepared_without_end(daemon: Any) -> None:
    daemon.start(mounted=True)
    with daemon.client() as client:
        for _ in range(MOST_PREPARED):
            client.call(m.PrepareTrash())
        with pytest.raises(Refused, match="are prepared on this connection already"):
            client.call(m.PrepareTrash())
        with daemon.client() as other:
            other.call(m.PrepareTrash())
    assert daemon.stop() == 0
