"""Requests about the history of runs."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import trio

from taskvault.protocol.messages import (
    Done,
    FindRuns,
    GetRunSums,
    MarkUnsteady,
    NoteRun,
    RecordRun,
    RunRecord,
    RunReply,
    Runs,
    RunSums,
)
from taskvault.protocol.messages import RunSum as ShownSum
from tvd.control.answer import Table
from tvd.control.privacy import record_for
from tvd.control.vault_session import VaultSession
from tvd.control.wire import Rejected
from tvd.entry_views import RUN, EntryViews
from tvfs.plugin_api import HashFunction
from tvfs.vault.runs import TAG_BYTES, RunSum
from tvfs.vault.vault import Vault

STORED = "stored"
"""Outcome of a run whose result was kept: it is shown as `runs/<run>`."""
HIT = "hit"
FAILED = "failed"
_NAME_CHARACTERS = 64
_LONGEST_NUMBER = 20

MOST_HOW_CHARACTERS = 1000
"""Of what a mark says; a few differences."""

ANSWER_BYTES = 8 << 20
"""An answer ends when the records in it have this many bytes: half of what a frame may hold."""

SLICE = 64
"""Records looked at before others get their turn; one with thousands of inputs takes 100 us to decode."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(RunRecord)


class RunsRequests:
    """Answers them from one vault."""

    def __init__(self, vault: Vault, views: EntryViews) -> None:
        self._vault = vault
        self._views = views
        self._hash: HashFunction = vault.hash_function

    def table(self) -> Table[VaultSession]:
        """Handlers by request."""
        return {
            RecordRun: self.record,
            NoteRun: self.record,
            FindRuns: self.find,
            GetRunSums: self.sums,
            MarkUnsteady: self.mark_unsteady,
        }

    async def record(self, session: VaultSession, request: RecordRun | NoteRun) -> RunReply:
        """History, so nobody waits for the disk; the entry that a stored run made is shown under the run's id."""
        record = msgspec.structs.replace(request.record, user=session.peer.uid)
        run = self._vault.runs.append(
            _encoder.encode(record),
            tags=[self._tag("command", record.command), self._tag("root", record.root)],
            name=_name(record.command),
            counts=_counts(record),
        )
        if record.outcome == STORED and record.key:
            entry = self._vault.entries.get(record.scope, record.key)
            if entry is not None and entry.kind == RUN:
                with self._views.changing(record.scope, record.key):
                    self._views.show_run(entry, run)
        return RunReply(_numbered(record, run))

    async def find(self, session: VaultSession, request: FindRuns) -> Runs:
        """Latest first; fewer than the limit when there are no more, or when they would not fit into one answer."""
        found: list[RunRecord] = []
        found_bytes = 0
        for looked_at, (run, stored) in enumerate(self._candidates(request), 1):
            record = _readable(stored, run)
            if record is not None and _matches(record, request):
                if request.brief:
                    record = msgspec.structs.replace(record, inputs={}, environment={}, facts={})
                    stored = _encoder.encode(record)
                found.append(record_for(session, record))
                found_bytes += len(stored)
            if len(found) >= request.limit or found_bytes >= ANSWER_BYTES:
                break
            if looked_at % SLICE == 0:
                await trio.lowlevel.checkpoint()
        return Runs(found)

    async def sums(self, session: VaultSession, request: GetRunSums) -> RunSums:
        """Figures to look at."""
        return RunSums(
            {name: ShownSum(*msgspec.structs.astuple(found)) for name, found in self._vault.runs.sums().items()}
        )

    async def mark_unsteady(self, session: VaultSession, request: MarkUnsteady) -> Done:
        """Durable when answered; an entry that has replaced the one that was compared stays."""
        if not _is_number(request.run):
            raise Rejected(f"{request.run[:_LONGEST_NUMBER]!r} is no number of a run")
        if not request.how or len(request.how) > MOST_HOW_CHARACTERS:
            raise Rejected(f"what differed is said in 1 to {MOST_HOW_CHARACTERS} characters")
        scope, key = request.scope, request.key
        there = self._vault.entries.get(scope, key)
        if there is not None and (there.kind != RUN or there.created_ns != request.created_ns):
            return Done()
        with self._views.changing(scope, key):
            self._views.hide(scope, key)
            await self._vault.entries.mark_unsteady(scope, key, run=request.run, how=request.how, who=session.who)
        return Done()

    def _tag(self, kind: str, value: object) -> bytes:
        """Return what runs are found by that have this in common."""
        return self._hash.digest(_encoder.encode([kind, value]))[:TAG_BYTES]

    def _candidates(self, request: FindRuns) -> Iterator[tuple[int, bytes]]:
        history = self._vault.runs
        if request.run is None and request.command is not None:
            return history.latest_first(tag=self._tag("command", request.command))
        if request.run is None and request.root is not None:
            return history.latest_first(tag=self._tag("root", request.root))
        if request.run is None:
            return history.latest_first()
        run = int(request.run) if _is_number(request.run) else 0
        stored = history.get(run)
        return iter([] if stored is None else [(run, stored)])


def _is_number(run: str) -> bool:
    return run.isascii() and run.isdigit() and len(run) < _LONGEST_NUMBER


def _name(command: list[str]) -> str:
    return command[0].rpartition("/")[2][:_NAME_CHARACTERS] if command else ""


def _counts(record: RunRecord) -> RunSum:
    outcome = record.outcome
    return RunSum(
        1, outcome == HIT, outcome == STORED, outcome == FAILED, max(0, record.duration_ns), max(0, record.saved_ns)
    )


def _matches(record: RunRecord, request: FindRuns) -> bool:
    if request.root is not None and record.root != request.root:
        return False
    return request.command is None or record.command == request.command


def _readable(stored: bytes, run: int) -> RunRecord | None:
    """Return a stored record; None for a damaged one, which must not hide the others."""
    try:
        return _numbered(_decoder.decode(stored), run)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _numbered(record: RunRecord, run: int) -> RunRecord:
    return msgspec.structs.replace(record, run=str(run))
