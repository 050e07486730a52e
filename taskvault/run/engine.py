"""One `tv run`, from the command line to the exit status.

Execution fails open: whatever is wrong with the vault, the command runs.  Storing fails closed: whatever is uncertain
about the run, it is not stored, and the report says why.  Nothing is written to stdout but what the command writes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from taskvault.run.declaration import Declaration, declare
from taskvault.run.environment import changed_environment
from taskvault.run.execute import become, execute
from taskvault.run.reach import PATIENCE_S, Reach
from taskvault.run.refusals import RunPlainly, RunUnstored
from taskvault.run.report import Outcome, Report
from taskvault.run.request import RunRequest
from tvfs.errors import TaskVaultError

if TYPE_CHECKING:
    from taskvault.run.storable import StorableRun
    from taskvault.run.traced import TracedRun

NO_INPUT = "no input is declared: name what the command reads with --input"
STDIN_IS_TERMINAL = "--stdin is a terminal, whose content cannot be known beforehand"


class Engine:
    """Carries out one request."""

    def __init__(
        self, home: Path, request: RunRequest, *, report_file: Path | None = None, patience_s: float | None = None
    ) -> None:
        self._home = home
        self._request = request
        self._patience_s = PATIENCE_S if patience_s is None else patience_s
        self._report = Report(home, request, report_file, patience_s=self._patience_s)
        self._announced: Path | None = None

    def run(self) -> int:
        """Replay or run the command and return its exit status; raise only for errors of the caller."""
        try:
            declaration = declare(self._request)
        except OSError as exc:
            self._report.say(f"running without the vault: the root cannot be found ({exc.strerror})")
            return become(
                self._request.command, changed_environment(self._request.environment, self._request.variables)
            )
        self._report.declared(declaration)
        traced = not (declaration.inputs or declaration.outputs)
        if not (traced or declaration.inputs or self._request.with_stdin):
            return self._run_unstored(declaration, NO_INPUT)
        if self._request.with_stdin and os.isatty(0):
            return self._run_unstored(declaration, STDIN_IS_TERMINAL)
        reach = Reach(self._home, self._patience_s)
        if not reach.failed:
            # Loaded while the daemon greets, and not at all where there is none.
            kind = _kind(traced)
        try:
            client = reach.client()
        except (TaskVaultError, OSError) as exc:
            return self._run_plainly(declaration, str(exc))
        self._announced = _announced(self._request.environment)
        run = kind(self._home, self._request, declaration, self._report, patience_s=self._patience_s)
        try:
            with client:
                return run.carry_out(client)
        except RunPlainly as exc:
            return self._run_plainly(declaration, exc.reason)
        except RunUnstored as exc:
            return self._run_unstored(declaration, exc.reason)
        except Exception as exc:  # whatever it is that we did wrong, the command runs, and runs once
            if run.started:
                raise
            return self._run_plainly(declaration, f"something went wrong inside tv ({type(exc).__name__}: {exc})")

    def _run_plainly(self, declaration: Declaration, reason: str | None) -> int:
        """Become the command; with a reason, say first that it runs without the vault."""
        if self._announced is not None:
            from taskvault.run.nested import retract

            retract(self._announced)
        if reason is not None:
            self._report.say(f"running without the vault: {reason}")
        return become(self._request.command, declaration.environment)

    def _run_unstored(self, declaration: Declaration, reason: str) -> int:
        """Run the command on our own streams, and say why nothing is stored."""
        # For the history only, and meanwhile: a daemon that hangs holds nobody up.
        self._report.reach = Reach(self._home, self._patience_s / 2)
        executed = execute(
            self._request.command,
            workdir=self._request.workdir,
            environment=declaration.environment,
            with_stdin=True,
            capture=False,
        )
        self._report.executed(executed, Outcome.NOT_STORED, reason)
        return executed.exit_code


def _announced(environment: Mapping[str, str]) -> Path | None:
    """Tell the run around us, if there is one, that what we ask the vault for is what runs ask for; return where."""
    from taskvault.run.nested import announce, directory_from

    outer = directory_from(environment)
    if outer is not None:
        announce(outer)
    return outer


def _kind(traced: bool) -> type[TracedRun | StorableRun]:
    if traced:
        from taskvault.run.traced import TracedRun

        return TracedRun
    from taskvault.run.storable import StorableRun

    return StorableRun
