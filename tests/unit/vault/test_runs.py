from __future__ import annotations

from itertools import islice

from tvfs.catalog.memory import MemoryCatalog
from tvfs.vault.runs import RunHistory


def test_runs_are_numbered_from_one_and_read_latest_first() -> None:
    runs = RunHistory(MemoryCatalog())
    assert [runs.append(b"%d" % number) for number in range(3)] == [1, 2, 3]
    assert list(runs.latest_first()) == [(3, b"2"), (2, b"1"), (1, b"0")]
    assert list(islice(runs.latest_first(), 1)) == [(3, b"2")]
    assert list(runs.latest_first(before=3)) == [(2, b"1"), (1, b"0")]
    assert runs.get(2) == b"1"
    assert runs.get(4) is None
    assert runs.get(0) is None
    assert runs.get(1 << 64) is None


def test_appending_while_reading_does_not_disturb_the_reader() -> None:
    runs = RunHistory(MemoryCatalog())
    runs.append(b"a")
    runs.append(b"b")
    reading = runs.latest_first()
    assert next(reading) == (2, b"b")
    runs.append(b"c")
    assert list(reading) == [(1, b"a")]
    assert list(RunHistory(MemoryCatalog()).latest_first()) == []
