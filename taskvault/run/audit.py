"""Audit stored runs: repeat some of them apart, and mark the keys of those that do not make the same.

A run is repeated only if all that it looked at is as it was: its key is found again before, and before it is marked.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from taskvault.client import Client
from taskvault.protocol.messages import Entry, FindRuns, GetEntry, MarkUnsteady, RunRecord
from taskvault.run.apart import TimeOver
from taskvault.run.declaration import declare
from taskvault.run.found_again import NotRepeatable
from taskvault.run.rehearsal import Judged, Rehearsal, Verdict
from taskvault.run.replay import read_result
from taskvault.run.report import Outcome
from taskvault.run.request import Mode, RunRequest
from taskvault.run.secret_variables import recorded
from taskvault.run.toolchain import ProgramMissing
from taskvault.run.traced import working_tracer
from taskvault.run.traced_preparation import prepare_traced
from taskvault.run.turns import AlreadyTaken, only_turn
from tvfs.content.names import unescape
from tvfs.errors import TaskVaultError
from tvfs.plugin_api import PluginRegistry, Tracer

LATEST_RUNS = 2000
"""Of the history, from which the runs to audit are chosen."""

LATEST_OF_COMMAND = 50
"""Records that are looked at for one that says what the run looked at."""

CALL_TIMEOUT_S = 60.0
MOST_HOW_CHARACTERS = 1000


class Skipped(StrEnum):
    """Why a run is not repeated."""

    GONE = "its result is not stored any more"
    UNTOLD = "the history does not say all that it takes"
    DECLARED = "it is a declared run"
    PLACE = "its root or its working directory is gone"
    SECRET = "a variable that counts is a secret, and was not recorded"  # noqa: S105  # it is a sentence
    STDIN = "it read its standard input"
    USER = "another user ran it"
    MACHINE = "its program, its project's rules or the machine has changed"
    MOUNTS = "something is mounted below its root"
    LONG = "it takes longer than the time that was left"


class NoTracer(TaskVaultError):
    """What a run makes is not known without one."""

    def __init__(self) -> None:
        super().__init__("Runs cannot be audited here: no tracer works; `tv doctor` says why.")


class AuditAtWork(TaskVaultError):
    """One is enough."""

    def __init__(self, process: int) -> None:
        super().__init__(f"Runs of this vault are being audited by process {process}; try again when it has ended.")


@dataclass(frozen=True, slots=True)
class Audited:
    """A run that was repeated, or was not."""

    record: RunRecord
    judged: Judged


@dataclass(slots=True)
class Audit:
    """What was found."""

    repeated: list[Audited] = field(default_factory=list)
    """Those that could be compared."""
    skipped: list[Audited] = field(default_factory=list)
    is_over: bool = False
    """Whether the time ended before the sample was complete."""


@dataclass(frozen=True, slots=True)
class Auditor:
    """Audits the runs of one vault, one after the other."""

    home: Path
    environment: Mapping[str, str]
    """Our own: secrets that are still the same, and the directory for temporary files, are taken from it."""
    rng: random.Random

    def audit(self, *, sample: int, limit_s: float, run: str | None = None) -> Audit:
        """Repeat up to `sample` runs chosen at random, or this one; stop after `limit_s`.

        Raises `ApartImpossible`, `NoTracer` or `AuditAtWork` before anything is done, and what the client raises.
        """
        deadline_s = time.monotonic() + limit_s
        tracer = working_tracer()
        if tracer is None:
            raise NoTracer
        found = Audit()
        with self._alone():
            for brief in self._candidates(run):
                if len(found.repeated) == sample:
                    break
                if time.monotonic() > deadline_s:
                    found.is_over = True
                    break
                with Client.connect(self.home, timeout_s=CALL_TIMEOUT_S) as client:
                    audited = self._audited(client, brief, tracer, deadline_s)
                unknown = audited.judged.verdict is Verdict.UNKNOWN
                (found.skipped if unknown else found.repeated).append(audited)
        return found

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            with only_turn(self.home, "audit"):
                yield
        except AlreadyTaken as exc:
            raise AuditAtWork(exc.process) from exc

    def _candidates(self, run: str | None) -> list[RunRecord]:
        """Return one run for each key, the latest, in the order in which they are taken."""
        with Client.connect(self.home, timeout_s=CALL_TIMEOUT_S) as client:
            records = client.call(FindRuns(run=run, limit=LATEST_RUNS, brief=True)).runs
        latest: dict[tuple[str, str], RunRecord] = {}
        for record in records:
            if record.key and record.outcome in (Outcome.STORED, Outcome.HIT):
                latest.setdefault((record.scope, record.key), record)
        return self.rng.sample(list(latest.values()), len(latest))

    def _audited(self, client: Client, brief: RunRecord, tracer: Tracer, deadline_s: float) -> Audited:
        try:
            record = _in_full(client, brief)
            rehearsal = self._rehearsal(client, record)
            left_s = deadline_s - time.monotonic()
            if rehearsal.stored.cost_ns / 1e9 > left_s:
                raise NotRepeatable(Skipped.LONG)
            judged = rehearsal.judge(client, tracer, timeout_s=max(left_s, 0))
            if judged.verdict is Verdict.DIFFERS:
                self._mark(client, record, rehearsal.stored, judged.how)
        except NotRepeatable as exc:
            return Audited(brief, Judged(Verdict.UNKNOWN, exc.reason))
        except TimeOver:
            return Audited(brief, Judged(Verdict.UNKNOWN, Skipped.LONG))
        return Audited(record, judged)

    def _rehearsal(self, client: Client, record: RunRecord) -> Rehearsal:
        """Return how to repeat a run; raise `NotRepeatable`."""
        stored = client.call(GetEntry(record.scope, record.key)).entry
        if stored is None or stored.kind != "run":
            raise NotRepeatable(Skipped.GONE)
        if "program first" not in record.facts:
            raise NotRepeatable(Skipped.DECLARED)
        if record.facts.get("platform stdin"):
            raise NotRepeatable(Skipped.STDIN)
        request = self._request(record)
        root = str(request.root)
        if not request.workdir.is_dir() or os.path.realpath(root) != root:
            raise NotRepeatable(Skipped.PLACE)
        if any(point.startswith(f"{root}/") for point in _mount_points()):
            raise NotRepeatable(Skipped.MOUNTS)
        try:
            declaration = declare(request)
            with _umask(int(record.facts["platform umask"], 8)):
                hash_function = PluginRegistry().hash_function(client.welcome.hash)
                prepared = prepare_traced(client, request, declaration, hash_function)
        except (ProgramMissing, TaskVaultError, OSError, KeyError, ValueError) as exc:
            raise NotRepeatable(Skipped.MACHINE) from exc
        facts = prepared.facts()
        # What was known only at its end is no part of the key.
        if facts != {name: record.facts.get(name) for name in facts}:
            is_user = facts["platform user"] != record.facts.get("platform user")
            raise NotRepeatable(Skipped.USER if is_user else Skipped.MACHINE)
        return Rehearsal(request, declaration, prepared, stored)

    def _request(self, record: RunRecord) -> RunRequest:
        root = Path(_plain(record.root))
        workdir = root / _plain(record.workdir)
        counting = {_plain(name): self._value(_plain(name), value) for name, value in record.environment.items()}
        passed = {name: self.environment[name] for name in ("TMPDIR",) if name in self.environment}
        return RunRequest(
            command=tuple(map(_plain, record.command)),
            workdir=workdir,
            environment={**passed, "PWD": str(workdir), **counting},
            root=root,
            inputs=(),
            outputs=(),
            variables=tuple(counting),
            scope=record.scope,
            with_stdin=False,
            store=False,
            mode=Mode.CHECK,
            quiet=True,
        )

    def _value(self, name: str, told: str) -> str:
        if not told.startswith("(not recorded, #"):
            return _plain(told)
        ours = self.environment.get(name)
        if ours is None or recorded(name, ours) != told:
            raise NotRepeatable(Skipped.SECRET)
        return ours  # if it is not the same after all, the key is not found

    def _mark(self, client: Client, record: RunRecord, stored: Entry, how: str) -> None:
        """Mark all keys that find the result, the run's own last: if we are killed before, it is audited again."""
        said = how[:MOST_HOW_CHARACTERS]
        for key in read_result(stored, client.welcome.hash).keys:
            other = client.call(GetEntry(record.scope, key)).entry
            if key != record.key and (other is None or other.result == stored.result):
                created_ns = 0 if other is None else other.created_ns
                client.call(MarkUnsteady(record.scope, key, record.run, said, created_ns))
        client.call(MarkUnsteady(record.scope, record.key, record.run, said, stored.created_ns))


def _in_full(client: Client, brief: RunRecord) -> RunRecord:
    """Return the record of a run, or of another with the same key, that says what it looked at."""
    for request in (FindRuns(run=brief.run), FindRuns(command=brief.command, limit=LATEST_OF_COMMAND)):
        for record in client.call(request).runs:
            if record.facts and (record.scope, record.key) == (brief.scope, brief.key):
                return record
    raise NotRepeatable(Skipped.UNTOLD)


def _plain(told: str) -> str:
    """Return what the history tells of an argument, variable or path as it was."""
    return os.fsdecode(unescape(told))


def _mount_points() -> Iterator[str]:
    with open("/proc/self/mountinfo", "rb") as mounts:
        for line in mounts:
            # Blanks and the like are written in octal.
            yield os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), line.split()[4]))


@contextmanager
def _umask(umask: int) -> Iterator[None]:
    before = os.umask(umask)
    try:
        yield
    finally:
        os.umask(before)
