"""What a vault of a million entries costs beside one of a thousand: the slowest hundredth of each kind of request."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter_ns

from benchmarks.many_entries import filled, key_of
from benchmarks.pairs import Outcome
from benchmarks.workplace import await_rest, fresh, read_all, running
from taskvault.client import Client
from taskvault.protocol import messages as m

FEW, MANY = 1_000, 1_000_000
WARM_UP = 2_000
"""Untimed, of each kind: a daemon that has just been started reads the indexes of its tables."""
SAMPLES = 2_000
PAGE = 100
FLOOR = 2.0
SCOPE = "main"


def measure(cache: Path, pairs: int) -> list[Outcome]:
    """Real daemons and clients, the two vaults by turns, so that what else the machine does falls on both.

    The page cache holds both catalogs at the beginning: 0.9 GB, and nothing else uses this machine's memory.
    """
    with ExitStack() as stack:
        sides = []
        for count in (FEW, MANY):
            home = fresh(cache / f"entries-{count}")
            shutil.copytree(filled(cache, count), home)
            stack.enter_context(running(home))
            await_rest(home)
            read_all(home / "meta")
            sides.append(_Side(stack.enter_context(Client.connect(home)), count))
        return [_compared(name, carry_out, *sides) for name, carry_out in _Side.REQUESTS.items()]


def _compared(name: str, carry_out: Callable[[_Side], None], few: _Side, many: _Side) -> Outcome:
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(WARM_UP + SAMPLES):
        for side, of_one in zip((few, many), times, strict=True):
            began_ns = perf_counter_ns()
            carry_out(side)
            if number >= WARM_UP:
                of_one.append((perf_counter_ns() - began_ns) / 1000)
    for of_one in times:
        of_one.sort()
    small, large = (of_one[SAMPLES * 99 // 100] for of_one in times)
    growth = large / small
    return Outcome(
        f"{name} among {MANY:,} entries beside {FEW:,}, p99 (median), us",
        f"{large:.0f} ({times[1][SAMPLES // 2]:.0f})",
        f"{small:.0f} ({times[0][SAMPLES // 2]:.0f})",
        f"{growth:.2f}x",
        f"{FLOOR}x",
        "",
        growth <= FLOOR,
        SAMPLES,
    )


class _Side:
    """One vault and a client of it."""

    def __init__(self, client: Client, count: int) -> None:
        self._client = client
        self._count = count
        self._saved = 0
        self._random = random.Random(count)

    def _save(self) -> None:
        self._saved += 1
        snapshot = self._entry().snapshot
        assert snapshot is not None
        saved = self._client.call(m.SaveEntry(SCOPE, f"saved-{self._saved}", "saved", snapshot))
        assert saved.entry is not None

    def _get(self) -> None:
        self._entry()

    def _look_up(self) -> None:
        self._entry(count_use=True)

    def _list(self) -> None:
        after = (SCOPE, key_of(self._random.randrange(self._count - PAGE)))
        assert len(self._client.call(m.ListEntries(SCOPE, after, PAGE)).entries) == PAGE

    def _entry(self, *, count_use: bool = False) -> m.Entry:
        key = key_of(self._random.randrange(self._count))
        found = self._client.call(m.GetEntry(SCOPE, key, count_use=count_use)).entry
        assert found is not None
        return found

    REQUESTS = {  # noqa: RUF012
        "get": _get,
        "lookup that counts as a use": _look_up,
        f"ls of {PAGE}": _list,
        "get and save": _save,
    }
