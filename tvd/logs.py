"""The structured log: one JSON object a line, in `HOME/tvd.log` or on stderr.

Dumps of all stacks (SIGUSR1, a crash of the interpreter) go to the same place as plain text: they are written by a
signal handler in C, which also works when nothing else does.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import structlog

from tvd.config import LogConfig
from tvd.stack_dump import Dump
from tvfs.errors import TaskVaultError

FILE_NAME = "tvd.log"


class LogUnwritable(TaskVaultError):
    """The log cannot be opened."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"The log {path} cannot be written ({reason}); check the directory's permissions and its disk."
        )
        self.path = path


class LogTarget(Protocol):
    """Where lines go."""

    def write(self, text: str, /) -> object:
        """Take in one whole line, with its end."""
        ...

    def flush(self) -> object:
        """Pass everything on."""
        ...

    def fileno(self) -> int:
        """Return the descriptor behind it."""
        ...


class RotatingFile:
    """A log file that is moved aside before it grows beyond its limit: `tvd.log` to `tvd.log.1`, that to `tvd.log.2` …

    Threads: lines of several threads do not mix.  A disk that is full loses lines, never the daemon.
    """

    def __init__(self, path: Path, *, max_bytes: int, kept_files: int) -> None:
        """Open or make the file; raise `LogUnwritable`."""
        self._path = path
        self._max_bytes = max_bytes
        self._kept_files = kept_files
        self._lock = threading.Lock()
        try:
            self._descriptor = _open_appending(path)
        except OSError as exc:
            raise LogUnwritable(path, exc.strerror or str(exc)) from exc
        self._size = os.fstat(self._descriptor).st_size

    def limit(self, total_bytes: int) -> None:
        """Let all files together take at most so much from now on, if that is less than before."""
        with self._lock:
            self._max_bytes = min(self._max_bytes, total_bytes // (self._kept_files + 1))

    def write(self, text: str) -> None:
        """Append one whole line."""
        line = text.encode("utf-8", "backslashreplace")
        with self._lock, suppress(OSError):
            if self._size and self._size + len(line) > self._max_bytes:
                self._rotate()
            self._size += os.write(self._descriptor, line)

    def flush(self) -> None:
        """Nothing is held back."""

    def fileno(self) -> int:
        """Return the descriptor, the same one for the file's whole life, whatever it is moved to."""
        return self._descriptor

    def close(self) -> None:
        """Release the descriptor."""
        os.close(self._descriptor)

    def _rotate(self) -> None:
        for number in range(self._kept_files - 1, 0, -1):
            with suppress(FileNotFoundError):
                os.replace(self._numbered(number), self._numbered(number + 1))
        os.replace(self._path, self._numbered(1))
        fresh = _open_appending(self._path)
        # The stack dumps' signal handler holds the number of the descriptor, so the new file takes over that number.
        os.dup2(fresh, self._descriptor, inheritable=False)
        os.close(fresh)
        self._size = 0

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def open_log(home: Path, settings: LogConfig, *, to_stderr: bool) -> LogTarget:
    """Return where the log goes; raise `LogUnwritable`."""
    if to_stderr:
        return sys.stderr
    return RotatingFile(home / FILE_NAME, max_bytes=settings.max_bytes, kept_files=settings.kept_files)


def configure(target: LogTarget, level: str) -> None:
    """Send what is logged, by us or through the standard library, and warnings, to the target as JSON lines."""
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    render = structlog.processors.JSONRenderer(sort_keys=False, ensure_ascii=False)
    structlog.configure(
        processors=[*processors, render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(target),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*processors, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(level.upper())
    logging.captureWarnings(True)


def enable_stack_dumps(descriptor: int) -> Dump:
    """On SIGUSR1, and when the interpreter crashes, write the stacks of all threads to the descriptor.

    On SIGUSR1 what is returned then writes tasks and requests, as soon as the main thread gets to it.
    """
    dump = Dump(descriptor)
    faulthandler.enable(descriptor)
    signal.signal(signal.SIGUSR1, dump)
    faulthandler.register(signal.SIGUSR1, descriptor, all_threads=True, chain=True)
    return dump


def _open_appending(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
