"""A real daemon in a process of its own, and the ways to end it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from taskvault.client import Client
from taskvault.protocol.messages import SnapshotRef
from taskvault.snapshots import take_snapshot
from tests.vaults_in_order import assert_in_order

ROOT = Path(__file__).parent.parent.parent
START_TIMEOUT_S = 30.0


class Daemon:
    """One vault and, between `start` and `stop`, the process that owns it."""

    def __init__(self, home: Path, *, module: str = "tvd") -> None:
        """`module` is what is run: the daemon, or one that something was done to."""
        self.home = home
        self._module = module
        self.mount = home.parent / "mount"
        self.process: subprocess.Popen[bytes] | None = None
        self.told: dict[str, Any] = {}

    def start(self, *options: str, mounted: bool = False, env: dict[str, str] | None = None) -> dict[str, Any]:
        """Start the daemon and return what it says when it is ready or has given up."""
        reading, writing = os.pipe()
        where = ["--mount", str(self.mount)] if mounted else ["--no-mount"]
        command = [sys.executable, "-m", self._module, "--home", str(self.home), *where, "--ready-fd", str(writing)]
        self.process = subprocess.Popen(
            [*command, *options],
            pass_fds=[writing],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}", **(env or {})},
        )
        os.close(writing)
        with open(reading, "rb") as ready:
            assert select.select([ready], [], [], START_TIMEOUT_S)[0], "the daemon did not become ready"
            line = ready.readline()
        self.told = json.loads(line) if line else {}
        return self.told

    def client(self) -> Client:
        return Client.connect(self.home, timeout_s=10)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Return the exit status when the daemon has ended."""
        assert self.process is not None
        self.errors = self.process.communicate(timeout=30)[1].decode()
        return self.process.returncode

    def kill(self) -> None:
        assert self.stop(signal.SIGKILL) == -signal.SIGKILL

    def log(self) -> list[dict[str, Any]]:
        lines = (self.home / "tvd.log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def clean_up(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        if any(line.split()[4] == str(self.mount) for line in Path("/proc/self/mountinfo").read_text().splitlines()):
            subprocess.run(["umount", "-l", str(self.mount)], check=False)


@pytest.fixture
def make_daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    made: list[Daemon] = []

    def make(home: Path | None = None) -> Daemon:
        made.append(Daemon(home or tmp_path / "vault"))
        return made[-1]

    yield make
    for daemon in made:
        daemon.clean_up()


@pytest.fixture
def daemon(make_daemon: Callable[..., Daemon]) -> Daemon:
    return make_daemon()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small tree: an empty file, a small one, one of several chunks, a symlink, an executable."""
    root = tmp_path / "tree"
    (root / "deep" / "deeper").mkdir(parents=True)
    (root / "empty").touch()
    (root / "small").write_bytes(b"small\n")
    (root / "deep" / "program").write_bytes(b"#!/bin/sh\n")
    (root / "deep" / "program").chmod(0o755)
    (root / "deep" / "deeper" / "large").write_bytes(b"".join(b"%08d" % number for number in range(400_000)))
    (root / "link").symlink_to("small")
    return root


@pytest.fixture(scope="module")
def shared_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One for the tests that leave it as they found it."""
    daemon = Daemon(tmp_path_factory.mktemp("shared") / "vault")
    daemon.start()
    yield daemon
    assert daemon.stop() == 0
    assert daemon.errors == ""
    assert [line["event"] for line in daemon.log() if line["level"] == "error"] == []
    assert_in_order(daemon.home)


@pytest.fixture(scope="module")
def shared_snapshot(shared_daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> SnapshotRef:
    """A small tree that is in the shared daemon's vault."""
    tree = tmp_path_factory.mktemp("tree")
    (tree / "file").write_text("content")
    with shared_daemon.client() as client:
        return take_snapshot(client, tree, ["file"])
