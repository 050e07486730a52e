"""Run the command: as it would run without us, with what it writes passed on at once and kept."""

from __future__ import annotations

import errno
import os
import select
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import IO

from taskvault.run.coarse_clock import coarse_now_ns
from taskvault.run.jobserver import jobserver_descriptors
from tvfs.plugin_api.tracer import Observation, TracedCommand, TracedProcess

SPILL_BYTES = 1 << 20
"""Output up to here is kept in memory, more goes to a temporary file."""

LINGER_S = 1.0
"""After the command has ended, how long its output may still be silent while somebody else holds it open."""

MOST_LINGER_S = 2.0
"""The same where it is not silent."""

Start = Callable[[TracedCommand], TracedProcess]
"""Starts a command that is to be traced; raises `OSError` where it cannot be started."""

_READ_BYTES = 64 << 10
_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT)
"""The terminal sends these to the command as well: forwarded only when they did not come from there."""


@dataclass(slots=True)
class Captured:
    """What a command wrote, and in which order."""

    stdout: IO[bytes] = field(default_factory=lambda: _spool())
    stderr: IO[bytes] = field(default_factory=lambda: _spool())
    order: list[tuple[int, int]] = field(default_factory=list)
    """Runs of bytes as they arrived: (1 for stdout or 2 for stderr, length)."""
    incomplete: str = ""
    """Why this is not all that was written; empty if it is."""
    unwritten: dict[int, OSError] = field(default_factory=dict)
    """Our own streams that could not be written to, and why."""

    def add(self, stream: int, part: bytes) -> None:
        """Keep what arrived, as long as there is room for it."""
        if self.incomplete:
            return
        try:
            (self.stdout if stream == 1 else self.stderr).write(part)
        except OSError as exc:
            self.incomplete = f"its output could not be kept in a temporary file ({exc.strerror})"
            return
        if self.order and self.order[-1][0] == stream:
            part_before = self.order[-1][1]
            self.order[-1] = (stream, part_before + len(part))
        else:
            self.order.append((stream, len(part)))

    def close(self) -> None:
        """Let go of temporary files."""
        for stream in (self.stdout, self.stderr):
            with suppress(OSError):  # what could not be written cannot be flushed either
                stream.close()


@dataclass(frozen=True, slots=True)
class Executed:
    """How a command ended."""

    exit_code: int
    """As the shell says it: 128 + n if signal n ended it, 127 not found, 126 not startable."""
    duration_ns: int
    started: bool
    captured: Captured | None = None
    observation: Observation | None = None
    """What it did, if it was traced."""
    process: int = 0
    """Its number."""
    began_ns: int = 0
    """On the coarse clock that stamps files: what has this time or a later one may have changed since."""


def execute(
    arguments: Sequence[str],
    *,
    workdir: Path,
    environment: Mapping[str, str],
    with_stdin: bool,
    capture: bool,
    traced: Start | None = None,
) -> Executed:
    """Run a command to its end; what it could not do to start is said on stderr as a shell would.

    With `capture`, stdin is ours or, without `with_stdin`, nothing, and stdout and stderr are pipes whose content is
    passed on; without, all three are the caller's own.  What is started by `traced` is observed.
    """
    began_ns, began_coarse_ns = time.monotonic_ns(), coarse_now_ns()
    captured = Captured() if capture else None
    observation = None
    with _signals_forwarded() as forwarding:
        given = jobserver_descriptors(environment)
        command = TracedCommand(list(arguments), str(workdir), dict(environment), descriptors=given)
        try:
            process = _start(command, traced, with_stdin=with_stdin, capture=capture)
        except OSError as exc:
            return Executed(_not_started(arguments[0], exc), time.monotonic_ns() - began_ns, False, captured)
        forwarding.append(process)
        if captured is not None:
            _pass_on(process, captured)
        status = process.wait()
        if isinstance(process, _Traced):
            observation = process.observe()
    exit_code = 128 - status if status < 0 else status
    took_ns = time.monotonic_ns() - began_ns
    return Executed(exit_code, took_ns, True, captured, observation, process.pid, began_coarse_ns)


def become(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Replace this process by the command; return the exit status only if it cannot be started."""
    # What Python changed at its start, a command must not inherit.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        if not arguments[0]:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        os.execvpe(arguments[0], list(arguments), dict(environment))  # noqa: S606  # to become it is the point
    except OSError as exc:
        return _not_started(arguments[0], exc)


class _Traced:
    """A traced command with the pipes that it writes to, as `subprocess.Popen` has them."""

    def __init__(self, start: Start, command: TracedCommand) -> None:
        ours = [os.pipe(), os.pipe()]
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) if command.stdin is None else command.stdin
        try:
            started = replace(command, stdin=nothing, stdout=ours[0][1], stderr=ours[1][1])
            self._process: TracedProcess = start(started)
        except BaseException:
            for reading, _ in ours:
                os.close(reading)
            raise
        finally:
            for _, writing in ours:
                os.close(writing)
            if nothing != command.stdin:
                os.close(nothing)
        self.stdout, self.stderr = (os.fdopen(reading, "rb", buffering=0) for reading, _ in ours)

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.poll()

    def wait(self) -> int:
        return self._process.wait()

    def observe(self) -> Observation:
        return self._process.observe()

    def send_signal(self, number: int) -> None:
        if self._process.poll() is None:
            os.kill(self._process.pid, number)


_Process = subprocess.Popen[bytes] | _Traced


def _start(command: TracedCommand, traced: Start | None, *, with_stdin: bool, capture: bool) -> _Process:
    if traced is not None:
        return _Traced(traced, replace(command, stdin=0) if with_stdin else command)
    return subprocess.Popen(
        list(command.arguments),
        cwd=command.directory,
        env=dict(command.environment),
        stdin=subprocess.DEVNULL if capture and not with_stdin else None,
        stdout=subprocess.PIPE if capture else None,
        stderr=subprocess.PIPE if capture else None,
        bufsize=0,
        pass_fds=command.descriptors,
    )


def write_all(descriptor: int, part: bytes) -> None:
    """Write to one of our own streams, however slow its reader is; raise `OSError`."""
    view = memoryview(part)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            # Somebody who shares the stream with us has made it non-blocking.
            select.select([], [descriptor], [])


def first_trouble(unwritten: Mapping[int, OSError]) -> OSError | None:
    """Return why a stream could not be written, if its reader did not simply go; lost output is no success."""
    return next((exc for exc in unwritten.values() if exc.errno not in (errno.EPIPE, errno.EBADF)), None)


def _spool() -> IO[bytes]:
    return tempfile.SpooledTemporaryFile(SPILL_BYTES)


def _pass_on(process: _Process, captured: Captured) -> None:
    """Copy both pipes to our own streams and to `captured` until they end, or the command has and they are silent."""
    assert process.stdout is not None
    assert process.stderr is not None
    give_up_s = float("inf")
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, 1)
        selector.register(process.stderr, selectors.EVENT_READ, 2)
        while selector.get_map():
            # Asked first: what is written before its end is there when it is known to have ended.
            has_ended = process.poll() is not None
            ready = selector.select(LINGER_S)
            if has_ended:
                give_up_s = min(give_up_s, time.monotonic() + MOST_LINGER_S)
                if not ready or time.monotonic() > give_up_s:
                    captured.incomplete = "a process that the command left behind still held its output"
                    break
            for key, _ in ready:
                part = os.read(key.fd, _READ_BYTES)
                if not part:
                    selector.unregister(key.fileobj)
                    continue
                captured.add(key.data, part)
                began_s = time.monotonic()
                _echo(key.data, part, captured.unwritten, process)
                give_up_s += time.monotonic() - began_s  # whoever reads us may be slow
    process.stdout.close()
    process.stderr.close()


def _echo(stream: int, part: bytes, unwritten: dict[int, OSError], process: _Process) -> None:
    if stream in unwritten:
        return
    try:
        write_all(stream, part)
    except BrokenPipeError as exc:
        # Without us the command would have met the closed pipe itself.
        unwritten[stream] = exc
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGPIPE)
    except OSError as exc:
        unwritten[stream] = exc


@contextmanager
def _signals_forwarded() -> Iterator[list[_Process]]:
    """While the body runs, signals are for the command that is put into the list; its end tells us what they did."""
    processes: list[_Process] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        if number in _FROM_TERMINAL and _in_foreground():
            return
        for process in processes:
            with suppress(ProcessLookupError):
                process.send_signal(number)

    # An ignored signal (nohup, a background job) stays ignored, also for the command, which inherits that.
    wanted = [n for n in (*_FORWARDED, *_FROM_TERMINAL) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, forward) for number in wanted}
    try:
        yield processes
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_foreground() -> bool:
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _not_started(program: str, exc: OSError) -> int:
    missing = exc.errno in (errno.ENOENT, errno.ENOTDIR)
    reason = "command not found" if missing else (exc.strerror or str(exc))
    with suppress(OSError):
        os.write(2, os.fsencode(f"tv: {program}: {reason}\n"))
    return 127 if missing else 126
