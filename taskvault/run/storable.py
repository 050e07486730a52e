"""A run whose result may be stored: looked up, replayed, or executed, watched and stored."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from taskvault.client import Client
from taskvault.errors import DaemonUnreachable, DaemonWedged
from taskvault.protocol.messages import Entry, GetEntry
from taskvault.run.declaration import Declaration
from taskvault.run.execute import Captured, Executed, execute, first_trouble
from taskvault.run.input_tree import changed_since
from taskvault.run.inputs import InputsUnusable
from taskvault.run.nested import is_traced
from taskvault.run.outputs import Output, check_made, find_outputs, holds_path, present, stream_holds
from taskvault.run.preparation import Prepared, prepare
from taskvault.run.refresh import forget
from taskvault.run.refusals import WRITE_TROUBLE, RunPlainly, RunUnstored
from taskvault.run.replay import read_result, replay
from taskvault.run.report import Outcome, Report
from taskvault.run.request import Mode, RunRequest
from taskvault.run.staging import remove_left
from taskvault.run.toolchain import ProgramMissing
from taskvault.run.turns import turn
from tvfs.errors import TaskVaultError
from tvfs.plugin_api import HashFunction, PluginRegistry

STORE_TIMEOUT_S = 5.0
"""Connecting again after the run, when the command's work is at stake."""

_READ_BYTES = 1 << 20


class StorableRun:
    """Carries out one declared run."""

    def __init__(
        self, home: Path, request: RunRequest, declaration: Declaration, report: Report, *, patience_s: float
    ) -> None:
        self._home = home
        self._request = request
        self._declaration = declaration
        self._root = declaration.place.root
        self._report = report
        self.started = False
        """Whether the command was: then it must not be started again."""
        self._before: Mapping[Path, tuple[int, ...]] = {}
        self._patience_s = patience_s

    def carry_out(self, client: Client) -> int:
        """Return the exit status; raise `RunPlainly` or `RunUnstored` before the command was started."""
        with ExitStack() as stack:
            try:
                stack.enter_context(turn(self._root, self._declaration.outputs.texts, waiting=self._say_waiting))
            except OSError as exc:
                raise RunUnstored(f"its turn cannot be taken ({exc.strerror})") from exc
            return self._in_turn(client)

    def _say_waiting(self, process: int) -> None:
        self._report.say(f"waiting for process {process}, a run that makes the same outputs")

    def _in_turn(self, client: Client) -> int:
        hash_function, prepared = self._prepare(client)
        self._report.prepared(prepared)
        found = None
        if self._request.mode is Mode.NORMAL:
            found = self._look_up(client, prepared)
        if found is not None:
            status = self._replay(client, found, prepared)
            if status is not None:
                return status
        if self._request.mode is Mode.REFRESH and self._request.store:
            forget(client, self._request.scope, [prepared.key.hex, prepared.bound_key.hex])
        client.close()
        # What was found but could not be given back is worse than nothing: replaced.
        replace = found is not None or self._request.mode is Mode.REFRESH
        return self._execute(prepared, hash_function, replace=replace)

    def _prepare(self, client: Client) -> tuple[HashFunction, Prepared]:
        try:
            hash_function = PluginRegistry().hash_function(client.welcome.hash)
            with ThreadPoolExecutor(max(4, os.cpu_count() or 1)) as executor:
                return hash_function, prepare(self._request, self._declaration, hash_function, executor)
        except ProgramMissing as exc:
            raise RunPlainly(None) from exc
        except InputsUnusable as exc:
            raise RunUnstored(str(exc)) from exc
        except (TaskVaultError, OSError) as exc:
            raise RunUnstored(f"the inputs cannot be read ({exc})") from exc

    def _look_up(self, client: Client, prepared: Prepared) -> Entry | None:
        try:
            return self._find(client, prepared, timeout_s=self._patience_s)
        except (DaemonUnreachable, DaemonWedged) as exc:
            raise RunPlainly(str(exc)) from exc
        except TaskVaultError as exc:
            raise RunUnstored(str(exc)) from exc

    def _find(self, client: Client, prepared: Prepared, *, timeout_s: float) -> Entry | None:
        for key in (prepared.key, prepared.bound_key):
            request = GetEntry(self._request.scope, key.hex, count_use=True)
            entry = client.call(request, timeout_s=timeout_s).entry
            if entry is not None:
                return entry
        return None

    def _replay(self, client: Client, entry: Entry, prepared: Prepared) -> int | None:
        """Return the exit status, or None if the command must run after all."""
        began_ns = time.monotonic_ns()
        try:
            result = read_result(entry, client.welcome.hash)
            trouble = replay(client, result, self._root, umask=prepared.umask)
        except (TaskVaultError, OSError) as exc:
            self._report.say(f"running again: {exc}")
            return None
        took_ns = time.monotonic_ns() - began_ns
        self._report.hit(entry, exit_code=result.exit_code, duration_ns=took_ns)
        return self._status(result.exit_code, trouble)

    def _status(self, exit_code: int, trouble: OSError | None) -> int:
        """Return the exit status: that of the command, unless it is success and what it wrote was lost."""
        if trouble is None:
            return exit_code
        self._report.say(f"what the command wrote could not be passed on: {trouble.strerror}")
        return exit_code or WRITE_TROUBLE

    def _execute(self, prepared: Prepared, hash_function: HashFunction, *, replace: bool) -> int:
        try:
            self._before = present(self._root, self._declaration.outputs)
        except TaskVaultError as exc:
            raise RunUnstored(str(exc)) from exc
        if not is_traced():
            remove_left(self._root)
        self.started = True
        executed = execute(
            self._request.command,
            workdir=self._request.workdir,
            environment=self._declaration.environment,
            with_stdin=self._request.with_stdin,
            capture=True,
        )
        assert executed.captured is not None, "a storable run is captured"
        status = self._status(executed.exit_code, first_trouble(executed.captured.unwritten))
        if executed.exit_code:
            self._report.executed(executed, Outcome.FAILED, f"exit status {executed.exit_code}")
            return status
        if self._request.mode is Mode.CHECK:
            return self._check(executed, prepared, hash_function)
        reason = self._why_not_stored(executed, prepared, hash_function, replace=replace)
        self._report.executed(executed, Outcome.NOT_STORED if reason else Outcome.STORED, reason or "")
        return status

    def _why_not_stored(
        self, executed: Executed, prepared: Prepared, hash_function: HashFunction, *, replace: bool
    ) -> str | None:
        """Store the result; return why not, or None if it was."""
        # Imported here, as in `_check`: a hit needs nothing of it.
        from taskvault.run.record import Finished, store

        captured = executed.captured
        assert captured is not None, "a storable run is captured"
        if not self._request.store:
            return "storing was turned off"
        if captured.incomplete:
            return captured.incomplete
        try:
            outputs = self._made(prepared, hash_function)
            self._check_made(outputs, prepared)
            key = prepared.bound_key if self._names_root(captured, outputs) else prepared.key
            with Client.connect(self._home, timeout_s=STORE_TIMEOUT_S) as client:
                finished = Finished(self._request.scope, key, self._root, outputs, executed)
                refresh = self._request.mode is Mode.REFRESH
                store(client, finished, replace=replace, despite_mark=refresh)
        except (TaskVaultError, OSError) as exc:
            return str(exc)
        except Exception as exc:  # noqa: BLE001  # the command has run: our own bugs must not change its exit status either
            return f"something went wrong inside tv ({type(exc).__name__}: {exc})"
        self._report.key = key.hex
        return None

    def _made(self, prepared: Prepared, hash_function: HashFunction) -> list[Output]:
        """Return the outputs; raise `OutputsUnusable` or `InputsUnusable` if the result cannot be trusted."""
        declaration, found = self._declaration, prepared.found
        changed = changed_since(found, self._root, declaration.inputs, declaration.outputs, hash_function)
        if changed is not None:
            raise InputsUnusable(f"the input {changed} changed while the command ran")
        program = prepared.toolchain.changed()
        if program is not None:
            raise InputsUnusable(f"the program {str(program)!r} changed while the command ran")
        if not declaration.outputs:
            return []
        input_paths = [*(file.path for file in found.files), *found.symlinks]
        return find_outputs(self._root, declaration.outputs, input_paths)

    def _check_made(self, outputs: Sequence[Output], prepared: Prepared) -> None:
        """Raise `OutputsUnusable` if the run did not make its outputs; what is an input too is in the key as it was."""
        input_paths = {*(file.path for file in prepared.found.files), *prepared.found.symlinks}
        check_made(self._root, [output for output in outputs if output.path not in input_paths], self._before)

    def _names_root(self, captured: Captured, outputs: Sequence[Output]) -> bool:
        """Whether the result holds the absolute path of its root, and so is right only there."""
        # The shell's idea of where it is may go through symlinks, below the root and above it.
        logical = self._request.environment.get("PWD", "")
        paths = {os.fsencode(path) for path in (str(self._root), logical, self._logical_root(logical))}
        wanted = sorted(path for path in paths if len(path) > 1)
        for stream in (captured.stdout, captured.stderr):
            stream.seek(0)
            if stream_holds(wanted, iter(partial(stream.read, _READ_BYTES), b"")):
                return True
        return holds_path(wanted, self._root, outputs)

    def _logical_root(self, workdir: str) -> str:
        below = self._declaration.place.workdir
        return workdir.removesuffix(f"/{below}") if below else workdir

    def _check(self, executed: Executed, prepared: Prepared, hash_function: HashFunction) -> int:
        """Compare with what is stored; return 0 if it is the same, else 1."""
        from taskvault.run.compare import difference

        try:
            outputs = self._made(prepared, hash_function)
            with Client.connect(self._home, timeout_s=STORE_TIMEOUT_S) as client:
                entry = self._find(client, prepared, timeout_s=STORE_TIMEOUT_S)
                if entry is None:
                    reason: str | None = "nothing is stored to compare with"
                else:
                    reason = difference(client, entry, self._root, outputs, executed)
            if reason is None:
                self._check_made(outputs, prepared)
        except (TaskVaultError, OSError) as exc:
            reason = str(exc)
        self._report.executed(executed, Outcome.NOT_STORED, f"check: {reason or 'the same as is stored'}")
        return 1 if reason else 0
