"""Store what a traced run made, and what runs inside it made; or compare it with what is stored."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from taskvault.client import Client
from taskvault.protocol.messages import Entry, RecordRun
from taskvault.run.digests import Digests
from taskvault.run.execute import Executed
from taskvault.run.inputs import InputsUnusable
from taskvault.run.named_outputs import in_place_again
from taskvault.run.nested import Note, Parts, notes_in
from taskvault.run.record import Finished, store
from taskvault.run.report import Outcome, record_of
from taskvault.run.request import Mode, RunRequest
from taskvault.run.storable import STORE_TIMEOUT_S
from taskvault.run.traced_preparation import Prepared
from taskvault.run.traced_result import Ended, result_of
from tvfs.errors import TaskVaultError

if TYPE_CHECKING:
    from taskvault.run.traced import Tracing


class Storing:
    """What is left to do when a traced command has ended.  Nothing of it raises: the command has run."""

    def __init__(  # what is known of the run, and what was read for it
        self, home: Path, request: RunRequest, prepared: Prepared, tracing: Tracing, digests: Digests, *, replace: bool
    ) -> None:
        self._home = home
        self._request = request
        self._prepared = prepared
        self._tracing = tracing
        self._replace = replace or request.mode is Mode.REFRESH
        self._digests = digests
        self.key = ""
        """Of what was stored, or would have been, in hexadecimal."""

    def store(self, executed: Executed) -> str:
        """Store the result; return why not, or nothing if it was."""
        if not self._request.store:
            return "storing was turned off"
        try:
            finished = self._finished(executed)
            self._tracing.check_wanted()  # else nobody can say what its caller saw
            self.key = finished.key.hex
            marks = self._prepared.unsteady
            mark = next((marks[key.hex] for key in finished.keys if key.hex in marks), None)
            if mark is not None:
                return f"it does not make the same each time: {mark.how} (audit of run {mark.run})"
            with Client.connect(self._home, timeout_s=STORE_TIMEOUT_S) as client:
                store(client, finished, replace=self._replace, despite_mark=self._request.mode is Mode.REFRESH)
        except (TaskVaultError, OSError) as exc:
            return str(exc)
        except Exception as exc:  # noqa: BLE001  # our own bugs must not change the command's exit status either
            return f"something went wrong inside tv ({type(exc).__name__}: {exc})"
        return ""

    def difference(self, executed: Executed, known: Entry | None) -> str:
        """Return how what was made differs from the stored result `known`; nothing if it does not."""
        if known is None:
            marks = [f": {mark.text}" for mark in self._prepared.unsteady.values()]
            return f"nothing is stored to compare with{''.join(marks[:1])}"
        from taskvault.run.compare import difference  # it loads what replays, and that is all it is for

        try:
            finished = self._finished(executed)
            with Client.connect(self._home, timeout_s=STORE_TIMEOUT_S) as client:
                found = difference(client, known, finished.root, finished.outputs, executed, finished.deleted)
                return found or ""
        except (TaskVaultError, OSError) as exc:
            return str(exc)
        except Exception as exc:  # noqa: BLE001  # as above
            return f"something went wrong inside tv ({type(exc).__name__}: {exc})"

    def store_inner(self, executed: Executed, notes: Path) -> None:
        """Store the results of the runs that ran inside."""
        found = list(notes_in(notes))
        if not found:
            return
        try:
            assert executed.observation is not None, "a traced run is observed"
            parts = Parts(executed.observation)
            with Client.connect(self._home, timeout_s=STORE_TIMEOUT_S) as client:
                for note in found:
                    self._store_note(client, parts, note)
        except Exception:  # noqa: BLE001  # whatever it is, the command has run: what ran inside runs again next time
            return

    def _store_note(self, client: Client, parts: Parts, note: Note) -> None:
        prepared = note.prepared(self._prepared.hash_function)
        prepared.caller = self._prepared.caller
        inner, key, reason = note.executed(), "", ""
        try:
            ended = Ended(prepared, inner, parts.of(note), self._tracing.name, note.scope, note.environment)
            with in_place_again(note.named):
                finished = result_of(ended, prepared.sight(self._digests))
                self._tracing.check_wanted()
                _check_unchanged(finished, note.ended_ns)
                store(client, finished, replace=note.replace, despite_mark=note.refresh)
            key = finished.key.hex
        except (TaskVaultError, OSError) as exc:
            reason = str(exc)
        record = record_of(
            prepared,
            command=prepared.weak.arguments,
            root=prepared.root,
            workdir=prepared.weak.workdir,
            scope=note.scope,
            started_ns=note.started_ns,
        )
        outcome = Outcome.NOT_STORED if reason else Outcome.STORED
        client.call(RecordRun(record(outcome, reason, key, 0, note.duration_ns, 0)))

    def _finished(self, executed: Executed) -> Finished:
        assert executed.observation is not None, "a traced run is observed"
        environment = self._request.environment
        ended = Ended(
            self._prepared, executed, executed.observation, self._tracing.name, self._request.scope, environment
        )  # fmt: skip
        return result_of(ended, self._prepared.sight(self._digests))


def _check_unchanged(finished: Finished, ended_ns: int) -> None:
    """Raise `InputsUnusable` if what an inner run made has been written to since it ended."""
    for output in finished.outputs:
        place = finished.root / output.path
        if not output.is_directory and os.lstat(place).st_mtime_ns > ended_ns:
            raise InputsUnusable(f"{place} was changed again by the run around it")
