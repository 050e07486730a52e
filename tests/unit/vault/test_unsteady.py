"""Keys that did not reproduce: marked, refused, bounded, and taken away by whoever insists."""

from __future__ import annotations

import pytest

from tests.unit.vault.test_entries import Table, entry
from tvfs.catalog.catalog import Batch, Family
from tvfs.catalog.memory import MemoryCatalog
from tvfs.vault.unsteady import KeyUnsteady, UnsteadyKeys, UnsteadyMark


async def test_a_marked_key_finds_nothing_and_is_bound_to_nothing_and_that_is_durable() -> None:
    table = Table()
    await table.entries.put(entry("main", "k", "run"), who="x")
    table.clock.advance(5)
    await table.entries.mark_unsteady("main", "k", run="17", how="out differs", who="uid 0")
    after = Table(table.catalog.crash_copy(durable_only=True))
    assert after.found("main", "k") is None
    assert after.entries.unsteady.get("main", "k") == UnsteadyMark(1, table.clock.now_ns(), "17", "out differs")
    for replace in (False, True):
        with pytest.raises(KeyUnsteady, match="out differs"):
            await after.entries.put(entry("main", "k", "run"), who="x", replace=replace)
    assert after.found("main", "k") is None
    assert after.entries.totals().entries == 0


async def test_whoever_insists_takes_the_mark_away_and_the_audit_log_tells_of_both() -> None:
    table = Table()
    await table.entries.mark_unsteady("main", "k", run="17", how="out differs", who="uid 0")
    await table.entries.put(entry("main", "k", "run"), who="uid 1", despite_mark=True)
    assert table.found("main", "k") == entry("main", "k", "run")
    assert table.entries.unsteady.get("main", "k") is None
    records = [(record.action, record.key, record.who, record.detail) for record in table.audit.latest(9)][::-1]
    assert records[:2] == [("mark", "k", "uid 0", "run 17: out differs"), ("unmark", "k", "uid 1", "")]
    assert [record[0] for record in records[2:]] == ["save"]
    assert table.audit.verify() == 3
    assert sys_rows(table.catalog) == 0


async def test_other_keys_and_scopes_are_none_of_it() -> None:
    table = Table()
    await table.entries.mark_unsteady("main", "k", run="17", how="out differs", who="x")
    await table.entries.put(entry("pr/7", "k", "run"), who="x")
    await table.entries.put(entry("main", "l", "run"), who="x")


def test_marks_are_bounded_and_the_oldest_go_first() -> None:
    catalog = MemoryCatalog()
    marks = UnsteadyKeys(catalog, most=100)
    for number in range(1000):
        mark(catalog, marks, f"k{number}")
    assert sys_rows(catalog) == 2 * 100
    assert marks.get("main", "k899") is None
    assert marks.get("main", "k900") is not None


def test_a_key_that_is_marked_anew_counts_once_and_as_the_latest() -> None:
    catalog = MemoryCatalog()
    marks = UnsteadyKeys(catalog, most=3)
    for key in ("a", "b", "c", "a", "a", "d"):
        mark(catalog, marks, key)
    assert [key for key in "abcd" if marks.get("main", key)] == ["a", "d"]
    assert sys_rows(catalog) == 4
    found = marks.get("main", "a")
    assert found is not None
    assert found.seq == 5


def test_a_mark_that_cannot_be_read_still_marks() -> None:
    catalog = MemoryCatalog()
    batch = Batch()
    batch.put(Family.SYS, b"unsteady:main\0k", b"\xff\x00")
    catalog.write(batch)
    assert UnsteadyKeys(catalog).get("main", "k") is not None


def mark(catalog: MemoryCatalog, marks: UnsteadyKeys, key: str) -> None:
    batch = Batch()
    marks.add_to(batch, "main", key, marked_ns=1, run="1", how="differs")
    catalog.write(batch)


def sys_rows(catalog: MemoryCatalog) -> int:
    return sum(1 for key, _ in catalog.scan(Family.SYS) if key.startswith(b"unsteady"))
