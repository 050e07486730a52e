"""The audit log, which is only looked at, and the history of runs."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tvfs.catalog.catalog import Batch, Family, prefix_end
from tvfs.fsck.examination import Examination
from tvfs.fsck.finding import Finding, Step
from tvfs.vault.audit import AuditBroken
from tvfs.vault.runs import STATE, TAG, TAG_BYTES, TAGS, RunState

CHECK = "history"
_NUMBER_BYTES = 8
_TAGS_AT_ONCE = 256


def check_history(exam: Examination) -> Iterator[Step]:
    """Yield what puts the history of runs right; a broken audit log is reported and left as it is."""
    state, unreadable = _state(exam), set()
    counted_bytes = 0
    for key, row in exam.catalog.scan(Family.RUN):
        if _is_readable(key, row):
            if state is not None and int.from_bytes(key, "big") >= state.counted_from:
                counted_bytes += len(row)
            continue
        unreadable.add(key)
        batch = Batch()
        batch.delete(Family.RUN, key)
        yield Step(Finding(CHECK, f"run {int.from_bytes(key, 'big')}", "its record cannot be read", "removed"), batch)
    if state is not None and state.bytes_ != counted_bytes:
        what = f"{state.bytes_} bytes of records are counted, and there are {counted_bytes}"
        state.bytes_ = counted_bytes
        batch = Batch()
        batch.put(Family.SYS, STATE, msgspec.msgpack.encode(state))
        yield Step(Finding(CHECK, "history of runs", what, "counted anew"), batch)
    yield from _check_tags(exam, unreadable)
    try:
        exam.audit.verify()
    except AuditBroken as exc:
        what = str(exc).split(";")[0].removeprefix("The audit log ")
        remedy = "left as it is: it is evidence; compare the vault with a copy"
        yield Step(Finding("audit", f"audit record {exc.seq}", what, remedy, repairable=False))


def _check_tags(exam: Examination, unreadable: set[bytes]) -> Iterator[Step]:
    """Yield what removes rows that lead to a run which is gone."""
    for prefix, length in ((TAG, len(TAG) + TAG_BYTES + _NUMBER_BYTES), (TAGS, len(TAGS) + _NUMBER_BYTES)):
        batch, gone = Batch(), 0
        for key, _ in exam.catalog.scan(Family.SYS, prefix, prefix_end(prefix)):
            number = key[-_NUMBER_BYTES:]
            if len(key) == length and number not in unreadable and exam.catalog.get(Family.RUN, number) is not None:
                continue
            batch.delete(Family.SYS, key)
            gone += 1
            if gone == _TAGS_AT_ONCE:
                yield _removal(batch, gone)
                batch, gone = Batch(), 0
        if gone:
            yield _removal(batch, gone)


def _removal(batch: Batch, rows: int) -> Step:
    return Step(Finding(CHECK, "tags of runs", f"{rows} rows lead to runs that are not there", "removed"), batch)


def _state(exam: Examination) -> RunState | None:
    row = exam.catalog.get(Family.SYS, STATE)
    try:
        return None if row is None else msgspec.msgpack.decode(row, type=RunState)
    except msgspec.MsgspecError:
        return None  # made anew by the next run


def _is_readable(key: bytes, row: bytes) -> bool:
    try:
        msgspec.msgpack.decode(row)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return len(key) == _NUMBER_BYTES
