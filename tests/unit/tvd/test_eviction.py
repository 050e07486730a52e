"""What the evictor lets go, and what it does not, on a vault with its filesystem."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
import trio

from tests.eviction_policies import ClockHand, Misbehaving
from tvd.entry_views import RUN, SAVED, SNAPSHOT, SNAPSHOT_SCOPE, EntryViews
from tvd.eviction import MOST_SPARED, SLICE_CANDIDATES, Evictor
from tvfs.catalog.catalog import Family
from tvfs.content.snapshot import Snapshot
from tvfs.filesystem.model import KEYS, RUNS, SNAPSHOTS, Ino
from tvfs.filesystem.posix_error import NotFound
from tvfs.plugin_api import EvictionPolicy
from tvfs.testing.memory_vault import CALLER, MemoryWorld
from tvfs.vault.entries import StoredEntry, StoredSnapshot
from tvfs.vault.ranking import Ranking

SECOND_NS = 1_000_000_000


class World(MemoryWorld):
    """A vault with entries, their views and an evictor."""

    def _open(self) -> None:
        super()._open()
        self.entries = self.vault.entries
        self.views = EntryViews(self.vault.catalog, self.filesystem, self.entries)
        self.views.repair()
        self.evictor = Evictor(self.entries, self.views, self.clock, self.vault.slices)

    def use(self, policy: EvictionPolicy) -> None:
        self.entries.ranks.use(Ranking(policy, self.clock), {})

    async def snapshot(self, content: bytes) -> StoredSnapshot:
        """Return a tree with one file of this content."""
        if not self.exists(b"source"):
            self.mkdir(b"source")
        await self.write(b"source/file", content, flags=os.O_TRUNC)
        taken: Snapshot = (await self.filesystem.snapshot(self.ino(b"source"))).snapshot
        attributes = None if taken.attributes is None else str(taken.attributes)
        return StoredSnapshot(str(taken.tree), attributes, taken.index, taken.files, taken.size)

    async def save(self, key: str, content: bytes | None = None, **what: object) -> None:
        """Save an entry as the daemon does."""
        self.clock.advance(1)
        now_ns = self.clock.now_ns()
        snapshot = await self.snapshot(key.encode() * 100 if content is None else content)
        entry = StoredEntry("main", key, SAVED, now_ns, now_ns, snapshot)
        entry = msgspec.structs.replace(entry, **what)
        with self.views.changing(entry.scope, key):
            self.views.hide(entry.scope, key)
            self.views.show(entry)
            await self.entries.put(entry, who="test")
        if entry.kind == RUN:
            self.views.show_run(entry, 7)

    def keys(self) -> list[str]:
        return [entry.key for entry in self.entries.list_entries()]

    def shown(self, path: bytes, start: Ino = KEYS) -> bool:
        try:
            self.filesystem.resolve(path, start)
        except NotFound:
            return False
        return True


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    try:
        yield world
    finally:
        await world.aclose()


async def test_what_is_evicted_is_hidden_forgotten_and_audited_at_once(world: World) -> None:
    for key in ("a", "b", "c"):
        await world.save(key)
    assert await world.evictor.evict(1) >= 1
    assert world.keys() == ["b", "c"]
    assert [world.shown(b"main/%s" % key) for key in (b"a", b"b", b"c")] == [False, True, True]
    [record] = world.vault.audit.latest(1)
    assert (record.action, record.scope, record.key, record.who) == ("evict", "main", "a", "tvd")
    assert world.evictor.evicted == 1
    rows = {key for key, _ in world.catalog.scan(Family.USAGE)}
    assert not [row for row in rows if row.endswith(b"main\0a")]


async def test_as_much_is_evicted_as_is_wanted_and_no_more(world: World) -> None:
    for key in "abcdef":
        await world.save(key, key.encode() * 1000)
    assert await world.evictor.evict(2500) == 3000
    assert world.keys() == ["d", "e", "f"]
    assert await world.evictor.evict(0) == 0
    assert len(world.keys()) == 3
    assert await world.evictor.evict(1 << 40) == 3000
    assert world.keys() == []
    assert await world.evictor.evict(1 << 40) == 0


async def test_content_that_entries_share_counts_by_its_share(world: World) -> None:
    shared = await world.snapshot(b"x" * 1000)
    for key in "abcd":
        await world.save(key, snapshot=shared)
    assert await world.evictor.evict(250) == 250
    assert world.keys() == ["b", "c", "d"]
    # What the mount shows no more is swept first.
    await world.filesystem.sweep()
    assert await world.evictor.evict(250) == 333


async def test_pinned_entries_and_named_snapshots_are_never_evicted(world: World) -> None:
    await world.save("pinned", pinned=True)
    await world.save("named", scope=SNAPSHOT_SCOPE, kind=SNAPSHOT)
    await world.save("unnamed", scope=SNAPSHOT_SCOPE, kind=SNAPSHOT, expires_ns=world.clock.now_ns() + 10**12)
    await world.save("run", kind=RUN)
    assert world.shown(b"7", RUNS)
    assert not world.shown(b"unnamed", SNAPSHOTS)
    assert await world.evictor.evict(1 << 40) > 0
    assert sorted(world.keys()) == ["named", "pinned"]
    assert world.shown(b"named", SNAPSHOTS)
    assert world.shown(b"main/pinned")
    assert not world.shown(b"7", RUNS)


async def test_whoever_has_a_view_open_reads_on_after_the_eviction(world: World) -> None:
    await world.save("k", b"content" * 1000)
    ino = world.filesystem.resolve(b"main/k/file", KEYS)
    handle = await world.filesystem.open(ino, os.O_RDONLY, CALLER)
    world.lookups.add(ino)
    await world.evictor.evict(1)
    await world.filesystem.sweep()
    assert not world.shown(b"main/k")
    assert bytes(await world.filesystem.read(handle, 0, 7000)) == b"content" * 1000
    world.filesystem.release(handle)


async def test_what_has_expired_is_removed_whatever_it_is(world: World) -> None:
    soon = world.clock.now_ns() + 100 * SECOND_NS
    await world.save("k", expires_ns=soon)
    await world.save("pinned", expires_ns=soon, pinned=True)
    await world.save("run", kind=RUN, expires_ns=soon)
    await world.save("unnamed", scope=SNAPSHOT_SCOPE, kind=SNAPSHOT, expires_ns=soon)
    await world.save("stays")
    assert await world.evictor.expire() == 0
    world.clock.advance(100)
    assert await world.evictor.expire() == 4
    assert world.keys() == ["stays"]
    assert world.entries.count() == 1
    assert not world.shown(b"main/k")
    assert not world.shown(b"7", RUNS)
    assert world.evictor.expired == 4
    assert await world.evictor.expire() == 0


async def test_a_kill_in_the_middle_leaves_no_view_without_its_entry(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.save("k")

    class Killed(BaseException):
        """Nothing of ours runs after it."""

    def killed(entry: StoredEntry, *, who: str) -> None:
        raise Killed

    monkeypatch.setattr(world.entries, "evict", killed)
    with pytest.raises(Killed):
        await world.evictor.evict(1)
    world.kill()
    assert world.keys() == ["k"]
    assert world.shown(b"main/k")
    await world.evictor.evict(1)
    world.kill()
    assert world.keys() == []
    assert not world.shown(b"main/k")


async def test_a_second_chance_is_given_and_bounded(world: World) -> None:
    world.use(ClockHand())
    for key in "abc":
        await world.save(key)
    assert world.entries.get("main", "a", count_use=True) is not None
    world.clock.advance(1)
    await world.evictor.evict(1)
    assert world.keys() == ["a", "c"]

    asked = 0

    def always() -> float:
        nonlocal asked
        asked += 1
        return float(asked)

    world.use(Misbehaving(lambda: 0.5, always))
    await world.evictor.rank_all()
    await world.evictor.evict(1)
    assert len(world.keys()) == 1
    assert asked == MOST_SPARED


async def test_others_have_their_turn_between_slices(world: World) -> None:
    for number in range(3 * SLICE_CANDIDATES):
        await world.save(f"{number:03}", b"x" * 10)
    left: list[int] = []

    async def others() -> None:
        while True:
            left.append(world.entries.count())
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        await world.evictor.evict(1 << 40)
        nursery.cancel_scope.cancel()
    assert {SLICE_CANDIDATES, 2 * SLICE_CANDIDATES} & set(left)
    assert all(count % SLICE_CANDIDATES == 0 for count in left)


async def test_entries_of_another_policy_are_ranked_anew_by_the_background_task(world: World) -> None:
    for key in "abc":
        await world.save(key)
    world.use(Misbehaving(iter([3.0, 2.0, 1.0]).__next__))
    await world.evictor.rank_all()
    await world.evictor.evict(1)
    assert world.keys() == ["a", "b"]
    await world.evictor.rank_all()


@dataclass
class Files:
    """Another source of candidates: files by rank."""

    ranks: list[float]
    gone: list[float] = field(default_factory=list)

    def lowest(self, limit: int) -> Sequence[FileCandidate]:
        return [FileCandidate(rank) for rank in sorted(self.ranks)[:limit]]

    def spare(self, candidate: FileCandidate, /) -> bool:
        return False

    def let_go(self, candidate: FileCandidate, /) -> int:
        self.ranks.remove(candidate.rank)
        self.gone.append(candidate.rank)
        return 10


@dataclass(frozen=True)
class FileCandidate:
    rank: float


async def test_files_and_entries_leave_in_one_order(world: World) -> None:
    for key in "abc":
        await world.save(key, b"x" * ord(key))
    ranks = {row.row_key[-1:].decode(): row.rank for row in world.entries.lowest(3)}
    files = Files([0.0, ranks["a"] + 1000, ranks["c"] + 1000])
    world.evictor = Evictor(world.entries, world.views, world.clock, world.vault.slices, others=[files])
    assert await world.evictor.evict(10 + 97 + 1) == 10 + 97 + 10
    assert files.gone == [0.0, ranks["a"] + 1000]
    assert world.keys() == ["b", "c"]
    await world.evictor.evict(1 << 40)
    assert (world.keys(), files.ranks) == ([], [])
