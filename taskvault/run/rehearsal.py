"""Repeat a run whose result is stored, apart, and compare what it makes: with the code of `tv run --check`."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec

from taskvault.client import Client
from taskvault.protocol.messages import Entry
from taskvault.run.apart import RootUnfit, do_apart, has_all_rights, is_full
from taskvault.run.as_text import text
from taskvault.run.compare import DIFFERS, difference
from taskvault.run.declaration import Declaration
from taskvault.run.digests import Digests
from taskvault.run.execute import Executed, execute
from taskvault.run.found_again import NotRepeatable, leads_to, make_ready
from taskvault.run.nested import environment_for
from taskvault.run.request import RunRequest
from taskvault.run.states import Sight
from taskvault.run.traced_preparation import Prepared
from taskvault.run.traced_result import Ended, result_of
from tvfs.errors import TaskVaultError
from tvfs.plugin_api import Tracer

RECHECK_S = 600.0
"""For looking at all inputs once more."""
_KILLED = 128
"""An exit status above: a signal ended it, which may be anybody's."""


class Verdict(StrEnum):
    """What a repetition showed."""

    SAME = "same"
    DIFFERS = "differs"
    UNKNOWN = "unknown"
    """It could not be compared."""


class Judged(msgspec.Struct, frozen=True):
    """A verdict, and what it is for."""

    verdict: Verdict
    how: str = ""
    """What differs, or why it could not be compared; as part of a sentence."""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A run that can be repeated."""

    request: RunRequest
    declaration: Declaration
    prepared: Prepared
    stored: Entry

    def judge(self, client: Client, tracer: Tracer, *, timeout_s: float) -> Judged:
        """Repeat it; raise `ApartImpossible`, `NotRepeatable` or `TimeOver`.

        The connection is used in another process meanwhile.
        """
        judged = self._apart(client, lambda: self._repeat(client, tracer), timeout_s)
        if judged.verdict is not Verdict.DIFFERS:
            return judged
        # Whoever changed an input meanwhile made the difference.
        again = self._apart(client, lambda: Judged(Verdict.SAME), RECHECK_S)
        return again if again.verdict is Verdict.UNKNOWN else judged

    def _apart(self, client: Client, act: Callable[[], Judged], timeout_s: float) -> Judged:
        scratch = Path(self.prepared.scratch)
        _ = self.prepared.places  # as they are before the command can change where they lead
        # Looked at from here: where users are mapped, apart the owners of files are not all known.
        is_ready = leads_to(client, self.prepared, self.stored)

        def body() -> bytes:
            try:
                if not is_ready:
                    make_ready(client, self.prepared, self.stored)
                judged = act()
            except NotRepeatable as exc:
                judged = Judged(Verdict.UNKNOWN, exc.reason)
            except (TaskVaultError, OSError) as exc:
                judged = Judged(Verdict.UNKNOWN, text(str(exc)))
            return msgspec.msgpack.encode(judged)

        try:
            answer = do_apart(self.prepared.root, scratch.parent, body, timeout_s=timeout_s)
        except RootUnfit as exc:
            return Judged(Verdict.UNKNOWN, str(exc))
        return msgspec.msgpack.decode(answer, type=Judged)

    def _repeat(self, client: Client, tracer: Tracer) -> Judged:
        scratch = Path(self.prepared.scratch)
        temporary, notes, own = scratch / "tmp", scratch / "inner", scratch.parent / ".own"
        for directory in (scratch, temporary, notes, own):
            directory.mkdir(mode=0o700)
        tempfile.tempdir = str(own)  # ours as well must not be seen by anybody
        os.umask(self.prepared.umask)
        # Runs inside are carried out, not replayed: what they replayed would say nothing of the command.
        environment = {**self.declaration.environment, "TASKVAULT": "off"}
        executed = execute(
            self.request.command,
            workdir=self.request.workdir,
            environment=environment_for(environment, str(temporary), str(notes)),
            with_stdin=False,
            capture=True,
            traced=tracer.start,
        )
        if is_full(scratch):
            return Judged(Verdict.UNKNOWN, "it needs more memory for what it makes than it may have")
        if executed.exit_code:
            return _failed(executed)
        return self._compared(client, executed, tracer.name)

    def _compared(self, client: Client, executed: Executed, observed: str) -> Judged:
        prepared = self.prepared
        assert executed.observation is not None, "it was traced"
        ended = Ended(
            prepared, executed, executed.observation, observed, self.request.scope, self.request.environment
        )  # fmt: skip
        finished = result_of(ended, _SightOfView(os.fsencode(prepared.root), Digests(prepared.hash_function)))
        found = difference(client, self.stored, finished.root, finished.outputs, executed, finished.deleted)
        if found is None:
            return Judged(Verdict.SAME)
        return Judged(Verdict.DIFFERS, text(found.removeprefix(DIFFERS)))


class _SightOfView(Sight):
    """What is on disk, apart: there the kernel copies a directory when something in it is first changed.

    When that was says nothing of whether it was moved or changed, which its other time tells.
    """

    def status(self, place: bytes) -> os.stat_result | None:
        """Return what is there, for a directory with one time for both; raise `OSError`."""
        found = super().status(place)
        if found is None or not stat.S_ISDIR(found.st_mode):
            return found
        times = {name: getattr(found, name) for name in ("st_atime_ns", "st_mtime_ns", "st_rdev")}
        return os.stat_result(tuple(found), {**times, "st_ctime_ns": found.st_mtime_ns})


def _failed(executed: Executed) -> Judged:
    status = executed.exit_code
    if not executed.started or status > _KILLED:
        return Judged(Verdict.UNKNOWN, f"it could not be repeated (exit status {status})")
    if not has_all_rights():
        # Files of other groups cannot be changed where one user only is known.
        return Judged(Verdict.UNKNOWN, f"it ended with exit status {status}, perhaps for want of rights apart")
    return Judged(Verdict.DIFFERS, f"it ended with exit status {status}")
