"""A call of which nothing is stored: the launcher runs it, and a process that is forked for it observes and stores."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from taskvault.run.declaration import Declaration
from taskvault.run.memory import Memory
from taskvault.run.refusals import RunPlainly, RunUnstored
from taskvault.run.report import Report
from taskvault.run.request import RunRequest
from taskvault.run.traced import TracedRun, Tracing
from taskvault.run.traced_preparation import Prepared
from taskvault.warm.launch_request import GO, NOT_HERE, done
from taskvault.warm.launched import Launcher, LauncherGone, leave_free, peer_of
from tvfs.errors import TaskVaultError
from tvfs.plugin_api import SpawningTracer, TracedCommand, TracedProcess

GO_S = 2.0
"""For a launcher to agree."""

_STREAMS = 3
_OWN_VIEW = "it looks at what the kernel says of its caller, which only that can compare"


class _NotStarted(Exception):
    """The command could not be started from here: the launcher's Python tries, and says why."""


@dataclass(frozen=True, slots=True)
class Missed:
    """What is known of the call."""

    home: Path
    request: RunRequest
    declaration: Declaration
    prepared: Prepared
    memory: Memory
    tracer: SpawningTracer
    patience_s: float

    def carry_out(self, connection: socket.socket) -> None:
        """Have the launcher run it, and answer when all is done; this process does nothing else."""
        connection.settimeout(GO_S)
        agreed, streams, _, _ = socket.recv_fds(connection, 1, _STREAMS)
        if agreed != GO or len(streams) != _STREAMS:
            return
        # What is said, and what the command writes, is for the launcher's own streams.
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        connection.settimeout(None)
        leave_free(self.declaration.environment)
        report = Report(self.home, self.request, None, patience_s=self.patience_s)
        report.declared(self.declaration)
        run = TracedRun(self.home, self.request, self.declaration, report, patience_s=self.patience_s)
        launcher = Launcher(connection)
        self.prepared.caller = peer_of(connection).process
        there = partial(launcher.heard, wait=False)
        tracing = Tracing(self.tracer.name, partial(self._start, launcher), _OWN_VIEW, there)
        try:
            status = run.carry_on(self.prepared, self.memory, tracing)
        except (_NotStarted, RunPlainly, RunUnstored):
            connection.sendall(NOT_HERE)
        except (TaskVaultError, OSError):
            if run.started:
                raise
            connection.sendall(NOT_HERE)
        else:
            connection.sendall(done(status, status, b"", b"")[0])

    def _start(self, launcher: Launcher, command: TracedCommand) -> TracedProcess:
        try:
            return self.tracer.start_by(launcher.spawn, command)
        except OSError as exc:
            raise _NotStarted from exc


def fork_for(missed: Missed, connection: socket.socket, let_go: Callable[[], None], tell: Callable[[], None]) -> int:
    """Carry it out in a process of its own, whose number is returned.

    That first calls `let_go` of what belongs to this one, and `tell` in the `except` clause of whatever goes wrong.
    """
    child = os.fork()
    if child:
        return child
    try:
        let_go()
        with suppress(LauncherGone):
            missed.carry_out(connection)
    except Exception:  # noqa: BLE001  # the outermost line of a process: the launcher goes on without it
        tell()
    finally:
        os._exit(0)
