"""Real mounts for the tests: served by another process, so that the test process is nothing but a client.

A test that hangs is freed by killing its server, after which every system call on the mount returns.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.thinned import thinned
from tests.vaults_in_order import assert_in_order, vaults_below
from tvfs.fuse.mount_table import mounts_at
from tvfs.fuse.settings import TRANSPORTS

SERVE = Path(__file__).parent / "serve.py"
ROOT = Path(__file__).parents[2]
ANSWER_TIMEOUT_S = 20.0
TEST_TIMEOUT_S = 40.0


class Server:
    """One serving process and its mount point."""

    def __init__(self, point: Path, *arguments: str) -> None:
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}"}
        command = [sys.executable, str(SERVE), str(point), *arguments]
        self.point = point
        self.work = point / "work"
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        self._unread = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    def answer(self, kind: str) -> dict[str, Any]:
        """The next line of that kind that the server prints."""
        assert self._process.stdout is not None
        while True:
            while b"\n" not in self._unread:
                ready, _, _ = select.select([self._process.stdout], [], [], ANSWER_TIMEOUT_S)
                assert ready, f"the server did not say {kind!r} in time"
                part = os.read(self._process.stdout.fileno(), 1 << 20)
                assert part, f"the server ended without saying {kind!r}"
                self._unread += part
            line, _, self._unread = self._unread.partition(b"\n")
            said: dict[str, Any] = json.loads(line)
            if said["kind"] == kind:
                return said

    def tell(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command.encode() + b"\n")
        self._process.stdin.flush()

    def ask(self, command: str, kind: str) -> dict[str, Any]:
        self.tell(command)
        return self.answer(kind)

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        return self._process.wait(ANSWER_TIMEOUT_S)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(ANSWER_TIMEOUT_S)

    def close(self) -> None:
        self.kill()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        detach(self.point)


def detach(point: Path) -> None:
    """Take away whatever is mounted, alive or dead."""
    for _ in range(8):
        if not mounts_at(str(point)):
            return
        subprocess.run(["umount", "-i", "-c", "-l", str(point)], check=False, timeout=10, capture_output=True)


Serve = Callable[..., Server]


WRITEBACK = "kernel-writeback"
"""Without passthrough, as for whoever is not root: then the kernel gathers what is written."""
GATHERING = pytest.mark.parametrize("transport", [WRITEBACK, "pyfuse3"], indirect=True)
"""For tests of what the kernel does with what it gathers."""


EVERY_WAY = pytest.mark.parametrize("transport", [*TRANSPORTS, WRITEBACK], indirect=True)
"""For tests of what is written and must be there afterwards."""


@pytest.fixture(params=thinned(TRANSPORTS))
def transport(request: pytest.FixtureRequest) -> str:
    """Each way to speak with the kernel; through libfuse where there is time, as in the daemon's own tests."""
    return str(request.param)


def _chosen(transport: str, arguments: tuple[str, ...]) -> list[str]:
    """Return the arguments with those that choose the transport."""
    chosen = [*arguments, "--transport", transport.partition("-")[0]]
    if transport == WRITEBACK:
        at = chosen.index("--settings") if "--settings" in chosen else None
        settings = {"vault": "test"} if at is None else json.loads(chosen[at + 1])
        if at is not None:
            del chosen[at : at + 2]
        chosen += ["--settings", json.dumps({**settings, "passthrough": False})]
    return chosen


@pytest.fixture
def serve(tmp_path: Path, transport: str) -> Iterator[Serve]:
    """Start a server on `tmp_path/mnt`, or another mount point, and wait until it is mounted."""
    servers: list[Server] = []

    def start(*arguments: str, point: Path | None = None, mounted: bool = True) -> Server:
        server = Server(point or tmp_path / "mnt", *_chosen(transport, arguments))
        servers.append(server)
        if mounted:
            server.answer("mounted")
        return server

    guard = threading.Timer(TEST_TIMEOUT_S, lambda: [os.kill(server.pid, signal.SIGKILL) for server in servers])
    guard.start()
    try:
        yield start
    finally:
        guard.cancel()
        for server in servers:
            server.close()


# The vault's filesystem on each way; its twin in memory, which is the model's referee, where there is time.
@pytest.fixture(
    scope="session",
    params=[
        "pyfuse3-vault",
        "kernel-vault",
        "kernel-passthrough",
        pytest.param("pyfuse3-memory", marks=pytest.mark.slow),
        pytest.param("kernel-memory", marks=pytest.mark.slow),
    ],
)
def shared_server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Server]:
    """One mount of each kind for all tests that only use it."""
    base = tmp_path_factory.mktemp("shared")
    transport, kind = request.param.split("-")
    arguments = [] if kind == "memory" else ["--vault", str(base / "vault")]
    settings = {"vault": "test", "passthrough": kind == "passthrough"}
    server = Server(base / "mnt", "--transport", transport, "--settings", json.dumps(settings), *arguments)
    try:
        server.answer("mounted")
        yield server
    finally:
        server.close()
    for home in vaults_below(base):
        assert_in_order(home)


@pytest.fixture
def place(shared_server: Server, request: pytest.FixtureRequest) -> Iterator[Path]:
    """An empty directory of the test's own, on the shared mount."""
    guard = threading.Timer(TEST_TIMEOUT_S, lambda: os.kill(shared_server.pid, signal.SIGKILL))
    guard.start()
    try:
        directory = shared_server.work / re.sub(r"\W", "_", request.node.name)
        directory.mkdir()
        yield directory
    finally:
        guard.cancel()
