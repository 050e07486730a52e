"""Times to live and pins."""

from __future__ import annotations

import pytest

from tvfs.catalog.catalog import Batch, Family
from tvfs.catalog.memory import MemoryCatalog
from tvfs.clock import ManualClock
from tvfs.vault.audit import AuditLog
from tvfs.vault.entries import EntryTable, ExpiredRow, KeyMissing, StoredEntry, StoredSnapshot
from tvfs.vault.entry_totals import ROW, EntryTotals

SECOND_NS = 1_000_000_000


class World:
    def __init__(self, catalog: MemoryCatalog | None = None, clock: ManualClock | None = None) -> None:
        self.catalog = catalog or MemoryCatalog()
        self.clock = clock or ManualClock()
        self.audit = AuditLog(self.catalog, self.clock)
        self.entries = EntryTable(self.catalog, self.audit, self.clock)

    async def save(self, key: str, *, ttl_s: float = 0, **more: bool) -> None:
        now_ns = self.clock.now_ns()
        expires_ns = now_ns + int(ttl_s * SECOND_NS) if ttl_s else 0
        snapshot = StoredSnapshot("blake3:" + "0" * 64 + "-5", None, bytes(32), 2, 30)
        entry = StoredEntry("main", key, "saved", now_ns, now_ns, snapshot, expires_ns=expires_ns)
        await self.entries.put(entry, who="x", **more)

    def keys(self) -> list[str]:
        return [entry.key for entry in self.entries.list_entries()]

    def expire(self) -> list[str]:
        gone = []
        for row in self.entries.expired(100):
            entry = self.entries.past_life(row)
            assert entry is not None
            self.entries.expire(entry, who="x")
            gone.append(entry.key)
        return gone


@pytest.fixture
def world() -> World:
    return World()


async def test_what_has_expired_is_not_found_from_that_instant(world: World) -> None:
    await world.save("k", ttl_s=10)
    await world.save("l")
    world.clock.advance(9.999)
    assert world.keys() == ["k", "l"]
    assert world.entries.expired(10) == []
    world.clock.advance(0.001)
    assert world.entries.get("main", "k") is None
    assert world.entries.get("main", "k", count_use=True) is None
    assert not world.entries.exists("main", "k")
    assert world.keys() == ["l"]
    for change in (
        world.entries.remove("main", "k", who="x"),
        world.entries.set_pin("main", "k", pinned=True, who="x"),
    ):
        with pytest.raises(KeyMissing):
            await change


async def test_what_has_expired_is_removed_with_all_its_rows_and_audited(world: World) -> None:
    await world.save("later", ttl_s=20)
    await world.save("sooner", ttl_s=10)
    world.clock.advance(30)
    assert world.entries.count() == 2
    assert world.expire() == ["sooner", "later"]
    assert world.entries.totals() == EntryTotals()
    assert list(world.catalog.scan(Family.USAGE)) == list(world.catalog.scan(Family.ENTRY)) == []
    assert [(record.action, record.key) for record in world.audit.latest(2)] == [
        ("expire", "later"),
        ("expire", "sooner"),
    ]


async def test_a_key_whose_entry_has_expired_is_free(world: World) -> None:
    await world.save("k", ttl_s=10)
    world.clock.advance(10)
    await world.save("k")
    assert world.keys() == ["k"]
    assert world.entries.count() == 1
    assert world.expire() == []
    assert [record.action for record in world.audit.latest(2)] == ["save", "save"]


async def test_saving_again_sets_the_life_anew(world: World) -> None:
    await world.save("k", ttl_s=10)
    await world.save("k", ttl_s=100, replace=True)
    world.clock.advance(50)
    assert world.keys() == ["k"]
    await world.save("k", replace=True)
    world.clock.advance(10**6)
    assert world.keys() == ["k"]


async def test_a_row_that_stands_for_another_life_is_forgotten(world: World) -> None:
    await world.save("k")
    stale = ExpiredRow(5, b"main\0k")
    batch = Batch()
    batch.put(Family.USAGE, b"\x02" + (5).to_bytes(8, "big") + b"main\0k", b"")
    world.catalog.write(batch)
    assert world.entries.expired(10) == [stale]
    assert world.entries.past_life(stale) is None
    assert world.entries.expired(10) == []
    assert world.keys() == ["k"]


async def test_a_pin_is_durable_and_audited_and_not_the_end_of_a_life(world: World) -> None:
    await world.save("k", ttl_s=10)
    pinned = await world.entries.set_pin("main", "k", pinned=True, who="y")
    assert pinned.pinned
    again = World(world.catalog.crash_copy(durable_only=True), world.clock)
    assert again.entries.get("main", "k") == pinned
    assert again.entries.lowest(1) == []
    assert [(record.action, record.who) for record in again.audit.latest(1)] == [("pin", "y")]
    await again.entries.set_pin("main", "k", pinned=True, who="y")
    await again.entries.set_pin("main", "k", pinned=False, who="z")
    assert [record.action for record in again.audit.latest(9)] == ["unpin", "pin", "save"]
    assert len(again.entries.lowest(9)) == 1
    again.clock.advance(10)
    assert again.keys() == []


async def test_a_page_of_expired_entries_is_empty_and_says_where_to_go_on(world: World) -> None:
    for number in range(5):
        await world.save(f"{number}", ttl_s=1)
    await world.save("9")
    world.clock.advance(1)
    assert world.entries.page(limit=3) == ([], ("main", "2"))
    found, after = world.entries.page(after=("main", "2"), limit=3)
    assert [entry.key for entry in found] == ["9"]
    assert world.entries.page(after=after, limit=3) == ([], None)
    assert world.keys() == ["9"]


async def test_sums_are_kept_in_a_row_and_not_counted_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        await world.save(f"{number}")
    again = World(world.catalog.crash_copy(durable_only=True))

    def no_scan(*_arguments: object) -> object:
        raise AssertionError("nobody looks at all entries")

    monkeypatch.setattr(again.catalog, "scan", no_scan)
    assert again.entries.totals() == EntryTotals(entries=3, files=6, size_bytes=90)


async def test_sums_of_another_version_are_counted_anew(world: World) -> None:
    await world.save("k")
    batch = Batch()
    batch.put(Family.SYS, ROW, b"\x07" * 5)
    world.catalog.write(batch)
    again = World(world.catalog)
    assert again.entries.totals() == EntryTotals(entries=1, files=2, size_bytes=30)
