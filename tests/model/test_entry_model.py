"""The table of entries against a dict: saves, uses, pins, expiry, eviction, other policies, kills, power losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec
import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tvplugins.eviction import lfu, lru, ttl

from tests.eviction_policies import ClockHand, CostBySize, Misbehaving, TwoQueues
from tvfs.catalog.catalog import Family
from tvfs.catalog.memory import MemoryCatalog
from tvfs.clock import ManualClock
from tvfs.plugin_api import EvictionPolicy
from tvfs.vault.audit import AuditLog
from tvfs.vault.entries import EntryTable, KeyExists, KeyMissing, StoredEntry, StoredSnapshot
from tvfs.vault.entry_totals import ROW, count_entries, decode_totals
from tvfs.vault.entry_usage import usage_rows
from tvfs.vault.newest import newest_saved
from tvfs.vault.ranking import Ranking
from tvfs.vault.stored_entry import decode_entry

SCOPES = st.sampled_from(["main", "main2", "pr/7"])
KEYS = st.sampled_from(["a", "a-b", "a-b-c", "ab", "b", "deps-1", "deps-2", "deps.2-x"])
PREFIXES = st.sampled_from(["", "a", "a-", "a-b", "deps", "deps-", "deps-1", "x"])
POLICIES: dict[str, Callable[[], EvictionPolicy]] = {
    "lru": lambda: lru.make({}),
    "lfu": lambda: lfu.make({}),
    "ttl": lambda: ttl.make({}),
    "cost": CostBySize,
    "clock": ClockHand,
    "queues": TwoQueues,
    "broken": lambda: Misbehaving(lambda: float("nan"), lambda: float("inf")),
}


@dataclass(frozen=True)
class Known:
    """What the model knows of an entry."""

    kind: str
    created_ns: int
    used_ns: int
    expires_ns: int
    pinned: bool
    files: int
    uses: int = 0


class EntryMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.catalog = MemoryCatalog()
        self.clock = ManualClock()
        self.model: dict[tuple[str, str], Known] = {}
        self.policy = "lru"

    @initialize(policy=st.sampled_from(sorted(POLICIES)))
    def open_with(self, policy: str) -> None:
        self.policy = policy
        self.open()

    def open(self) -> None:
        self.audit = AuditLog(self.catalog, self.clock)
        self.table = EntryTable(self.catalog, self.audit, self.clock)
        self.table.ranks.use(Ranking(POLICIES[self.policy](), self.clock), {})

    # --- what happens

    @rule(
        scope=SCOPES,
        key=KEYS,
        kind=st.sampled_from(["saved", "run"]),
        ttl_s=st.one_of(st.none(), st.integers(1, 100)),
        pinned=st.booleans(),
        replacing=st.booleans(),
        files=st.integers(0, 9),
    )
    def put(self, scope: str, key: str, replacing: bool, **what: object) -> None:
        now_ns = self.clock.now_ns()
        ttl_s = what.pop("ttl_s")
        expires_ns = 0 if ttl_s is None else now_ns + ttl_s * 1_000_000_000  # type: ignore[operator]
        known = Known(created_ns=now_ns, used_ns=now_ns, expires_ns=expires_ns, **what)  # type: ignore[arg-type]
        snapshot = StoredSnapshot("blake3:" + "0" * 64 + "-5", None, bytes(32), known.files, known.files * 10)
        entry = StoredEntry(
            scope, key, known.kind, now_ns, now_ns, snapshot, expires_ns=expires_ns, pinned=known.pinned, cost_ns=7
        )
        exists = self.living((scope, key)) is not None
        try:
            self.run(self.table.put(entry, who="test", replace=replacing))
        except KeyExists:
            assert exists
            assert not replacing
            return
        assert replacing or not exists
        self.model[scope, key] = known

    @rule(scope=SCOPES, key=KEYS, count_use=st.booleans())
    def get(self, scope: str, key: str, count_use: bool) -> None:
        known = self.living((scope, key))
        if known is not None and count_use:
            known = self.model[scope, key] = replace(known, uses=known.uses + 1, used_ns=self.clock.now_ns())
        self.compare(self.table.get(scope, key, count_use=count_use), known)
        assert self.table.exists(scope, key) == (known is not None)

    @rule(scope=SCOPES, key=KEYS, pinned=st.booleans())
    def set_pin(self, scope: str, key: str, pinned: bool) -> None:
        known = self.living((scope, key))
        try:
            found = self.run(self.table.set_pin(scope, key, pinned=pinned, who="test"))
        except KeyMissing:
            assert known is None
            return
        assert known is not None
        known = self.model[scope, key] = replace(known, pinned=pinned)
        assert isinstance(found, StoredEntry)
        self.compare(found, known)

    @rule(scope=SCOPES, key=KEYS)
    def remove(self, scope: str, key: str) -> None:
        known = self.living((scope, key))
        try:
            self.run(self.table.remove(scope, key, who="test"))
        except KeyMissing:
            assert known is None
            return
        assert known is not None
        del self.model[scope, key]

    @rule()
    def evict_one(self) -> None:
        rows = self.table.lowest(1)
        assert bool(rows) == any(not known.pinned for known in self.model.values())
        if not rows:
            return
        entry = self.table.evictable(rows[0])
        assert entry is not None
        assert not self.model[entry.scope, entry.key].pinned
        if self.table.ranks.spare(entry):
            assert self.table.get(entry.scope, entry.key) is None or self.policy in ("clock", "queues")
            return
        if self.policy in ("lru", "broken") and self.table.ranks.are_complete:
            others = [known.used_ns for known in self.model.values() if not known.pinned]
            assert self.model[entry.scope, entry.key].used_ns == min(others)
        self.table.evict(entry, who="test")
        del self.model[entry.scope, entry.key]

    @rule(limit=st.integers(1, 3))
    def expire_some(self, limit: int) -> None:
        gone = sorted(known.expires_ns for known in self.model.values() if self.has_expired(known))
        rows = self.table.expired(limit)
        assert [row.expires_ns for row in rows] == gone[:limit]
        for row in rows:
            entry = self.table.past_life(row)
            assert entry is not None
            self.table.expire(entry, who="test")
            del self.model[entry.scope, entry.key]

    @rule(seconds=st.sampled_from([0.001, 1, 10, 100]))
    def let_time_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(policy=st.sampled_from(sorted(POLICIES)))
    def change_the_policy(self, policy: str) -> None:
        self.policy = policy
        self.open()

    @precondition(lambda self: hasattr(self, "table") and not self.table.ranks.are_complete)
    @rule()
    def rank_all_anew(self) -> None:
        after = self.table.ranks.rank_some(None)
        while after is not None:
            after = self.table.ranks.rank_some(after)
        assert self.table.ranks.are_complete

    @rule()
    def kill(self) -> None:
        self.catalog = self.catalog.crash_copy(durable_only=False)
        self.open()

    @rule()
    def lose_power(self) -> None:
        """Uses, evictions and expiries since the last flush may be lost, in order; nothing that was acknowledged is."""
        self.catalog = self.catalog.crash_copy(durable_only=True)
        self.open()
        rows = self.catalog.scan(Family.ENTRY)
        kept = {(entry.scope, entry.key): entry for entry in (decode_entry(key, row) for key, row in rows)}
        assert kept.keys() >= self.model.keys()
        self.model = {names: known_from(entry) for names, entry in kept.items()}

    # --- what is always so

    @invariant()
    def a_list_is_what_lives_in_order(self) -> None:
        if not hasattr(self, "table"):
            return
        living = sorted(names for names in self.model if self.living(names) is not None)
        by_row = sorted(living, key=lambda names: f"{names[0]}\0{names[1]}")
        for limit in (1, 3, 1000):
            listed = []
            page = self.table.list_entries(limit=limit)
            while page:
                listed += [(entry.scope, entry.key) for entry in page]
                page = self.table.list_entries(after=listed[-1], limit=limit)
            assert listed == by_row
        without, after = self.table.page(limit=1000, leave_out="main")
        assert [(entry.scope, entry.key) for entry in without] == [names for names in by_row if names[0] != "main"]
        assert after is None

    @invariant()
    def rows_of_usage_are_those_of_the_entries(self) -> None:
        if not hasattr(self, "table"):
            return
        rows = self.catalog.scan(Family.ENTRY)
        expected: set[bytes] = set()
        for row_key, row in rows:
            expected |= usage_rows(decode_entry(row_key, row))
        assert {key for key, _ in self.catalog.scan(Family.USAGE)} == expected

    @invariant()
    def sums_are_those_of_the_entries(self) -> None:
        if not hasattr(self, "table"):
            return
        totals = self.table.totals()
        assert totals == count_entries(self.catalog)
        assert totals.entries == len(self.model)
        assert totals.files == sum(known.files for known in self.model.values())
        stored = self.catalog.get(Family.SYS, ROW)
        assert stored is None or decode_totals(stored) == totals

    @rule(scope=SCOPES, prefix=PREFIXES)
    def find_the_newest(self, scope: str, prefix: str) -> None:
        found = self.run(newest_saved(self.catalog, self.table, scope, prefix))
        times = [
            known.created_ns
            for (its_scope, key), known in self.model.items()
            if its_scope == scope and key.startswith(prefix) and known.kind == "saved" and not self.has_expired(known)
        ]
        assert (None if found is None else found.created_ns) == (max(times) if times else None)  # type: ignore[attr-defined]

    def teardown(self) -> None:
        self.audit.verify()

    # --- helpers

    def run(self, awaitable: object) -> object:
        async def waiting() -> object:
            return await awaitable  # type: ignore[misc]

        return trio.run(waiting)

    def has_expired(self, known: Known) -> bool:
        return 0 < known.expires_ns <= self.clock.now_ns()

    def living(self, names: tuple[str, str]) -> Known | None:
        known = self.model.get(names)
        return None if known is None or self.has_expired(known) else known

    def compare(self, found: StoredEntry | None, known: Known | None) -> None:
        assert (None if found is None else known_from(found)) == known
        if found is not None:
            assert (found.rank is None) == found.pinned


def known_from(entry: StoredEntry) -> Known:
    assert entry.snapshot is not None
    fields = msgspec.structs.asdict(entry)
    names = ("kind", "created_ns", "used_ns", "expires_ns", "pinned", "uses")
    return Known(files=entry.snapshot.files, **{name: fields[name] for name in names})


TestEntries = EntryMachine.TestCase
TestEntries.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
