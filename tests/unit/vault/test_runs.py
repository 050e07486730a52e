from __future__ import annotations

from itertools import islice

import pytest

from tvfs.catalog.catalog import Batch, Family
from tvfs.catalog.memory import MemoryCatalog
from tvfs.vault.runs import RunHistory, RunSum


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


def test_runs_are_found_by_their_tags_and_only_those() -> None:
    runs = RunHistory(MemoryCatalog())
    for number in range(6):
        runs.append(b"%d" % number, tags=[b"parity %d" % (number % 2), b"thirds %d" % (number % 3)])
    runs.append(b"6")
    assert list(runs.latest_first(tag=b"parity 1")) == [(6, b"5"), (4, b"3"), (2, b"1")]
    assert list(runs.latest_first(tag=b"thirds 0", before=4)) == [(1, b"0")]
    assert list(runs.latest_first(tag=b"parity 2")) == []
    assert list(runs.latest_first(tag=b"zzzzzzzz")) == []


def rows(catalog: MemoryCatalog) -> int:
    return sum(1 for family in (Family.RUN, Family.SYS) for _ in catalog.scan(family))


def test_the_oldest_runs_are_forgotten_with_all_that_leads_to_them() -> None:
    catalog = MemoryCatalog()
    runs = RunHistory(catalog, most=3)
    for number in range(10):
        runs.append(b"%d" % number, tags=[b"same tag", b"number %d" % number])
    assert list(runs.latest_first()) == [(10, b"9"), (9, b"8"), (8, b"7")]
    assert list(runs.latest_first(tag=b"same tag")) == [(10, b"9"), (9, b"8"), (8, b"7")]
    assert rows(catalog) == 3 * 4 + 1
    again = RunHistory(catalog, most=3)
    assert again.append(b"10", tags=[b"same tag"]) == 11
    assert [number for number, _ in again.latest_first()] == [11, 10, 9]


def test_history_takes_no_more_bytes_than_it_may_and_keeps_the_last_run() -> None:
    runs = RunHistory(MemoryCatalog(), most_bytes=100)
    for size in (10, 60, 10, 40):
        runs.append(bytes(size))
    assert [len(record) for _, record in runs.latest_first()] == [40, 10]
    runs.append(bytes(500))
    assert [len(record) for _, record in runs.latest_first()] == [500]


def test_a_history_without_a_row_of_its_state_goes_on() -> None:
    catalog = MemoryCatalog()
    first = RunHistory(catalog)
    for number in range(5):
        first.append(b"%d" % number)
    batch = Batch()
    batch.delete(Family.SYS, b"runstate")
    batch.put(Family.SYS, b"runsum:damaged", b"\xff\x00")
    catalog.write(batch)
    later = RunHistory(catalog, most=3)
    assert later.sums() == {}
    later.append(b"5")
    assert [number for number, _ in later.latest_first()] == [6, 5, 4]


def test_numbers_are_not_given_again_when_records_were_lost_and_the_bounds_hold() -> None:
    catalog = MemoryCatalog()
    runs = RunHistory(catalog, most=3)
    for number in range(10):
        runs.append(b"%d" % number, tags=[b"same tag"])
    batch = Batch()
    batch.delete_range(Family.RUN, b"", b"\xff" * 8)
    catalog.write(batch)
    again = RunHistory(catalog, most=3)
    assert again.append(b"new", tags=[b"same tag"]) == 11
    assert list(again.latest_first(tag=b"same tag")) == [(11, b"new")]
    for _ in range(10):
        again.append(b"newer", tags=[b"same tag"])
    assert [number for number, _ in again.latest_first()] == [21, 20, 19]
    assert rows(catalog) == 3 * 3 + 1


def test_a_history_whose_last_numbers_nobody_noted_goes_on_above_what_was_forgotten() -> None:
    catalog = MemoryCatalog()
    batch = Batch()
    batch.put(Family.SYS, b"runstate", b"\x92\xcd\x01\x00\x07")  # [256, 7]: of a version that noted two things
    catalog.write(batch)
    runs = RunHistory(catalog, most=3)
    assert [runs.append(b"x") for _ in range(9)] == list(range(256, 265))
    assert [number for number, _ in runs.latest_first()] == [264, 263, 262]


def test_records_that_were_not_counted_when_they_were_written_do_not_make_room_when_they_go() -> None:
    catalog = MemoryCatalog()
    batch = Batch()
    for number in range(1, 4):
        batch.put(Family.RUN, number.to_bytes(8, "big"), bytes(60))
    catalog.write(batch)
    runs = RunHistory(catalog, most_bytes=100)
    for _ in range(12):
        runs.append(bytes(30))
    assert [len(record) for _, record in runs.latest_first()] == [30, 30, 30]


def test_sums_are_kept_by_name_and_outlive_the_runs_and_the_daemon() -> None:
    catalog = MemoryCatalog()
    runs = RunHistory(catalog, most=2)
    for number in range(5):
        runs.append(b"", name="gcc", counts=RunSum(1, number % 2, 0, 0, 10, 5))
    runs.append(b"", name="make", counts=RunSum(1, 0, 1, 0, 7, 0))
    expected = {"gcc": RunSum(5, 2, 0, 0, 50, 25), "make": RunSum(1, 0, 1, 0, 7, 0)}
    assert runs.sums() == expected
    assert RunHistory(catalog).sums() == expected


def test_names_beyond_a_number_are_summed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvfs.vault.runs.MOST_NAMES", 2)
    runs = RunHistory(MemoryCatalog())
    for name in ("a", "b", "c", "d", "a"):
        runs.append(b"", name=name, counts=RunSum(1))
    assert {name: each.runs for name, each in runs.sums().items()} == {"a": 2, "b": 1, "others": 2}


def test_a_caller_that_says_an_impossible_time_spoils_no_sum() -> None:
    runs = RunHistory(MemoryCatalog())
    for _ in range(3):
        runs.append(b"", name="gcc", counts=RunSum(1, saved_ns=(1 << 64) - 1))
    assert runs.sums()["gcc"] == RunSum(3, saved_ns=1 << 62)
