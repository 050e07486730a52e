from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from tvfs.catalog.catalog import Family
from tvfs.catalog.memory import MemoryCatalog
from tvfs.clock import ManualClock
from tvfs.vault.audit import AuditLog
from tvfs.vault.entries import EntryTable, StoredEntry
from tvfs.vault.names import NameInvalid
from tvfs.vault.newest import ROWS_BY_AGE, ROWS_BY_KEY, newest_saved


class CountingRows(MemoryCatalog):
    """Counts the rows that are looked at in scans."""

    looked_at = 0

    def scan(self, family: Family, start: bytes = b"", end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        for row in super().scan(family, start, end):
            self.looked_at += 1
            yield row


class World:
    def __init__(self) -> None:
        self.catalog = CountingRows()
        self.clock = ManualClock()
        self.entries = EntryTable(self.catalog, AuditLog(self.catalog, self.clock), self.clock)

    async def save(self, key: str, *, scope: str = "main", kind: str = "saved", ttl_s: int = 0) -> None:
        self.clock.advance(1)
        now_ns = self.clock.now_ns()
        expires_ns = now_ns + ttl_s * 1_000_000_000 if ttl_s else 0
        await self.entries.put(
            StoredEntry(scope, key, kind, now_ns, now_ns, expires_ns=expires_ns), who="x", replace=True
        )

    async def newest(self, prefix: str, scope: str = "main") -> str | None:
        found = await newest_saved(self.catalog, self.entries, scope, prefix)
        return None if found is None else found.key


@pytest.fixture
def world() -> World:
    return World()


async def test_the_newest_wins_whatever_its_key(world: World) -> None:
    for key in ("deps-2", "deps-9", "deps-1", "other-1"):
        await world.save(key)
    assert await world.newest("deps-") == "deps-1"
    assert await world.newest("dep") == "deps-1"
    assert await world.newest("deps-9") == "deps-9"
    assert await world.newest("") == "other-1"
    assert await world.newest("none-") is None
    await world.save("deps-9")
    assert await world.newest("deps-") == "deps-9"


async def test_runs_other_scopes_and_what_is_gone_do_not_count(world: World) -> None:
    await world.save("deps-1")
    await world.save("deps-2", kind="run")
    await world.save("deps-3", scope="main2")
    await world.save("deps-4", ttl_s=10)
    await world.save("deps-5")
    await world.entries.remove("main", "deps-5", who="x")
    for prefix in ("deps-", "dep"):
        assert await world.newest(prefix) == "deps-4"
    world.clock.advance(10)
    for prefix in ("deps-", "dep"):
        assert await world.newest(prefix) == "deps-1"


async def test_what_was_found_counts_as_used_if_wanted(world: World) -> None:
    await world.save("deps-1")
    await newest_saved(world.catalog, world.entries, "main", "deps-", count_use=True)
    found = world.entries.get("main", "deps-1")
    assert found is not None
    assert found.uses == 1


async def test_a_prefix_that_ends_with_a_word_costs_one_look(world: World) -> None:
    for number in range(500):
        await world.save(f"deps-linux-{number:03}")
    for number in range(500):
        await world.save(f"build-{number:03}")
    for prefix in ("deps-", "deps-linux-", "build-"):
        world.catalog.looked_at = 0
        assert await world.newest(prefix) == ("build-499" if prefix == "build-" else "deps-linux-499")
        assert world.catalog.looked_at == 1
    world.catalog.looked_at = 0
    assert await world.newest("nothing-") is None
    assert world.catalog.looked_at == 0


async def test_another_prefix_costs_twice_the_shorter_of_two_ways(world: World) -> None:
    await world.save("deps-1")
    for number in range(1000):
        await world.save(f"build-{number:04}")
    world.catalog.looked_at = 0
    assert await world.newest("dep") == "deps-1"
    assert world.catalog.looked_at <= ROWS_BY_AGE + ROWS_BY_KEY
    world.catalog.looked_at = 0
    assert await world.newest("build-0") == "build-0999"
    assert world.catalog.looked_at <= ROWS_BY_AGE + ROWS_BY_KEY


async def test_few_old_ones_among_many_newer_are_compared_with_each_other(world: World) -> None:
    for key in ("deps-3", "deps-1", "deps-2"):
        await world.save(key)
    await world.save("deps-run", kind="run")
    await world.save("deps-gone", ttl_s=1)
    for number in range(2 * ROWS_BY_AGE):
        await world.save(f"build-{number:04}")
    world.catalog.looked_at = 0
    assert await world.newest("dep") == "deps-2"
    assert world.catalog.looked_at <= ROWS_BY_AGE + 5


async def test_others_have_their_turn_while_many_are_looked_at(world: World) -> None:
    for number in range(2000):
        await world.save(f"a{number:04}")
    for number in range(2000):
        await world.save(f"b{number:04}")
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        assert await world.newest("a") == "a1999"
        nursery.cancel_scope.cancel()
    assert turns >= 2000 // ROWS_BY_AGE - 2


async def test_what_no_key_begins_with_finds_nothing_and_bad_scopes_are_refused(world: World) -> None:
    await world.save("a")
    assert await world.newest("a/b") is None
    assert await world.newest("\udcff") is None
    assert await world.newest("\0") is None
    with pytest.raises(NameInvalid):
        await world.newest("a", scope="a//b")
