"""What is noted for the next daemon is what it reads, whatever was noted and taken back before."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvfs.filesystem.lookups import LookupCounts
from tvfs.filesystem.model import Ino
from tvfs.filesystem.session_record import (
    INO_END,
    ROWS_MAX,
    Agreed,
    Opened,
    RowKind,
    SessionRecord,
    SessionRecordUnreadable,
)

inodes = st.integers(1, 300_000)


def reread(record: SessionRecord) -> SessionRecord:
    return SessionRecord(os.dup(record.descriptor))


@given(st.lists(st.tuples(st.booleans(), inodes)), st.lists(st.tuples(st.booleans(), st.integers(1, 9)), max_size=40))
def test_a_successor_reads_what_is_open_and_known(
    known: list[tuple[bool, int]], opened: list[tuple[bool, int]]
) -> None:
    record = SessionRecord.create()
    counts, rows = LookupCounts(record), dict[int, Opened]()
    for add, ino in known:
        if add:
            counts.add(Ino(ino))
        else:
            counts.drop(Ino(ino), 1)
    for add, handle in opened:
        if add and handle not in rows:
            rows[handle] = Opened(RowKind.WRITER, handle, handle * 7, 128, handle % 3, 1 << 40 | handle)
            record.opened(rows[handle])
        elif not add:
            record.released(handle)
            rows.pop(handle, None)
    successor = reread(record)
    assert sorted(successor.handles()) == sorted(rows.values())
    assert list(successor.known_inodes()) == sorted(counts.clear())
    for handle in rows:
        successor.released(handle)
    again = reread(record)
    assert again.handles() == []
    for each in (record, successor, again):
        each.close()


def test_inherited_references_go_with_the_first_that_are_more_than_were_counted_since() -> None:
    record = SessionRecord.create()
    LookupCounts(record).add(Ino(70), 5)
    successor = reread(record)
    counts = LookupCounts(successor)
    assert counts.holds(Ino(70))
    assert not counts.holds(Ino(71))
    counts.add(Ino(70))
    assert not counts.drop(Ino(70), 1), "one that was counted since: the kernel had it of an answer it did not want"
    assert counts.holds(Ino(70))
    counts.add(Ino(70))
    assert counts.drop(Ino(70), 6)
    assert not counts.holds(Ino(70))
    last = reread(record)
    assert list(last.known_inodes()) == []
    for each in (record, successor, last):
        each.close()


def test_the_session_and_what_is_read_past_the_daemon_are_noted() -> None:
    record = SessionRecord.create()
    assert record.agreed is None
    record.mounted("0:99")
    record.agree(Agreed(45, 1 << 39 | 5, 131072, 64))
    record.settle(True)
    for ino in (5, 6, 7, 5):
        record.known(ino)
        record.read_past_us(ino)
    record.forgotten(6)
    successor = reread(record)
    assert (successor.session, successor.device, successor.settled) == (record.session, "0:99", True)
    assert successor.agreed == Agreed(45, 1 << 39 | 5, 131072, 64)
    assert successor.inodes_read_past_us() == [7, 5]
    assert successor.handles() == []
    record.close()
    successor.close()


def test_a_record_without_room_says_that_it_is_not_complete() -> None:
    record = SessionRecord.create()
    assert record.complete
    record.known(INO_END - 1)
    assert record.complete
    record.known(INO_END)
    assert not record.complete
    record.close()
    record = SessionRecord.create()
    for handle in range(ROWS_MAX + 1):
        assert record.complete
        record.opened(Opened(RowKind.READER, handle, 1, 0, 0, 0))
    assert not record.complete
    record.close()


def test_a_handle_that_was_closed_is_known_to_have_been_used() -> None:
    record = SessionRecord.create()
    for handle in (5, 9, 7):
        record.opened(Opened(RowKind.READER, handle, 1, 0, 0, 0))
    record.released(9)
    successor = reread(record)
    assert successor.highest_handle == 9
    record.close()
    successor.close()


def test_what_no_daemon_of_this_version_wrote_is_refused() -> None:
    for content in (b"", b"tvsess\0\2"):
        descriptor = os.memfd_create("foreign")
        os.ftruncate(descriptor, (16 << 20) + (1 << 32) if content else 0)
        os.pwrite(descriptor, content, 0)
        with pytest.raises(SessionRecordUnreadable):
            SessionRecord(descriptor)
