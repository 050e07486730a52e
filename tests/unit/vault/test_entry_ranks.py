"""Ranks: given by the policy, robust against it, given anew when it changes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tvplugins.eviction import lfu, lru

from tests.eviction_policies import ClockHand, CostBySize, Misbehaving
from tvfs.catalog.catalog import Batch, Family
from tvfs.catalog.memory import MemoryCatalog
from tvfs.clock import ManualClock
from tvfs.plugin_api import EntryFacts, EvictionPolicy
from tvfs.vault.audit import AuditLog
from tvfs.vault.entries import EntryTable, RankedRow, StoredEntry, StoredSnapshot
from tvfs.vault.entry_ranks import RANKED_AT_ONCE, REFERENCES_OF_ONE
from tvfs.vault.ranking import Ranking


class World:
    def __init__(self, policy: EvictionPolicy | None = None, catalog: MemoryCatalog | None = None) -> None:
        self.catalog = catalog or MemoryCatalog()
        self.clock = ManualClock()
        self.troubles: list[str] = []
        self.sharers: dict[bytes, int] = {}
        self.audit = AuditLog(self.catalog, self.clock)
        self.entries = EntryTable(
            self.catalog, self.audit, self.clock, sharers=lambda index: self.sharers.get(index, 0)
        )
        if policy is not None:
            self.use(policy)

    def use(self, policy: EvictionPolicy) -> None:
        self.entries.ranks.use(Ranking(policy, self.clock, on_trouble=self.troubles.append), {})

    def is_ranked(self) -> bool:
        return self.entries.ranks.are_complete

    def rank_all(self) -> int:
        slices, after = 1, self.entries.ranks.rank_some(None)
        while after is not None:
            slices, after = slices + 1, self.entries.ranks.rank_some(after)
        return slices

    async def save(self, key: str, *, cost_ns: int = 0, size: int = 100, kind: str = "saved", **more: Any) -> None:
        self.clock.advance(1)
        now_ns = self.clock.now_ns()
        snapshot = StoredSnapshot("blake3:" + "0" * 64 + "-5", None, key.encode().ljust(32, b"\0"), 1, size)
        entry = StoredEntry("main", key, kind, now_ns, now_ns, snapshot, cost_ns=cost_ns, **more)
        await self.entries.put(entry, who="x")

    def use_key(self, key: str) -> None:
        self.clock.advance(1)
        assert self.entries.get("main", key, count_use=True) is not None

    def order(self) -> list[str]:
        """Return the keys in the order in which they would leave."""
        return [row.row_key.partition(b"\0")[2].decode() for row in self.entries.lowest(1000)]

    def evict(self) -> str:
        """Let the policy choose, and evict one."""
        while True:
            entry = self.entries.evictable(self.entries.lowest(1)[0])
            assert entry is not None
            if not self.entries.ranks.spare(entry):
                self.entries.evict(entry, who="x")
                return entry.key


async def test_without_a_policy_what_was_used_longest_ago_leaves_first() -> None:
    world = World()
    for key in "abc":
        await world.save(key)
    world.use_key("a")
    assert world.order() == ["b", "c", "a"]
    assert world.evict() == "b"
    assert world.order() == ["c", "a"]
    assert world.entries.get("main", "b") is None
    assert [record.action for record in world.audit.latest(1)] == ["evict"]


async def test_what_is_pinned_and_named_snapshots_have_no_rank() -> None:
    world = World()
    await world.save("pinned", pinned=True)
    await world.save("named", kind="snapshot")
    await world.save("unnamed", kind="snapshot", expires_ns=world.clock.now_ns() + 10**12)
    await world.save("ordinary")
    assert world.order() == ["unnamed", "ordinary"]
    await world.entries.set_pin("main", "unnamed", pinned=True, who="x")
    assert world.order() == ["ordinary"]
    await world.entries.set_pin("main", "pinned", pinned=False, who="x")
    assert world.order() == ["pinned", "ordinary"]
    world.use_key("named")
    assert world.order() == ["pinned", "ordinary"]


async def test_frequency_fades_with_what_leaves() -> None:
    world = World(lfu.make({}))
    await world.save("famous")
    for _ in range(5):
        world.use_key("famous")
    for key in "abcdefgh":
        await world.save(key)
        world.use_key(key)
        if len(world.order()) > 2:
            world.evict()
    assert "famous" not in world.order()


async def test_cost_by_size_takes_what_is_cheap_and_large_first() -> None:
    world = World(CostBySize())
    await world.save("cheap and large", cost_ns=10, size=1000)
    await world.save("dear and large", cost_ns=10_000, size=1000)
    await world.save("cheap and small", cost_ns=10, size=10)
    assert world.order() == ["cheap and large", "cheap and small", "dear and large"]
    # Bytes that two entries keep count half for each.
    world.sharers[b"cheap and large".ljust(32, b"\0")] = 2 * REFERENCES_OF_ONE
    world.use_key("cheap and large")
    found = world.entries.get("main", "cheap and large")
    assert found is not None
    assert found.rank == 2 * 10 / 500
    assert world.entries.ranks.share_bytes(found) == 500


async def test_a_second_chance_is_given_once_for_uses_since() -> None:
    world = World(ClockHand())
    for key in "abc":
        await world.save(key)
    world.use_key("a")
    assert world.order() == ["a", "b", "c"]
    world.clock.advance(10)
    assert world.evict() == "b"
    assert world.order() == ["c", "a"]
    assert [world.evict(), world.evict()] == ["c", "a"]


@pytest.mark.parametrize("answer", [math.nan, math.inf, -math.inf, "high", None, 10**400])
async def test_a_policy_that_answers_nonsense_does_no_harm(answer: float) -> None:
    world = World(Misbehaving(lambda: answer, lambda: answer))
    for key in "abc":
        await world.save(key)
    world.use_key("a")
    assert world.order() == ["b", "c", "a"]
    assert [world.evict() for _ in range(3)] == ["b", "c", "a"]
    assert len(world.troubles) == 1
    assert "misbehaving" in world.troubles[0]


def raising() -> float:
    raise ZeroDivisionError("by zero")


async def test_a_policy_that_raises_is_ranked_by_use_and_told_of_once() -> None:
    world = World(Misbehaving(raising, raising))
    for key in "abc":
        await world.save(key)
    world.use_key("a")
    assert [world.evict() for _ in range(3)] == ["b", "c", "a"]
    assert len(world.troubles) == 1
    assert "ZeroDivisionError: by zero" in world.troubles[0]


async def test_what_a_policy_failed_on_does_not_age_the_others() -> None:
    answers = [1.0, math.nan, 2.0]
    seen: list[float] = []

    class Sometimes(Misbehaving):
        def rank(self, entry: EntryFacts, aging: float, /) -> float:
            seen.append(aging)
            return answers[len(seen) - 1]

    world = World(Sometimes(raising))
    await world.save("a")
    await world.save("failed")
    assert [world.evict(), world.evict()] == ["a", "failed"]
    await world.save("b")
    assert seen[-1] == 1.0


async def test_a_slow_policy_is_told_of() -> None:
    world = World()

    def slow() -> float:
        world.clock.advance(0.006)
        return 1.0

    world.use(Misbehaving(slow))
    await world.save("a")
    assert ["6 ms" in trouble for trouble in world.troubles] == [True]


async def test_a_spared_rank_that_is_not_higher_evicts() -> None:
    world = World(Misbehaving(lambda: 5.0, lambda: 5.0))
    await world.save("a")
    assert world.evict() == "a"


async def test_another_policy_ranks_all_anew_in_slices_and_a_kill_begins_again() -> None:
    world = World(lru.make({}))
    assert world.rank_all() == 1
    keys = [f"{number:03}" for number in range(2 * RANKED_AT_ONCE + 1)]
    for key in keys:
        await world.save(key)
    for key in keys[:10]:
        world.use_key(key)
    assert world.is_ranked()
    world.use(lfu.make({}))
    assert not world.is_ranked()
    world.entries.ranks.rank_some(None)

    after_kill = World(lfu.make({}), world.catalog.crash_copy(durable_only=False))
    assert not after_kill.entries.ranks.are_complete
    assert after_kill.rank_all() == 3
    assert set(after_kill.order()[-10:]) == set(keys[:10])
    assert sorted(after_kill.order()) == keys

    reopened = World(lfu.make({}), after_kill.catalog.crash_copy(durable_only=False))
    assert reopened.entries.ranks.are_complete


async def test_other_parameters_rank_anew_too() -> None:
    world = World(lru.make({}))
    world.rank_all()
    world.entries.ranks.use(Ranking(lru.make({}), world.clock), {"half_life_s": 5})
    assert not world.is_ranked()


async def test_the_aging_of_a_policy_outlives_a_kill() -> None:
    world = World(lfu.make({}))
    await world.save("a")
    world.use_key("a")
    world.evict()
    after_kill = World(lfu.make({}), world.catalog.crash_copy(durable_only=False))
    await after_kill.save("b")
    assert after_kill.entries.lowest(1)[0].rank == 3.0


async def test_rows_of_an_older_vault_are_read_ranked_and_found_by_prefix() -> None:
    catalog = MemoryCatalog()
    batch = Batch()
    for number in range(3):
        old = {
            "scope": "main", "key": f"deps-{number}", "kind": "saved", "created_ns": 5 - number, "used_ns": number,
            "snapshot": {"tree": "t", "attributes": None, "index": bytes(32), "files": 2, "size": 7},
            "result": b"", "cost_ns": 1, "observed": "declared", "uses": 0,
        }  # fmt: skip
        batch.put(Family.ENTRY, f"main\0deps-{number}".encode(), b"\x01" + msgspec.msgpack.encode(old))
    catalog.write(batch)
    world = World(lru.make({}), catalog)
    assert world.entries.count() == 3
    assert world.entries.totals().files == 6
    assert world.order() == []
    found = world.entries.get("main", "deps-1")
    assert found is not None
    assert (found.pinned, found.expires_ns, found.rank) == (False, 0, None)
    world.rank_all()
    assert world.order() == ["deps-0", "deps-1", "deps-2"]
    kinds = {key[0] for key, _ in catalog.scan(Family.USAGE)}
    assert kinds == {1, 4}


async def test_a_row_that_stands_for_nothing_is_forgotten() -> None:
    world = World()
    await world.save("a")
    rank = world.entries.lowest(1)[0].rank
    damaged = Batch()
    damaged.put(Family.ENTRY, b"main\0a", b"\x01garbage")
    world.catalog.write(damaged)
    assert world.entries.evictable(RankedRow(rank, b"main\0a")) is None
    assert world.order() == []


async def test_the_head_of_the_queue_is_found_whatever_was_deleted_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    for number in range(100):
        await world.save(f"{number:03}")
    for _ in range(99):
        world.evict()
    starts: list[bytes] = []
    scan: Callable[..., object] = world.catalog.scan

    def noted(family: Family, start: bytes = b"", end: bytes | None = None) -> object:
        starts.append(start)
        return scan(family, start, end)

    monkeypatch.setattr(world.catalog, "scan", noted)
    assert world.order() == ["099"]
    world.order()
    assert starts[1].endswith(b"main\x00099")
    # What comes lower later is found all the same.
    late = StoredEntry("main", "late", "saved", 1, 1)
    await world.entries.put(late, who="x")
    assert world.order() == ["late", "099"]
