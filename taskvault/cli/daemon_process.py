"""Starts `tvd`.  The client imports no server code: a program is all it knows of the daemon."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from taskvault.cli.errors import HostTrouble

START_TIMEOUT_S = 120.0
"""Recovery after a crash is O(what was being written), but the disk may be slow."""
_STOP_TIMEOUT_S = 30.0
"""As long as the daemon may take to end what it has begun."""


class Started(NamedTuple):
    """A daemon that answers."""

    pid: int
    mount: str | None


class DaemonStopped(HostTrouble):
    """The daemon said why it cannot serve."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def tvd_command(arguments: Sequence[str]) -> list[str]:
    """Return the command line that runs the daemon of this installation."""
    beside = Path(sys.executable).parent / "tvd"
    program = str(beside) if os.access(beside, os.X_OK) else shutil.which("tvd")
    return [program, *arguments] if program else [sys.executable, "-m", "tvd", *arguments]


def start(arguments: Sequence[str], *, timeout_s: float = START_TIMEOUT_S) -> Started:
    """Start the daemon in the background and return when socket and mount answer; raise `DaemonStopped`."""
    reading, writing = os.pipe()
    # Not a pipe: the daemon lives on, and must be able to write to its stderr when nobody reads it.
    with tempfile.TemporaryFile() as errors, open(reading, "rb", buffering=0) as answer:
        try:
            process = subprocess.Popen(
                tvd_command([*arguments, "--ready-fd", str(writing)]),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=[writing],
                start_new_session=True,
                cwd="/",
            )
        finally:
            os.close(writing)
        return _outcome(process, _read_line(answer.fileno(), timeout_s), timeout_s, errors)


def run_tvd(arguments: Sequence[str]) -> str:
    """Run `tvd` to its end and return what it printed; raise `DaemonStopped` with its sentence."""
    done = subprocess.run(tvd_command(arguments), stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        raise DaemonStopped(_last_sentence(done.stderr), done.returncode)
    return os.fsdecode(done.stdout)


def _read_line(descriptor: int, timeout_s: float) -> bytes | None:
    """Return the line, b"" if the daemon ended without one, or None if it did not come in time."""
    deadline, line = time.monotonic() + timeout_s, b""
    while not line.endswith(b"\n"):
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not select.select([descriptor], [], [], left_s)[0]:
            return None
        part = os.read(descriptor, 4096)
        if not part:
            break
        line += part
    return line


def _outcome(process: subprocess.Popen[bytes], line: bytes | None, timeout_s: float, errors: IO[bytes]) -> Started:
    if line is None:
        _stop(process)
        raise DaemonStopped(
            f"The daemon was not ready after {timeout_s:g} s and was stopped; look into its tvd.log.", 5
        )
    told = json.loads(line) if line else {}
    if told.get("ok"):
        process.returncode = 0  # it lives on, and is not ours to wait for
        return Started(int(told["pid"]), told.get("mount"))
    process.wait()
    if told:
        raise DaemonStopped(str(told.get("error")), int(told.get("exit_code", 5)))
    errors.seek(0)
    raise DaemonStopped(_last_sentence(errors.read()), process.returncode)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to stop if it has not; one that does not is killed."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            with suppress(subprocess.TimeoutExpired):  # stuck in the kernel: nobody can end it
                process.wait(timeout=_STOP_TIMEOUT_S)


def _last_sentence(errors: bytes) -> str:
    lines = [line.strip() for line in os.fsdecode(errors).splitlines() if line.strip()]
    return lines[-1].removeprefix("tvd: ") if lines else "The daemon ended without saying why; look into its tvd.log."


class TvdLines:
    """What a run of `tvd` prints, a JSON object a line; afterwards its exit status and what it said on stderr."""

    def __init__(self, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        self._process = process
        self._errors = errors
        self.status = 0
        self.sentence = ""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(b"{"):
                yield json.loads(line)
        self.status = self._process.wait()
        self._errors.seek(0)
        self.sentence = _last_sentence(self._errors.read())


@contextmanager
def tvd_lines(arguments: Sequence[str]) -> Iterator[TvdLines]:
    """Run `tvd` and give its lines as they come; it is asked to stop if the block ends before it does."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            tvd_command(arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
        )
        try:
            with process:
                yield TvdLines(process, errors)
        finally:
            _stop(process)
