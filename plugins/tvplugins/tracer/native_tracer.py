"""Tracing with our own program, which is compiled when the package is built or installed for development."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import select
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from tvfs.plugin_api.tracer import Observation, Spawn, SpawnedProcess, TracedCommand
from tvplugins.parameters import read_numbers
from tvplugins.tracer import repeats
from tvplugins.tracer.fold import observe
from tvplugins.tracer.launch import LINGER_S, TRY_S, StartedProcess, find_program
from tvplugins.tracer.links import RealDisk
from tvplugins.tracer.native_record import NativeRecord
from tvplugins.tracer.repeated import observe_repeated

PROGRAM = Path(__file__).with_name("native") / "taskvault-trace"
IMAGE = PROGRAM.with_name("taskvault-inside.bin")


class NativeTracer:
    """Its program becomes the command; what traces is a grandchild of it."""

    def __init__(self, program: Path = PROGRAM, image: Path | None = IMAGE) -> None:
        """Without an image nothing is put into traced programs, and every call that counts is stopped."""
        self._program = program
        self._image = image if image is not None and image.exists() else None
        self._trouble: str | None = None
        self._names: dict[int, str] = {}
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The entry-point name."""
        return "native"

    def trouble(self) -> str:
        """Say why it cannot serve; empty if it can."""
        with self._lock:
            if self._trouble is None:
                self._trouble = self._try()
            return self._trouble

    def start(self, command: TracedCommand, /) -> NativeProcess:
        """Start the command; raise `OSError`."""
        return self.start_by(_our_child, command)

    def start_by(self, spawn: Spawn, command: TracedCommand, /) -> NativeProcess:
        """Have the command started by `spawn`; raise `OSError`."""
        if self.trouble():
            raise OSError(errno.ENOSYS, self.trouble(), str(self._program))
        return NativeProcess([str(self._program), str(self._image or "")], command, self._names, spawn)

    def _try(self) -> str:
        if not os.access(self._program, os.X_OK):
            return "its program was not compiled; install gcc, then reinstall taskvault from source"
        try:
            command = [str(self._program), "--calls"]
            listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TRY_S).stdout
            self._names = {int(line.split()[0]): line.split()[1] for line in listed.splitlines()}
            nothing = TracedCommand(["true"], "/", {"PATH": os.defpath})
            tried = NativeProcess([str(self._program), ""], nothing, self._names, _our_child)
            if tried.wait() or tried.observe().incomplete:
                return "it could not trace the program true"
        except (OSError, subprocess.SubprocessError) as exc:
            return f"it cannot trace here ({exc})"
        return ""


class NativeProcess(StartedProcess):
    """A command under the native tracer."""

    def __init__(self, tracer: list[str], command: TracedCommand, names: Mapping[int, str], spawn: Spawn) -> None:
        found = find_program(command)
        self._names = names
        self._directory = os.path.realpath(command.directory)
        self._record: IO[bytes] = os.fdopen(_no_stream(os.memfd_create("taskvault-trace")), "rb")
        self._done, done = map(_no_stream, os.pipe())
        trouble_reader, trouble = map(_no_stream, os.pipe())
        passed = (self._record.fileno(), done, trouble)
        try:
            process = spawn([tracer[0], *map(str, passed), tracer[1], found, *command.arguments], command, passed)
            super().__init__(process)
            os.close(trouble)
            trouble = -1
            self._check_started(os.read(trouble_reader, 4), found)
        except BaseException:
            self._record.close()
            os.close(self._done)
            raise
        finally:
            os.close(done)
            os.close(trouble_reader)
            if trouble >= 0:
                os.close(trouble)

    def _check_started(self, answer: bytes, program: str) -> None:
        if answer:
            self._process.wait()
            number = int.from_bytes(answer, "little")
            raise OSError(number, os.strerror(number), program)

    def observe(self) -> Observation:
        """Wait, then return what was observed."""
        self.wait()
        select.select([self._done], [], [], LINGER_S)
        os.close(self._done)
        with self._record as record, mmap.mmap(record.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            whole, library = NativeRecord(mapped, self._names), repeats.library()
            if library is not None:
                # Where there is little memory it takes its time.
                with suppress(MemoryError):
                    return observe_repeated(
                        whole, record.fileno(), library, command=self.pid, directory=self._directory, disk=RealDisk()
                    )
            return observe(list(whole.events()), command=self.pid, directory=self._directory, disk=RealDisk())


def _our_child(arguments: Sequence[str], command: TracedCommand, descriptors: Sequence[int], /) -> SpawnedProcess:
    return subprocess.Popen(
        list(arguments),
        cwd=command.directory,
        env=dict(command.environment),
        stdin=command.stdin,
        stdout=command.stdout,
        stderr=command.stderr,
        pass_fds=(*descriptors, *command.descriptors),
    )


def _no_stream(descriptor: int) -> int:
    """Move a descriptor away from where the command's streams are, if the caller has closed its own."""
    if descriptor > 2:
        return descriptor
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(descriptor)
    return moved


def make(parameters: Mapping[str, int | str], /) -> NativeTracer:
    """Return the tracer; it has no parameters, and any raises `ValueError`."""
    read_numbers("native", parameters, {})
    return NativeTracer()
