"""The audit log, which is only looked at, and the history of runs."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tvfs.catalog.catalog import Batch, Family
from tvfs.fsck.examination import Examination
from tvfs.fsck.finding import Finding, Step
from tvfs.vault.audit import AuditBroken

CHECK = "history"


def check_history(exam: Examination) -> Iterator[Step]:
    """Yield what removes records of runs that cannot be read; a broken audit log is reported and left as it is."""
    for key, row in exam.catalog.scan(Family.RUN):
        try:
            msgspec.msgpack.decode(row)
            readable = len(key) == 8
        except (msgspec.MsgspecError, UnicodeDecodeError):
            readable = False
        if not readable:
            batch = Batch()
            batch.delete(Family.RUN, key)
            yield Step(
                Finding(CHECK, f"run {int.from_bytes(key, 'big')}", "its record cannot be read", "removed"), batch
            )
    try:
        exam.audit.verify()
    except AuditBroken as exc:
        what = str(exc).split(";")[0].removeprefix("The audit log ")
        remedy = "left as it is: it is evidence; compare the vault with a copy"
        yield Step(Finding("audit", f"audit record {exc.seq}", what, remedy, repairable=False))
