"""Looks up what a launcher asks for with the code of `tv run`, and replays it if it is a hit."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from taskvault.client import Client
from taskvault.protocol.messages import Entry, NoteRun, RecordRun
from taskvault.run.audit_after_hit import audit_every
from taskvault.run.declaration import Declaration, declare
from taskvault.run.digest_table import DigestTable
from taskvault.run.lookup import find, prepare
from taskvault.run.memory import Memory
from taskvault.run.reach import PATIENCE_S
from taskvault.run.refusals import WRITE_TROUBLE, RunPlainly, RunUnstored
from taskvault.run.replay import StoredResult, read_result, restore
from taskvault.run.report import Outcome, line, record_of
from taskvault.run.request import Mode, RunRequest
from taskvault.run.staging import remove_left
from taskvault.run.traced import working_tracer
from taskvault.run.traced_preparation import Prepared
from taskvault.snapshots import ingest_settings
from taskvault.warm.kept_content import KeptContent
from taskvault.warm.launch_request import LaunchRequest, run_request
from taskvault.warm.missed import Missed
from tvfs.errors import TaskVaultError
from tvfs.plugin_api import SpawningTracer

KEPT_CONNECTION_S = 5.0
"""What the owner told a connection stays as long as that: nothing of it is to stay for ever."""

MOST_PATIENCE_S = 60.0

TOLD_S = 1.0
"""For the owner to take what goes into the history."""

TOLD_AGAIN_S = 3600.0
"""After that a hit is recorded in full again: with everything that it looked at, to be compared with."""

MOST_TOLD = 20_000

_STORING = ("taskvault.run.traced_storing", "tvfs.ingest.tree_walk", "tvfs.plugin_api.installed")
"""What is otherwise imported when a command has ended, or while it runs."""


class NotHere(Exception):
    """It cannot be told here: the launcher goes on by itself."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a launcher gives back."""

    status: int
    status_if_lost: int
    report: bytes
    parts: Iterable[tuple[int, bytes]]
    """Streams and what is to be written to them."""


@dataclass(frozen=True, slots=True)
class _Hit:
    request: RunRequest
    declaration: Declaration
    prepared: Prepared
    entry: Entry
    result: StoredResult
    started_ns: int


class Replayer:
    """Serves one request at a time: working directory and umask of this process are those of the request."""

    def __init__(self, home: Path, identity: str) -> None:
        self._home = home
        self._identity = identity
        self._client: Client | None = None
        self._connected_s = 0.0
        self._content = KeptContent()
        self._memory: Memory | None = None
        tracer = working_tracer()
        self._tracer = tracer if isinstance(tracer, SpawningTracer) else None
        self._has_storing = False
        self._told: dict[str, float] = {}
        """What has been told to the history in full, and when."""
        self._tidied: set[Path] = set()
        """Roots that had nothing left in them when we first came: what others leave, a run removes."""

    def replay(self, asked: LaunchRequest, go: Callable[[], bool]) -> Replayed | Missed:
        """Replay a hit, before which `go` is asked, or return a miss.  Raise `NotHere` with nothing changed."""
        try:
            hit = self._look_up(asked)
            if isinstance(hit, Missed):
                return hit
            if not go():
                raise NotHere
            return self._restored(hit)
        except (TaskVaultError, RunPlainly, RunUnstored, OSError) as exc:
            raise NotHere from exc

    def forget(self) -> None:
        """Forget what is remembered of files: something was mounted or unmounted."""
        self._memory = None

    def rest(self) -> None:
        """Let go of the connection, and of what the owner keeps for it."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _look_up(self, asked: LaunchRequest) -> _Hit | Missed:
        started_ns = time.time_ns()
        if asked.identity != self._identity:
            raise NotHere
        request = run_request(asked, Path(os.getcwd()))
        if asked.home != str(self._home):
            raise NotHere
        declaration = declare(request)
        if audit_every(request.environment, declaration.rules):
            raise NotHere  # who is to begin an audit now and then is a process that does not stay
        patience_s = _patience_s(asked)
        client = self._connected(patience_s)
        prepared = prepare(client, request, declaration)
        if self._memory is None:
            self._memory = Memory(DigestTable.open(prepared.hash_function))
        entry = None
        if request.mode is Mode.NORMAL:
            entry = find(client, prepared, request.scope, self._memory, patience_s=patience_s)
        if prepared.own_view:
            raise NotHere  # what the kernel says of us it does not say of the caller, who looks itself
        if entry is None and self._tracer is not None:
            self._load_storing(client)
            return Missed(self._home, request, declaration, prepared, self._memory, self._tracer, patience_s)
        if entry is None:
            raise NotHere
        result = read_result(entry, client.welcome.hash)
        return _Hit(request, declaration, prepared, entry, result, started_ns)

    def _load_storing(self, client: Client) -> None:
        """Load what storing needs, once: a process that is forked would load it for itself alone."""
        if not self._has_storing:
            for module in _STORING:
                import_module(module)
            ingest_settings(client.welcome)
            self._has_storing = True

    def _restored(self, hit: _Hit) -> Replayed:
        client = self._client
        assert client is not None, "the look-up connected"
        began_ns = time.monotonic_ns()
        root = hit.prepared.root
        if root not in self._tidied:
            remove_left(root)
            self._tidied.add(root)
        function = hit.prepared.hash_function
        parts = restore(
            client,
            hit.result,
            root,
            umask=hit.prepared.umask,
            sources=lambda: self._content.source(client, function),
        )
        report = self._recorded(client, hit, time.monotonic_ns() - began_ns)
        status = hit.result.exit_code
        return Replayed(status, status or WRITE_TROUBLE, report, parts)

    def _recorded(self, client: Client, hit: _Hit, duration_ns: int) -> bytes:
        """Add the run to the history, and return what is said of it; trouble with that changes nothing."""
        what = f"{hit.entry.key} {hit.prepared.root}"
        is_told = time.monotonic() - self._told.get(what, -TOLD_AGAIN_S) < TOLD_AGAIN_S
        make = record_of(
            None if is_told else hit.prepared,
            command=hit.request.command,
            root=hit.declaration.place.root,
            workdir=hit.declaration.place.workdir,
            scope=hit.request.scope,
            started_ns=hit.started_ns,
        )
        saved_ns = max(hit.entry.cost_ns - duration_ns, 0)
        record = make(Outcome.HIT, "", hit.entry.key, hit.result.exit_code, duration_ns, saved_ns)
        with suppress(TaskVaultError, OSError):
            if len(self._told) >= MOST_TOLD:
                self._told.clear()
            if not is_told:
                self._told[what] = time.monotonic()
            if hit.request.quiet:
                client.tell(NoteRun(record), timeout_s=TOLD_S)
            else:
                record = client.call(RecordRun(record), timeout_s=TOLD_S).record
        return b"" if hit.request.quiet else os.fsencode(f"tv: {line(record)}\n")

    def _connected(self, patience_s: float) -> Client:
        if self._client is not None and time.monotonic() - self._connected_s > KEPT_CONNECTION_S:
            self.rest()
        if self._client is None or self._client.is_closed:
            self._client = Client.connect(self._home, timeout_s=patience_s)
            self._connected_s = time.monotonic()
        return self._client


def _patience_s(asked: LaunchRequest) -> float:
    with suppress(ValueError):
        patience_s = float(asked.environment.get("TASKVAULT_PATIENCE_S", ""))
        if patience_s > 0:
            return min(patience_s, MOST_PATIENCE_S)
    return PATIENCE_S
