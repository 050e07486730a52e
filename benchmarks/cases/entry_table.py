"""The table of entries by itself, a million beside a thousand: where a request's time comes from."""

from __future__ import annotations

import random
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter_ns

import trio

from benchmarks.pairs import Outcome
from tvfs.catalog.rocks import RocksCatalog
from tvfs.clock import ManualClock
from tvfs.vault.audit import AuditLog
from tvfs.vault.entries import EntryTable, StoredEntry, StoredSnapshot
from tvfs.vault.newest import newest_saved

FEW, MANY = 1_000, 1_000_000
SAMPLES = 4_000
PAGE = 100

WORDS = ("deps", "build", "tests", "docs", "lint", "wheels", "node-modules", "cargo")


def measure(cache: Path, pairs: int) -> list[Outcome]:
    """Save, get, ls and look up, on the table of entries of a catalog on the disk; `pairs` do not count."""
    return trio.run(_measure, cache)


async def _measure(cache: Path) -> list[Outcome]:
    few, many = [await _Filled.make(cache / f"entries-{count}", count) for count in (FEW, MANY)]
    outcomes = []
    for name in _Filled.OPERATIONS:
        times: tuple[list[int], list[int]] = ([], [])
        for _ in range(SAMPLES):  # by turns, so that what else the machine does falls on both
            for filled, of_one in zip((few, many), times, strict=True):
                of_one.append(await filled.timed(name))
        small, large = (sorted(of_one)[SAMPLES * 99 // 100] / 1000 for of_one in times)
        middle = [sorted(of_one)[SAMPLES // 2] / 1000 for of_one in times]
        growth = large / small
        outcomes.append(
            Outcome(
                f"table of entries, {name} among {MANY:,} beside {FEW:,}, p99 (median), us",
                f"{large:.0f} ({middle[1]:.0f})",
                f"{small:.0f} ({middle[0]:.0f})",
                f"{growth:.2f}x",
                "",
                "",
                None,
                SAMPLES,
            )
        )
    few.close()
    many.close()
    return outcomes


class _Filled:
    """A table with so many entries, half of them runs."""

    def __init__(self, path: Path, count: int) -> None:
        shutil.rmtree(path, ignore_errors=True)
        self._path = path
        self._catalog = RocksCatalog(path)
        self._clock = ManualClock()
        self._table = EntryTable(_Unflushed(self._catalog), AuditLog(self._catalog, self._clock), self._clock)
        self._count = 0
        self._goal = count
        self._random = random.Random(1)

    @classmethod
    async def make(cls, path: Path, count: int) -> _Filled:
        """Fill a new one."""
        filled = cls(path, count)
        while filled._count < count:
            await filled._save()
        return filled

    def close(self) -> None:
        """Remove it."""
        self._catalog.close()
        shutil.rmtree(self._path)

    async def timed(self, operation: str) -> int:
        """Return how long one operation took, in nanoseconds."""
        carry_out: Callable[[_Filled], Awaitable[None]] = self.OPERATIONS[operation]
        began_ns = perf_counter_ns()
        await carry_out(self)
        return perf_counter_ns() - began_ns

    async def _save(self) -> None:
        number = self._count
        self._count += 1
        self._clock.advance(0.01)
        await self._table.put(self._entry(number), who="bench")

    async def _get(self) -> None:
        assert self._table.get("main", self._key(self._random.randrange(self._goal))) is not None

    async def _use(self) -> None:
        self._clock.advance(0.01)
        assert self._table.get("main", self._key(self._random.randrange(self._goal)), count_use=True) is not None

    async def _list(self) -> None:
        after = ("main", self._key(self._random.randrange(self._goal)))
        self._table.page("main", after=after, limit=PAGE)

    async def _newest(self) -> None:
        word = self._random.choice(WORDS)
        assert await newest_saved(self._catalog, self._table, "main", f"{word}-") is not None

    async def _evict(self) -> None:
        entry = self._table.evictable(self._table.lowest(1)[0])
        assert entry is not None
        self._table.evict(entry, who="bench")
        # Saved again, so that no key that is looked for is missing.
        await self._table.put(entry, who="bench")

    async def _count_all(self) -> None:
        self._table.count()

    def _key(self, number: int) -> str:
        if number % 2:
            return f"{number * 2654435761 % (1 << 64):064x}"
        return f"{WORDS[number // 2 % len(WORDS)]}-linux-{number:x}"

    def _entry(self, number: int) -> StoredEntry:
        snapshot = StoredSnapshot(f"blake3:{number:064x}-{number}", None, number.to_bytes(32, "big"), 3, number)
        now_ns = self._clock.now_ns()
        kind = "run" if number % 2 else "saved"
        return StoredEntry("main", self._key(number), kind, now_ns, now_ns, snapshot, cost_ns=number)

    OPERATIONS = {  # noqa: RUF012
        "save": _save,
        "get": _get,
        "get that counts as a use": _use,
        f"ls of {PAGE}": _list,
        "newest with a prefix": _newest,
        "evict and save": _evict,
        "count": _count_all,
    }


class _Unflushed(RocksCatalog):
    """The same catalog without fsync, whose time is the disk's and not ours."""

    def __init__(self, catalog: RocksCatalog) -> None:
        self.__dict__ = catalog.__dict__

    async def flush(self) -> None:
        """Nothing is waited for."""
