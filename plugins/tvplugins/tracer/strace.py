"""Tracing through the program strace: portable, slow, and the referee of the other tracer."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from typing import IO

from tvfs.plugin_api.tracer import Observation, TracedCommand
from tvplugins.parameters import read_numbers
from tvplugins.tracer.calls import FORBIDDEN, SIGNATURES, Raw
from tvplugins.tracer.fold import observe
from tvplugins.tracer.launch import LINGER_S, TRY_S, StartedProcess, find_program
from tvplugins.tracer.links import RealDisk
from tvplugins.tracer.strace_output import MAKING_TASKS, StraceOutput

_POLL_S = 0.002
_CALLS = ",".join(f"?{name}" for name in (*SIGNATURES, *FORBIDDEN, *MAKING_TASKS))
"""With `?`, names that this strace does not know are passed over: fchmodat2 came with Linux 6.6."""
_OPTIONS = ("-DD", "-f", "--seccomp-bpf", "-y", "-X", "raw", "-xx", "-s", "0", "-ttt",
            "--quiet=attach,path-resolution", "-e", f"trace={_CALLS}")  # fmt: skip


class StraceTracer:
    """`-DD` makes the command our child and strace its grandchild, in a group that no terminal signals."""

    def __init__(self) -> None:
        self._trouble: str | None = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The entry-point name."""
        return "strace"

    def trouble(self) -> str:
        """Say why it cannot serve; empty if it can."""
        with self._lock:
            if self._trouble is None:
                self._trouble = _try()
            return self._trouble

    def start(self, command: TracedCommand, /) -> StracedProcess:
        """Start the command; raise `OSError`."""
        find_program(command)
        record = tempfile.TemporaryFile(prefix="taskvault-strace-")  # noqa: SIM115  # closed by `observe`
        try:
            # The record must be named; by the number of our own process, since the tracee could not open ours.
            target = f"/proc/{os.getpid()}/fd/{record.fileno()}"
            process = subprocess.Popen(
                ["strace", *_OPTIONS, "-o", target, "--", *command.arguments],
                cwd=command.directory,
                env=dict(command.environment),
                executable=shutil.which("strace"),
                stdin=command.stdin,
                stdout=command.stdout,
                stderr=command.stderr,
                pass_fds=command.descriptors,
            )
        except BaseException:
            record.close()
            raise
        return StracedProcess(process, record, command.directory)


class StracedProcess(StartedProcess):
    """A command under strace."""

    def __init__(self, process: subprocess.Popen[bytes], record: IO[bytes], directory: str) -> None:
        super().__init__(process)
        self._record = record
        self._directory = os.path.realpath(directory)

    def observe(self) -> Observation:
        """Wait, then return what was observed."""
        self.wait()
        output = StraceOutput(self.pid)
        events: list[Raw] = []
        deadline_s = time.monotonic() + LINGER_S
        with self._record as record:
            position = 0
            while True:
                part = os.pread(record.fileno(), 1 << 24, position)
                position += len(part)
                events += output.feed(part.decode("ascii", "replace"))
                if not part and (not output.alive or time.monotonic() > deadline_s):
                    break
                if not part:
                    time.sleep(_POLL_S)
        events += output.finish()
        return observe(events, command=self.pid, directory=self._directory, disk=RealDisk())


def _try() -> str:
    if shutil.which("strace") is None:
        return "strace is not installed; install the package strace"
    command = ["strace", *_OPTIONS, "-o", os.devnull, "--", "true"]
    try:
        tried = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TRY_S)
    except subprocess.TimeoutExpired:
        return f"strace did not trace the program true within {TRY_S:g} s"
    if tried.returncode:
        reason = tried.stderr.strip().splitlines()[-1:] or [f"it exits with {tried.returncode}"]
        return f"strace cannot trace here ({reason[0]})"
    return ""


def make(parameters: Mapping[str, int | str], /) -> StraceTracer:
    """Return the tracer; it has no parameters, and any raises `ValueError`."""
    read_numbers("strace", parameters, {})
    return StraceTracer()
