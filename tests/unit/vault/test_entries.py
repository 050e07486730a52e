from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tvfs.catalog.catalog import Batch, Family
from tvfs.catalog.memory import MemoryCatalog
from tvfs.catalog.rocks import CatalogFull
from tvfs.clock import ManualClock
from tvfs.vault.audit import AuditLog
from tvfs.vault.entries import EntryInvalid, EntryTable, KeyExists, KeyMissing, StoredEntry, StoredSnapshot
from tvfs.vault.names import NameInvalid

SNAPSHOT = StoredSnapshot("blake3:" + "0" * 64 + "-5", None, bytes(32), 1, 5)


class Table:
    def __init__(self, catalog: MemoryCatalog | None = None) -> None:
        self.catalog = catalog or MemoryCatalog()
        self.clock = ManualClock()
        self.audit = AuditLog(self.catalog, self.clock)
        self.entries = EntryTable(self.catalog, self.audit, self.clock)

    def found(self, scope: str, key: str) -> StoredEntry | None:
        """Return the entry as it was put: without the rank that the table gave it."""
        found = self.entries.get(scope, key)
        return None if found is None else msgspec.structs.replace(found, rank=None)


@pytest.fixture
def table() -> Table:
    return Table()


def entry(scope: str, key: str, kind: str = "saved") -> StoredEntry:
    return StoredEntry(scope, key, kind, 1, 1, SNAPSHOT)


async def test_what_was_put_is_found_and_durable(table: Table) -> None:
    await table.entries.put(entry("main", "k"), who="uid 0")
    assert table.found("main", "k") == entry("main", "k")
    after_power_loss = Table(table.catalog.crash_copy(durable_only=True))
    assert after_power_loss.found("main", "k") == entry("main", "k")
    assert after_power_loss.audit.verify() == 1


async def test_what_is_there_is_found_though_the_disk_is_full() -> None:
    class FullDisk(MemoryCatalog):
        is_full = False

        def write(self, batch: Batch) -> None:
            if self.is_full:
                raise CatalogFull(Path("meta"))
            super().write(batch)

    catalog = FullDisk()
    table = Table(catalog)
    await table.entries.put(entry("main", "k"), who="x")
    catalog.is_full = True
    found = table.entries.get("main", "k", count_use=True)
    assert found is not None
    assert found.snapshot == SNAPSHOT
    catalog.is_full = False
    found = table.entries.get("main", "k", count_use=True)
    assert found is not None
    assert found.uses == 1
    assert table.entries.lowest(10)[0].rank == found.rank


async def test_another_scope_has_other_keys(table: Table) -> None:
    await table.entries.put(entry("pr/7", "k"), who="x")
    assert table.entries.get("pr", "k") is None
    assert table.entries.get("main", "k") is None


async def test_an_existing_key_is_replaced_only_on_request(table: Table) -> None:
    await table.entries.put(entry("main", "k"), who="x")
    with pytest.raises(KeyExists, match="--replace"):
        await table.entries.put(entry("main", "k", "run"), who="x")
    assert table.found("main", "k") == entry("main", "k")
    assert table.audit.verify() == 1
    await table.entries.put(entry("main", "k", "run"), who="x", replace=True)
    found = table.entries.get("main", "k")
    assert found is not None
    assert found.kind == "run"
    assert [record.action for record in table.audit.latest(9)] == ["replace", "save"]


async def test_a_removed_entry_is_gone_durably_and_audited(table: Table) -> None:
    await table.entries.put(entry("main", "k"), who="x")
    await table.entries.remove("main", "k", who="y")
    assert Table(table.catalog.crash_copy(durable_only=True)).entries.get("main", "k") is None
    assert [(record.action, record.who) for record in table.audit.latest(1)] == [("remove", "y")]
    with pytest.raises(KeyMissing, match="tv cache ls"):
        await table.entries.remove("main", "k", who="y")


async def test_bad_names_are_refused_everywhere(table: Table) -> None:
    with pytest.raises(NameInvalid):
        await table.entries.put(entry("main", "a/b"), who="x")
    with pytest.raises(NameInvalid):
        table.entries.get("a//b", "k")
    with pytest.raises(NameInvalid):
        await table.entries.remove("main", "..", who="x")
    assert list(table.catalog.scan(Family.ENTRY)) == []


async def test_counting_a_use_changes_nothing_else(table: Table) -> None:
    await table.entries.put(entry("main", "k"), who="x")
    table.clock.advance(60)
    table.entries.get("main", "k", count_use=True)
    found = table.entries.get("main", "k", count_use=True)
    assert found is not None
    assert (found.uses, found.used_ns, found.created_ns) == (2, table.clock.now_ns(), 1)
    assert table.entries.get("main", "k") == found
    assert table.audit.verify() == 1


async def test_entries_are_listed_in_pages_and_by_scope(table: Table) -> None:
    names = [("main", "a"), ("main", "b"), ("main2", "a"), ("pr/1", "a"), ("pr/1", "a\u00ff")]
    for scope, key in reversed(names):
        await table.entries.put(entry(scope, key), who="x")

    def listed(found: list[StoredEntry]) -> list[tuple[str, str]]:
        return [(one.scope, one.key) for one in found]

    assert listed(table.entries.list_entries()) == names
    assert listed(table.entries.list_entries("main")) == names[:2]
    assert listed(table.entries.list_entries("pr")) == []
    assert listed(table.entries.list_entries(limit=2)) == names[:2]
    assert listed(table.entries.list_entries(after=("main", "b"))) == names[2:]
    assert listed(table.entries.list_entries("main", after=("main", "a"))) == names[1:2]
    assert listed(table.entries.list_entries("pr/1", after=("main", "a"))) == names[3:]
    assert list(table.entries.scopes()) == ["main", "main2", "pr/1"]


async def test_the_count_follows_changes(table: Table) -> None:
    await table.entries.put(entry("main", "a"), who="x")
    assert table.entries.count() == 1
    await table.entries.put(entry("main", "b"), who="x")
    await table.entries.put(entry("main", "b"), who="x", replace=True)
    assert table.entries.count() == 2
    await table.entries.remove("main", "a", who="x")
    assert table.entries.count() == 1 == Table(table.catalog).entries.count()


async def test_a_damaged_row_hides_no_other_and_is_named(table: Table) -> None:
    for key in "abcd":
        await table.entries.put(entry("main", key), who="x")
    batch = Batch()
    for key in (b"a", b"c"):
        batch.put(Family.ENTRY, b"main\0" + key, b"\x01garbage")
    table.catalog.write(batch)
    assert [found.key for found in table.entries.list_entries()] == ["b", "d"]
    assert [found.key for found in table.entries.list_entries(limit=1)] == ["b"]
    unreadable: list[EntryInvalid] = []
    table.entries.page(limit=3, unreadable=unreadable)
    assert ["'a'" in str(unreadable[0]), "'c'" in str(unreadable[1])] == [True, True]


async def test_a_damaged_row_is_an_error_that_removing_cures(table: Table) -> None:
    await table.entries.put(entry("main", "k"), who="x")
    for row in (b"", b"\x02", b"\x01garbage", b"\x01" + b"\xc0"):
        batch = Batch()
        batch.put(Family.ENTRY, b"main\0k", row)
        table.catalog.write(batch)
        with pytest.raises(EntryInvalid, match="tv cache rm"):
            table.entries.get("main", "k")
    await table.entries.remove("main", "k", who="x")
    assert table.entries.get("main", "k") is None
