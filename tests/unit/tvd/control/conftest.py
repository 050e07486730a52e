"""A control server over a session that only remembers, so that the server is tested without a vault."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import trio

from taskvault.protocol import messages as m
from tvd.config import ControlConfig
from tvd.control.answer import Answer, Table
from tvd.control.listener import listen
from tvd.control.peer import Admission, Peer
from tvd.control.server import ControlServer
from tvfs.errors import TaskVaultError

WELCOME = m.Welcome(m.PROTOCOL_VERSION, "00" * 16, "blake3", "fastcdc", {}, "zstd", 1 << 20, None)


class SomethingWrong(TaskVaultError):
    pass


class FakeSession:
    def __init__(self, peer: Peer, daemon: FakeDaemon) -> None:
        self.peer = peer
        self.daemon = daemon

    async def close(self) -> None:
        self.daemon.closed.append(self)
        self.daemon.session_closed.set()


@dataclass
class FakeDaemon:
    """Answers a few requests in ways that a test can steer."""

    home: Path
    nursery: trio.Nursery
    settings: ControlConfig = field(default_factory=ControlConfig)
    admission: Admission = field(default_factory=lambda: Admission(os.geteuid()))
    sessions: list[FakeSession] = field(default_factory=list)
    closed: list[FakeSession] = field(default_factory=list)
    session_closed: trio.Event = field(default_factory=trio.Event)
    request_begun: trio.Event = field(default_factory=trio.Event)
    go_on: trio.Event = field(default_factory=trio.Event)
    served: trio.Event = field(default_factory=trio.Event)
    rows: bytes = b""
    noted: list[str] = field(default_factory=list)
    server: ControlServer[FakeSession] | None = None

    def start(self, **settings: Any) -> None:
        self.settings = replace(self.settings, **settings)
        listener = listen(self.home, None)
        self.server = ControlServer(
            listener,
            settings=self.settings,
            admission=self.admission,
            table=self.table(),
            open_session=self.open_session,
        )
        self.nursery.start_soon(self._serve)

    def table(self) -> Table[FakeSession]:
        return {
            m.Hello: self.hello,
            m.GetStatus: self.refuse,
            m.GetStatistics: self.crash,
            m.FindMissing: self.wait,
            m.GetRows: self.long_answer,
            m.OpenPack: self.open_pack,
            m.NoteRun: self.note,
        }

    def open_session(self, peer: Peer) -> FakeSession:
        self.sessions.append(FakeSession(peer, self))
        return self.sessions[-1]

    async def hello(self, session: FakeSession, request: m.Hello) -> m.Welcome:
        return WELCOME

    async def refuse(self, session: FakeSession, request: m.GetStatus) -> m.Status:
        raise SomethingWrong("It is Monday; come back tomorrow.")

    async def crash(self, session: FakeSession, request: m.GetStatistics) -> m.Statistics:
        raise ZeroDivisionError("a bug")

    async def wait(self, session: FakeSession, request: m.FindMissing) -> m.Missing:
        self.request_begun.set()
        await self.go_on.wait()
        return m.Missing(request.chunk_ids)

    async def long_answer(self, session: FakeSession, request: m.GetRows) -> m.Rows:
        return m.Rows([self.rows])

    async def open_pack(self, session: FakeSession, request: m.OpenPack) -> Answer:
        descriptor = os.memfd_create("pack")
        os.write(descriptor, b"this pack")
        return Answer(m.PackOpened(7, 100), (descriptor,))

    async def note(self, session: FakeSession, request: m.NoteRun) -> m.RunReply:
        self.noted.append(request.record.root)
        self.request_begun.set()
        if request.record.root == "/refused":
            raise SomethingWrong("It is Monday; come back tomorrow.")
        return m.RunReply(request.record)

    async def _serve(self) -> None:
        assert self.server is not None
        await self.server.serve()
        self.served.set()


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[FakeDaemon]:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            yield FakeDaemon(tmp_path, nursery)
            nursery.cancel_scope.cancel()
