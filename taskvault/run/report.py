"""What is said of a run: one line on stderr, a record in the history, and a JSON file if one was asked for."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from taskvault.client import Client
from taskvault.protocol.messages import RecordRun, RunRecord
from taskvault.run.as_text import text
from taskvault.run.declaration import Declaration
from taskvault.run.execute import Executed
from taskvault.run.reach import Reach
from taskvault.run.request import RunRequest
from taskvault.run.secret_variables import recorded
from tvfs.errors import TaskVaultError

if TYPE_CHECKING:
    from taskvault.protocol.messages import Entry

RECORD_TIMEOUT_S = 1.0
"""History is worth no more: the command is done."""


class Outcome(StrEnum):
    """What became of a run; the values are stored."""

    HIT = "hit"
    STORED = "stored"
    NOT_STORED = "not stored"
    FAILED = "failed"
    """The command itself failed, and was not stored for that."""


class Described(Protocol):
    """What is known of a run before it starts, or of a traced one at the end."""

    @property
    def known_key(self) -> str:
        """The key of its result, in hexadecimal; empty if that is not known yet."""
        ...

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that count."""
        ...

    def facts(self) -> dict[str, str]:
        """Everything in the key beside arguments, inputs and environment."""
        ...

    def described_inputs(self) -> dict[str, str]:
        """What each input was."""
        ...


class Report:
    """Collects what is known of one run, and tells it at the end."""

    def __init__(self, home: Path, request: RunRequest, file: Path | None, *, patience_s: float) -> None:
        self._home = home
        self._request = request
        self._file = file
        self._patience_s = patience_s
        self._started_ns = time.time_ns()
        self._declaration: Declaration | None = None
        self._prepared: Described | None = None
        self.key = ""
        self.reach: Reach | None = None
        """A connection that is being made, if the daemon was not asked before."""

    def declared(self, declaration: Declaration) -> None:
        """The request was understood."""
        self._declaration = declaration

    def prepared(self, prepared: Described) -> None:
        """The key is known."""
        self._prepared = prepared
        self.key = prepared.known_key

    def say(self, sentence: str) -> None:
        """Write one line to stderr, unless quiet."""
        if not self._request.quiet:
            with suppress(OSError):
                os.write(2, os.fsencode(f"tv: {' '.join(sentence.split())}\n"))

    def hit(self, entry: Entry, *, exit_code: int, duration_ns: int) -> str:
        """A stored result was given back, which took `duration_ns`; return the number of the run, if it has one."""
        self.key = entry.key
        saved_ns = max(entry.cost_ns - duration_ns, 0)
        return self._finish(self._record(Outcome.HIT, "", exit_code, duration_ns, saved_ns))

    def executed(self, executed: Executed, outcome: Outcome, reason: str) -> None:
        """The command has run; one that could not be started has been reported already."""
        if executed.captured is not None:
            executed.captured.close()
        if executed.started:
            self._finish(self._record(outcome, reason, executed.exit_code, executed.duration_ns, 0))

    def passed_on(self, executed: Executed) -> None:
        """The command has run inside another run, which will tell what became of its result."""
        if executed.captured is not None:
            executed.captured.close()
        self.say(f"ran {_seconds(executed.duration_ns)}, left to the run around it")

    def _finish(self, record: RunRecord) -> str:
        """Record the run, report it and return its number; trouble with either changes nothing."""
        timeout_s = max(RECORD_TIMEOUT_S, self._patience_s)
        with suppress(TaskVaultError, OSError):
            client = self.reach.client() if self.reach else Client.connect(self._home, timeout_s=timeout_s)
            with client:
                record = client.call(RecordRun(record), timeout_s=timeout_s).record
        self.say(line(record))
        if self._file is not None:
            self._write_file(record)
        return record.run

    def _record(self, outcome: Outcome, reason: str, exit_code: int, duration_ns: int, saved_ns: int) -> RunRecord:
        place = self._declaration.place if self._declaration else None
        make = record_of(
            self._prepared,
            command=self._request.command,
            root=place.root if place else None,
            workdir=place.workdir if place else "",
            scope=self._request.scope,
            started_ns=self._started_ns,
        )
        return make(outcome, reason, self.key, exit_code, duration_ns, saved_ns)

    def _write_file(self, record: RunRecord) -> None:
        left_out = ("inputs", "environment", "facts")
        value = {name: getattr(record, name) for name in record.__struct_fields__ if name not in left_out}
        try:
            assert self._file is not None
            self._file.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
        except OSError as exc:
            self.say(f"the report could not be written: {exc.strerror}")


def record_of(
    prepared: Described | None, *, command: Sequence[str], root: Path | None, workdir: str, scope: str, started_ns: int
) -> Callable[[Outcome, str, str, int, int, int], RunRecord]:
    """Return what makes the record of a run from outcome, reason, key, exit status, duration and time saved."""

    def make(outcome: Outcome, reason: str, key: str, exit_code: int, duration_ns: int, saved_ns: int) -> RunRecord:
        return RunRecord(
            run="",
            started_ns=started_ns,
            duration_ns=duration_ns,
            command=[text(argument) for argument in command],
            root=text(str(root)) if root else "",
            workdir=text(workdir),
            scope=scope,
            key=key,
            outcome=outcome.value,
            reason=text(reason),
            exit_code=exit_code,
            saved_ns=saved_ns,
            inputs=prepared.described_inputs() if prepared else {},
            environment={text(n): text(recorded(n, v)) for n, v in prepared.environment.items()} if prepared else {},
            facts=prepared.facts() if prepared else {},
        )

    return make


def line(record: RunRecord) -> str:
    """Return the one-line report of a run."""
    if record.outcome == Outcome.HIT:
        name = f" (run {record.run})" if record.run else ""
        return f"hit{name} saved {_seconds(record.saved_ns)}"
    ran = f"ran {_seconds(record.duration_ns)}"
    if record.outcome == Outcome.STORED:
        return f"{ran}, stored"
    return f"{ran}, not stored: {record.reason}".removesuffix(".")


def _seconds(duration_ns: int) -> str:
    return f"{duration_ns / 1e9:.1f} s" if duration_ns >= 100_000_000 else f"{duration_ns / 1e6:.0f} ms"
