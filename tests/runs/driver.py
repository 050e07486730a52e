"""Carries out many `tv` commands from one process that has everything loaded: each in a fork of its own.

A fork differs from a process that was started only in what it need not load again, so it costs tens of milliseconds.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

TIMEOUT_S = 60.0
_MOST_REQUEST_BYTES = 1 << 17


@dataclass(frozen=True)
class Said:
    """What became of a command."""

    status: int
    out: bytes
    err: bytes

    @property
    def report(self) -> str:
        """The last line that is ours."""
        return next((line for line in reversed(os.fsdecode(self.err).splitlines()) if line.startswith("tv: ")), "")

    @property
    def is_hit(self) -> bool:
        return self.report.startswith("tv: hit")

    @property
    def is_stored(self) -> bool:
        return self.report.endswith(", stored")

    @property
    def command_err(self) -> bytes:
        """What the command itself wrote to stderr."""
        return b"".join(line for line in self.err.splitlines(keepends=True) if not line.startswith(b"tv: "))


class Running(Protocol):
    """A command that runs, wherever."""

    def wait(self) -> Said:
        """Return when it has ended."""
        ...


class Starter(Protocol):
    """Whatever starts `tv`."""

    def start(
        self, arguments: Sequence[str], *, cwd: Path, environment: Mapping[str, str], stdin: int | None = None,
        umask: int = 0o022, off: Sequence[str] = (),
    ) -> Running:  # fmt: skip
        """Start `tv ARGUMENTS` with rules switched off."""
        ...


class Started:
    """A command that runs."""

    def __init__(self, answers: socket.socket, out: Any, err: Any) -> None:
        self._answers, self._out, self._err = answers, out, err
        answers.settimeout(TIMEOUT_S)
        self.pid = int(answers.recv(32))

    def out_so_far(self) -> bytes:
        """What it has written to stdout."""
        return os.pread(self._out.fileno(), _MOST_REQUEST_BYTES, 0)

    def err_so_far(self) -> bytes:
        """The same for stderr."""
        return os.pread(self._err.fileno(), _MOST_REQUEST_BYTES, 0)

    def wait(self) -> Said:
        """Return when it has ended."""
        with self._answers, self._out as out, self._err as err:
            status = int(self._answers.recv(32))
            for file in (out, err):
                file.seek(0)
            return Said(status, out.read(), err.read())


class Driver:
    """The process, and how it is asked."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * _MOST_REQUEST_BYTES)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.runs.driver", str(theirs.fileno())],
                cwd=Path(__file__).parents[2], env=dict(environment), pass_fds=[theirs.fileno()],
            )  # fmt: skip

    def start(
        self, arguments: Sequence[str], *, cwd: Path, environment: Mapping[str, str], stdin: int | None = None,
        umask: int = 0o022, off: Sequence[str] = (),
    ) -> Started:  # fmt: skip
        """Start `tv ARGUMENTS` with rules switched off."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        out, err = (tempfile.TemporaryFile() for _ in range(2))  # noqa: SIM115  # until it has ended
        request = {"arguments": [os.fsencode(each).hex() for each in arguments], "cwd": os.fsencode(cwd).hex(),
                   "environment": dict(environment), "umask": umask, "off": list(off)}  # fmt: skip
        with theirs, open(os.devnull, "rb") as nothing:
            given = [nothing.fileno() if stdin is None else stdin, out.fileno(), err.fileno(), theirs.fileno()]
            socket.send_fds(self._socket, [json.dumps(request).encode()], given)
        return Started(ours, out, err)

    def stop(self) -> None:
        self._socket.close()
        assert self._process.wait(TIMEOUT_S) == 0


def serve(requests: socket.socket) -> None:
    """Fork for each request until the other side closes."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, _MOST_REQUEST_BYTES, 4)
        if not message:
            return
        if os.fork() == 0:
            requests.close()
            _watch(json.loads(message), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _watch(request: Any, descriptors: list[int]) -> None:
    """Tell the number and then the exit status of the command."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *streams, told = descriptors
    os.set_inheritable(told, False)
    pid = os.fork()
    if pid == 0:
        os.close(told)
        os._exit(_carry_out(request, streams))
    with socket.socket(fileno=told) as answers:
        answers.send(str(pid).encode())
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        answers.send(str(status).encode())
    os._exit(0)


def _carry_out(request: Any, streams: Sequence[int]) -> int:
    from taskvault.cli import main

    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.umask(request["umask"])
    os.chdir(bytes.fromhex(request["cwd"]))
    tempfile.tempdir = None
    if request["off"]:
        from tests.runs.rules_off import SWITCHES

        for rule in request["off"]:
            SWITCHES[rule].turn_off()
    sys.argv = ["tv", *(os.fsdecode(bytes.fromhex(each)) for each in request["arguments"])]
    try:
        main()
        return 0
    except SystemExit as exc:
        sys.stdout.flush()
        return int(exc.code or 0)
    except BaseException:  # noqa: BLE001  # the outermost line of this process
        import traceback

        traceback.print_exc()
        return 70


def _load() -> None:
    """Import what commands need; a thread that was started before a fork would be missing after it."""
    from taskvault.cli.application import every_command
    from tests.runs.rules_off import SWITCHES
    from tvfs.plugin_api import PluginRegistry

    assert SWITCHES
    assert list(every_command())
    registry = PluginRegistry()
    registry.hash_function("blake3")
    assert not registry.tracer("native").trouble()
    assert threading.active_count() == 1
    gc.freeze()


if __name__ == "__main__":
    _load()
    with socket.socket(fileno=int(sys.argv[1])) as _requests:
        serve(_requests)
