"""A run of which nothing is declared: found by what earlier runs of it looked at, replayed, or traced and stored."""

from __future__ import annotations

import gc
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from taskvault.client import Client
from taskvault.plugins import plugin_registry
from taskvault.protocol.messages import Entry
from taskvault.run.audit_after_hit import audit_sometimes
from taskvault.run.declaration import Declaration
from taskvault.run.digests import Digests
from taskvault.run.execute import Executed, Start, execute, first_trouble
from taskvault.run.lookup import find, prepare, shared_memory, standing_keys
from taskvault.run.memory import Memory
from taskvault.run.named_outputs import named_outputs
from taskvault.run.nested import Note, directory_from, environment_for, is_inside, is_traced, leave, without_lookups
from taskvault.run.refresh import forget
from taskvault.run.refusals import WRITE_TROUBLE, RunUnstored
from taskvault.run.report import Outcome, Report
from taskvault.run.request import Mode, RunRequest
from taskvault.run.staging import remove_left
from taskvault.run.stdin import READ_IT, Stdin
from taskvault.run.traced_preparation import Prepared
from taskvault.run.turns import turn
from tvfs.errors import TaskVaultError

if TYPE_CHECKING:
    from taskvault.run.replay import StoredResult
    from taskvault.run.traced_storing import Storing
    from tvfs.plugin_api import Tracer

TRACERS = ("native", "strace")
"""The first that can serve is taken."""


@dataclass(frozen=True, slots=True)
class Tracing:
    """How the command is started and observed."""

    name: str
    """Of the tracer."""
    start: Start
    objection: str = ""
    """Why what was made by looking at one's own entries in /proc cannot be found by this process; empty if it can."""
    check_wanted: Callable[[], object] = lambda: None
    """Raises if nobody waits any more for what becomes of the run."""


class TracedRun:
    """Carries out one run of which nothing is declared."""

    def __init__(
        self, home: Path, request: RunRequest, declaration: Declaration, report: Report, *, patience_s: float
    ) -> None:
        self._home = home
        self._request = request
        self._declaration = declaration
        self._report = report
        self._patience_s = patience_s
        self._stale: Entry | None = None
        """A result that was found and could not be given back."""
        self._memory = Memory()
        """Of the files that have been read."""
        self.started = False
        """Whether the command was: then it must not be started again."""

    def carry_out(self, client: Client) -> int:
        """Return the exit status; raise `RunPlainly` or `RunUnstored` before the command was started."""
        prepared = prepare(client, self._request, self._declaration)
        self._memory = shared_memory(self._request, prepared.hash_function)
        self._report.prepared(prepared)
        if self._request.mode is Mode.NORMAL:
            status = self._replayed(client, prepared, None)
            if status is not None:
                return status
        notes = directory_from(self._request.environment)
        if notes is not None:
            self._forget_standing(client, prepared, None)
            client.close()
            return self._execute_inside(prepared, notes)
        tracer = working_tracer()
        if tracer is None:
            raise RunUnstored("no tracer works here; tv doctor says why")
        return self._in_turn(prepared, Tracing(tracer.name, tracer.start), client)

    def carry_on(self, prepared: Prepared, memory: Memory, tracing: Tracing) -> int:
        """Go on where a look-up of the same request has just found nothing; otherwise as `carry_out`."""
        self._memory = memory
        self._report.prepared(prepared)
        return self._in_turn(prepared, tracing, None)

    def _in_turn(self, prepared: Prepared, tracing: Tracing, client: Client | None) -> int:
        # One run of each kind at a time, wherever its root is: the others find its result.
        waited: list[int] = []
        names = [prepared.weak_hash.hex(), self._request.scope]
        try:
            with turn(Path("/"), names, waiting=lambda pid: self._say_waiting(pid, waited)):
                known = None
                if waited or self._request.mode is not Mode.NORMAL:
                    client = client or Client.connect(self._home, timeout_s=self._patience_s)
                    if self._request.mode is Mode.NORMAL:
                        status = self._replayed(client, prepared, tracing)
                        if status is not None:
                            return status
                    elif self._request.mode is Mode.CHECK:
                        known = self._find(client, prepared)
                        _check_judged(prepared, tracing)
                    else:
                        self._forget_standing(client, prepared, tracing)
                if client is not None:
                    client.close()
                return self._execute(prepared, known, tracing)
        except OSError as exc:
            if self.started:
                raise
            raise RunUnstored(f"its turn cannot be taken ({exc.strerror})") from exc

    def _say_waiting(self, process: int, waited: list[int]) -> None:
        waited.append(process)
        self._report.say(f"waiting for process {process}, which runs the same")

    # --- found -------------------------------------------------------------------------------------------------------

    def _replayed(self, client: Client, prepared: Prepared, waited: Tracing | None) -> int | None:
        """Return the exit status of a stored result, or None if the command must run."""
        found = self._find(client, prepared)
        if waited is not None:
            waited.check_wanted()
            _check_judged(prepared, waited)
        if found is None:
            return None
        began_ns = time.monotonic_ns()
        is_alone = not is_inside(self._request.environment)
        if is_alone:
            remove_left(prepared.root)
        try:
            result = read_result(found, client.welcome.hash)
            trouble = replay(client, result, prepared.root, umask=prepared.umask)
        except (TaskVaultError, OSError) as exc:
            self._report.say(f"running again: {exc}")
            self._stale = found
            return None
        run = self._report.hit(found, exit_code=result.exit_code, duration_ns=time.monotonic_ns() - began_ns)
        # Inside a traced run it would be a child that outlives the command.
        if is_alone:
            audit_sometimes(self._home, self._request.environment, self._declaration.rules, run)
        return self._status(result.exit_code, trouble)

    def _find(self, client: Client, prepared: Prepared) -> Entry | None:
        return find(client, prepared, self._request.scope, self._memory, patience_s=self._patience_s)

    def _forget_standing(self, client: Client, prepared: Prepared, tracing: Tracing | None) -> None:
        """Forget whatever would be replayed now if it was not to run in any case; raise `RunUnstored`.

        A result by another pathset than the new one has would be found beside it.
        """
        if self._request.mode is not Mode.REFRESH or not self._request.store:
            return
        keys = standing_keys(client, prepared, self._request.scope, self._memory, patience_s=self._patience_s)
        if tracing is not None:
            _check_judged(prepared, tracing)
        forget(client, self._request.scope, keys)

    def _status(self, exit_code: int, trouble: OSError | None) -> int:
        """Return the exit status: that of the command, unless it is success and what it wrote was lost."""
        if trouble is None:
            return exit_code
        self._report.say(f"what the command wrote could not be passed on: {trouble.strerror}")
        return exit_code or WRITE_TROUBLE

    # --- run ---------------------------------------------------------------------------------------------------------

    def _execute(self, prepared: Prepared, known: Entry | None, tracing: Tracing) -> int:
        loading = threading.Thread(target=_load_storing)
        loading.start()
        remove_left(prepared.root)
        with _uncollected(), _scratch(prepared) as (temporary, notes):
            environment = environment_for(self._declaration.environment, str(temporary), str(notes))
            stdin = Stdin()
            self.started = True
            executed = execute(
                self._request.command,
                workdir=self._request.workdir,
                environment=environment,
                with_stdin=self._request.with_stdin or stdin.is_given,
                capture=True,
                traced=tracing.start,
            )
            if executed.observation is not None:
                seen = without_lookups(executed.observation, notes, prepared.places.sockets)
                executed = replace(executed, observation=seen)
            loading.join()
            from taskvault.run.traced_storing import Storing

            digests = Digests(prepared.hash_function, self._memory)
            storing = Storing(self._home, self._request, prepared, tracing, digests, replace=self._stale is not None)
            status = self._finish(executed, stdin, storing, known)
            storing.store_inner(executed, notes)
        return status

    def _finish(self, executed: Executed, stdin: Stdin, storing: Storing, known: Entry | None) -> int:
        assert executed.captured is not None, "a traced run is captured"
        status = self._status(executed.exit_code, first_trouble(executed.captured.unwritten))
        if executed.exit_code:
            self._report.executed(executed, Outcome.FAILED, f"exit status {executed.exit_code}")
            return status
        reason = READ_IT if stdin.was_read() and not self._request.with_stdin else ""
        if self._request.mode is Mode.CHECK:
            reason = reason or storing.difference(executed, known)
            self._report.executed(executed, Outcome.NOT_STORED, f"check: {reason or 'the same as is stored'}")
            return 1 if reason else 0
        reason = reason or storing.store(executed)
        self._report.key = storing.key
        self._report.executed(executed, Outcome.NOT_STORED if reason else Outcome.STORED, reason)
        return status

    def _execute_inside(self, prepared: Prepared, notes: Path) -> int:
        """Run inside a traced run, which sees what the command does and stores the result."""
        with _scratch(prepared) as (temporary, _):
            stdin = Stdin()
            self.started = True
            environment = environment_for(self._declaration.environment, str(temporary), str(notes))
            executed = execute(
                self._request.command,
                workdir=self._request.workdir,
                environment=environment,
                with_stdin=self._request.with_stdin or stdin.is_given,
                capture=True,
            )
            ended_ns = time.time_ns()
        assert executed.captured is not None, "a traced run is captured"
        status = self._status(executed.exit_code, first_trouble(executed.captured.unwritten))
        if executed.exit_code:
            self._report.executed(executed, Outcome.FAILED, f"exit status {executed.exit_code}")
        elif self._request.mode is Mode.CHECK:
            self._report.executed(executed, Outcome.NOT_STORED, "check: a run inside another cannot be compared")
            return 1
        elif not self._request.store:
            self._report.executed(executed, Outcome.NOT_STORED, "storing was turned off")
        elif stdin.was_read() and not self._request.with_stdin:
            self._report.executed(executed, Outcome.NOT_STORED, READ_IT)
        else:
            with suppress(OSError):
                leave(notes, self._note(prepared, executed, ended_ns))
            self._report.passed_on(executed)
        return status

    def _note(self, prepared: Prepared, executed: Executed, ended_ns: int) -> Note:
        captured, places = executed.captured, prepared.places
        assert captured is not None, "a traced run is captured"
        streams = []
        for stream in (captured.stdout, captured.stderr):
            stream.seek(0)
            streams.append(stream.read())
        return Note(
            process=executed.process,
            began_ns=executed.began_ns,
            ended_ns=ended_ns,
            duration_ns=executed.duration_ns,
            weak=prepared.weak,
            root=places.root,
            scratch=places.scratch,
            home=places.home,
            sockets=places.sockets,
            channels=places.channels,
            ignored=places.ignored,
            caches=places.caches,
            prepared_in=places.prepared,
            logical_roots=prepared.logical_roots,
            umask=prepared.umask,
            scope=self._request.scope,
            environment=dict(self._declaration.environment),
            replace=self._stale is not None or self._request.mode is Mode.REFRESH,
            stdout=streams[0],
            stderr=streams[1],
            order=captured.order,
            incomplete=captured.incomplete,
            started_ns=time.time_ns() - executed.duration_ns,
            refresh=self._request.mode is Mode.REFRESH,
            named=named_outputs(self._request.command, self._request.workdir, places.root, executed.began_ns),
        )


def read_result(entry: Entry, function: str) -> StoredResult:
    """Return what an entry says; raise `ResultUnusable`."""
    # Imported here, as below: a miss needs nothing of it before its command has been started.
    from taskvault.run import replay as replaying

    return replaying.read_result(entry, function)


def replay(client: Client, result: StoredResult, root: Path, *, umask: int) -> OSError | None:
    """Put all outputs in place, then write what was written; see `taskvault.run.replay`."""
    from taskvault.run import replay as replaying

    return replaying.replay(client, result, root, umask=umask)


def _load_storing() -> None:
    """Load what is needed when the command has ended, while it runs."""
    import taskvault.run.traced_storing  # noqa: F401  # loaded is all that it shall be


def _check_judged(prepared: Prepared, tracing: Tracing) -> None:
    """Raise `RunUnstored` if a look-up asked this process what only its caller can tell."""
    if tracing.objection and prepared.own_view:
        raise RunUnstored(tracing.objection)


def working_tracer() -> Tracer | None:
    """Return the first tracer that can serve here."""
    if is_traced():
        return None
    registry = plugin_registry()
    for name in TRACERS:
        with suppress(TaskVaultError):
            tracer = registry.tracer(name)
            if not tracer.trouble():
                return tracer
    return None


@contextmanager
def _uncollected() -> Iterator[None]:
    """What is observed of a run is kept to the end and has no cycles: to look for some takes a third of the time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@contextmanager
def _scratch(prepared: Prepared) -> Iterator[tuple[Path, Path]]:
    """Yield two empty directories of the run's own, for temporary files and for notes of inner runs.

    Their names are the same whenever the same runs, so that nothing that names them differs.
    """
    _ = prepared.places  # as they are before the command can change where they lead
    wanted = Path(prepared.scratch)
    try:
        wanted.parent.mkdir(mode=0o700, exist_ok=True)
        status = os.lstat(wanted.parent)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            raise RunUnstored(f"{wanted.parent} belongs to somebody else; remove it, or set TMPDIR")
        shutil.rmtree(wanted, ignore_errors=True)
        for directory in (wanted, wanted / "tmp", wanted / "inner"):
            directory.mkdir(mode=0o700)
    except OSError as exc:
        raise RunUnstored(f"it can have no directory for temporary files ({exc.filename}: {exc.strerror})") from exc
    try:
        yield wanted / "tmp", wanted / "inner"
    finally:
        shutil.rmtree(wanted, ignore_errors=True)
