"""The audit log: an append-only chain in which every record holds the hash of the one before.

Whoever changes or removes a record must change every later one; whoever cuts the end off is found by the counter beside
the log.  A record is written in the same batch as the change that it tells of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import msgspec

from tvfs.catalog.catalog import Batch, Catalog, Family, Put
from tvfs.clock import Clock
from tvfs.errors import TaskVaultError

VERSION = 1
START = bytes(32)
"""`previous` of the first record."""
NEXT_AUDIT = b"next_audit"
"""Row of family `sys`: the sequence number after the last record."""


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


def hash_of(stored: bytes) -> bytes:
    """Return what the next record must hold as `previous`."""
    return hashlib.sha256(stored).digest()


def decode_record(stored: bytes) -> AuditRecord:
    """Return a stored record; raise `ValueError` for what is none."""
    try:
        record = msgspec.msgpack.decode(stored, type=AuditRecord)
    except msgspec.MsgspecError as exc:
        raise ValueError(str(exc)) from exc
    if record.version != VERSION:
        raise ValueError(f"its version is {record.version}")
    return record


def verify_chain(rows: Iterable[tuple[bytes, bytes]], next_seq: int) -> int:
    """Check a whole log, `(key, stored record)` in key order; return how many records there are.

    Raises `AuditBroken` at the first record that was changed, removed, added or moved.
    """
    previous = START
    count = 0
    for key, stored in rows:
        expected = count + 1
        try:
            record = decode_record(stored)
        except ValueError as exc:
            raise AuditBroken(expected, f"it is no record ({exc})") from exc
        if int.from_bytes(key, "big") != expected or record.seq != expected:
            raise AuditBroken(expected, "it is missing or out of order")
        if record.previous != previous:
            raise AuditBroken(expected, "it does not follow from the record before")
        previous = hash_of(stored)
        count += 1
    if count + 1 != next_seq:
        raise AuditBroken(count + 1, f"the log should go on to record {next_seq - 1}")
    return count


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
        batch.put(Family.AUDIT, seq.to_bytes(8, "big"), msgspec.msgpack.encode(record))
        batch.put(Family.SYS, NEXT_AUDIT, (seq + 1).to_bytes(8, "big"))
        return record

    def latest(self, limit: int) -> Iterator[AuditRecord]:
        """Yield the last `limit` records, the latest first."""
        end = b"\xff" * 8
        for _ in range(limit):
            row = self._catalog.last(Family.AUDIT, end)
            if row is None:
                return
            yield decode_record(row[1])
            end = (int.from_bytes(row[0], "big") - 1).to_bytes(8, "big")

    def verify(self) -> int:
        """Check the whole log and return its length; raise `AuditBroken`.  Reads everything: 2 µs a record."""
        counter = self._catalog.get(Family.SYS, NEXT_AUDIT)
        return verify_chain(self._catalog.scan(Family.AUDIT), int.from_bytes(counter, "big") if counter else 1)

    def _end(self, batch: Batch) -> tuple[int, bytes]:
        for change in reversed(batch.changes):
            if isinstance(change, Put) and change.family is Family.AUDIT:
                return int.from_bytes(change.key, "big") + 1, hash_of(change.value)
        row = self._catalog.last(Family.AUDIT, b"\xff" * 8)
        # Never before the counter: a log whose end was cut off stays visibly broken instead of closing the gap.
        counter = self._catalog.get(Family.SYS, NEXT_AUDIT)
        counted = int.from_bytes(counter, "big") if counter else 1
        if row is None:
            return counted, START
        return max(int.from_bytes(row[0], "big") + 1, counted), hash_of(row[1])
