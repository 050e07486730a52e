from __future__ import annotations

from tvfs.catalog.catalog import Batch, Family
from tvfs.catalog.memory import MemoryCatalog


def put(catalog: MemoryCatalog, key: bytes, value: bytes) -> None:
    batch = Batch()
    batch.put(Family.SYS, key, value)
    catalog.write(batch)


async def test_a_kill_leaves_every_write_and_a_power_loss_only_what_was_flushed() -> None:
    catalog = MemoryCatalog()
    put(catalog, b"a", b"1")
    await catalog.flush()
    put(catalog, b"a", b"2")
    put(catalog, b"b", b"2")
    assert list(catalog.crash_copy(durable_only=False).scan(Family.SYS)) == [(b"a", b"2"), (b"b", b"2")]
    assert list(catalog.crash_copy(durable_only=True).scan(Family.SYS)) == [(b"a", b"1")]


async def test_a_survivor_shares_nothing_with_the_original() -> None:
    catalog = MemoryCatalog()
    put(catalog, b"a", b"1")
    survivor = catalog.crash_copy(durable_only=False)
    put(catalog, b"a", b"2")
    assert survivor.get(Family.SYS, b"a") == b"1"
    assert survivor.crash_copy(durable_only=True).get(Family.SYS, b"a") == b"1"
