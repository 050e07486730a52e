"""The audit log: an append-only chain in which every record holds the hash of the one before.

Whoever changes or removes a record must change every later one; whoever cuts the end off is found by the counter beside
the log.  A record is written in the same batch as the change that it tells of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice

import msgspec
import trio

from tvfs.catalog.catalog import Batch, Catalog, Family, Put
from tvfs.clock import Clock
from tvfs.errors import TaskVaultError

VERSION = 1
START = bytes(32)
"""`previous` of the first record."""
NEXT_AUDIT = b"next_audit"
"""Row of family `sys`: the sequence number after the last record."""
HEAD = b"audit_head"
"""Row of family `sys`: SHA-256 of the stored bytes of the last record, which no other record follows."""

SLICE = 128
"""Records checked before others get their turn: 0.5 ms."""


class AuditRecord(msgspec.Struct, frozen=True, array_like=True):
    """One change of an entry or of the vault's state of health."""

    version: int
    seq: int
    time_ns: int
    action: str
    """`save`, `replace`, `remove`, `quarantine`, `recover` …"""
    scope: str
    key: str
    who: str
    detail: str
    previous: bytes
    """SHA-256 of the stored bytes of the record before."""


class AuditBroken(TaskVaultError):
    """The log is not what was written."""

    def __init__(self, seq: int, reason: str) -> None:
        super().__init__(
            f"The audit log was changed at record {seq}: {reason};"
            " compare the vault with a copy before you trust its entries."
        )
        self.seq = seq
        self.reason = reason


def hash_of(stored: bytes) -> bytes:
    """Return what the next record must hold as `previous`."""
    return hashlib.sha256(stored).digest()


def decode_record(stored: bytes) -> AuditRecord:
    """Return a stored record; raise `ValueError` for what is none."""
    try:
        record = msgspec.msgpack.decode(stored, type=AuditRecord)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise ValueError(str(exc)) from exc
    if record.version != VERSION:
        raise ValueError(f"its version is {record.version}")
    return record


class ChainCheck:
    """Checks a log from its start, some records at a time."""

    def __init__(self) -> None:
        self._previous = START
        self.count = 0
        """Records that were checked."""

    def go_on(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Check the next `(key, stored record)` in key order; 4 µs each.

        Raises `AuditBroken` at the first record that was changed, removed, added or moved.
        """
        for key, stored in rows:
            expected = self.count + 1
            try:
                record = decode_record(stored)
            except ValueError as exc:
                raise AuditBroken(expected, f"it is no record ({exc})") from exc
            if int.from_bytes(key, "big") != expected or record.seq != expected:
                raise AuditBroken(expected, "it is missing or out of order")
            if record.previous != self._previous:
                raise AuditBroken(expected, f"it does not follow from record {self.count}: one of the two was changed")
            self._previous = hash_of(stored)
            self.count += 1

    def finish(self, counter: bytes | None, head: bytes | None) -> int:
        """Return how many records there are if the log ends where it should; raise `AuditBroken`."""
        next_seq = int.from_bytes(counter, "big") if counter else 1
        if self.count + 1 != next_seq:
            raise AuditBroken(self.count + 1, f"the log should go on to record {next_seq - 1}")
        if head is not None and self.count and head != self._previous:
            raise AuditBroken(self.count, "it is not what was written last")
        return self.count


def verify_chain(rows: Iterable[tuple[bytes, bytes]], next_seq: int, head: bytes | None = None) -> int:
    """Check a whole log and return how many records there are; raise `AuditBroken`."""
    check = ChainCheck()
    check.go_on(rows)
    return check.finish(next_seq.to_bytes(8, "big"), head)


class AuditLog:
    """Appends to and reads the log of one vault."""

    def __init__(self, catalog: Catalog, clock: Clock) -> None:
        self._catalog = catalog
        self._clock = clock

    def append_to(
        self, batch: Batch, *, action: str, scope: str = "", key: str = "", who: str, detail: str = ""
    ) -> AuditRecord:
        """Add a record to the batch that makes the change.

        Write the batch before the next `await`: the chain is continued from what is written, and from this batch.
        """
        seq, previous = self._end(batch)
        record = AuditRecord(VERSION, seq, self._clock.now_ns(), action, scope, key, who, detail, previous)
        stored = msgspec.msgpack.encode(record)
        batch.put(Family.AUDIT, seq.to_bytes(8, "big"), stored)
        batch.put(Family.SYS, NEXT_AUDIT, (seq + 1).to_bytes(8, "big"))
        batch.put(Family.SYS, HEAD, hash_of(stored))
        return record

    def latest(self, limit: int, *, before: int | None = None) -> Iterator[AuditRecord]:
        """Yield the last `limit` records, or the last before record `before`, the latest first; raise `AuditBroken`."""
        for seq, stored in self.stored(before=before):
            if limit <= 0:
                return
            limit -= 1
            try:
                yield decode_record(stored)
            except ValueError as exc:
                raise AuditBroken(seq, f"it is no record ({exc})") from exc

    def stored(self, *, before: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Yield number and stored bytes of records, the latest first.

        Each step looks the next one up anew, so a caller may stop, or await between two steps.
        """
        end = (1 << 64) - 1 if before is None else before - 1
        while end >= 0:
            row = self._catalog.last(Family.AUDIT, end.to_bytes(8, "big"))
            if row is None:
                return
            seq = int.from_bytes(row[0], "big")
            yield seq, row[1]
            end = seq - 1

    def verify(self) -> int:
        """Check the whole log and return its length; raise `AuditBroken`.  Reads everything: 4 µs a record."""
        check = ChainCheck()
        check.go_on(self._catalog.scan(Family.AUDIT))
        return self._finish(check)

    async def verify_in_slices(self) -> int:
        """Do the same while others have their turns, and while records are added."""
        check = ChainCheck()
        start = b""
        while True:
            # A scan is not kept open while others run, so it is begun anew after each slice.
            part = list(islice(self._catalog.scan(Family.AUDIT, start), SLICE))
            check.go_on(part)
            if len(part) < SLICE:
                return self._finish(check)
            start = part[-1][0] + b"\0"
            await trio.lowlevel.checkpoint()

    def _finish(self, check: ChainCheck) -> int:
        head = self._catalog.get(Family.SYS, HEAD)
        if head is None and check.count:
            # Written with every record; without it nothing would bind the last one.
            raise AuditBroken(check.count, "the hash of what was written last is gone")
        return check.finish(self._catalog.get(Family.SYS, NEXT_AUDIT), head)

    def _end(self, batch: Batch) -> tuple[int, bytes]:
        for change in reversed(batch.changes):
            if isinstance(change, Put) and change.family is Family.AUDIT:
                return int.from_bytes(change.key, "big") + 1, hash_of(change.value)
        row = self._catalog.last(Family.AUDIT, b"\xff" * 8)
        # Never before the counter: a log whose end was cut off stays visibly broken instead of closing the gap.
        counter = self._catalog.get(Family.SYS, NEXT_AUDIT)
        counted = int.from_bytes(counter, "big") if counter else 1
        # What was written last, whatever the row says now: a changed last record is not covered up by the next.
        head = self._catalog.get(Family.SYS, HEAD)
        if row is None:
            return counted, head or START
        return max(int.from_bytes(row[0], "big") + 1, counted), head or hash_of(row[1])
