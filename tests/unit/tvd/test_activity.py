from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tvd.activity import SLOT_NS, SLOTS, ActivityRecorder, Tally
from tvd.watched_filesystem import WatchedFilesystem
from tvfs.clock import SystemClock
from tvfs.filesystem.lookups import LookupCounts
from tvfs.filesystem.model import WORK, Absent, Caller
from tvfs.fuse.served_filesystem import ServedFilesystem
from tvfs.testing.memory_filesystem import MemoryFilesystem

SECOND_NS = 1_000_000_000
MOST_COST_S = 2e-6
"""What recording may take on a busy machine; measured 0.3 µs, 0.6 for what may wait."""


def memory_filesystem() -> MemoryFilesystem:
    return MemoryFilesystem(clock=SystemClock(), lookups=LookupCounts())


class Clock:
    def __init__(self) -> None:
        self.now_ns = 5 * SECOND_NS

    def __call__(self) -> int:
        return self.now_ns


def test_a_request_is_counted_and_timed_also_if_it_fails() -> None:
    clock = Clock()
    activity = ActivityRecorder(clock)

    def serve(took_s: int) -> str:
        clock.now_ns += took_s * SECOND_NS
        if took_s == 3:
            raise ValueError
        return "served"

    timed = activity.timed("serve", serve)
    assert timed(2) == "served"
    with pytest.raises(ValueError):
        timed(3)
    tally = activity.tallies["serve"]
    assert (tally.count, tally.total_ns, tally.slowest_s(clock())) == (2, 5 * SECOND_NS, 3.0)


def test_a_listing_is_timed_to_where_it_was_left() -> None:
    clock = Clock()
    activity = ActivityRecorder(clock)

    def serve(count: int) -> Iterator[int]:
        for number in range(count):
            clock.now_ns += SECOND_NS
            yield number

    listing = activity.timed_listing("list", serve)
    assert list(listing(3)) == [0, 1, 2]
    left = listing(3)
    next(left)
    del left
    tally = activity.tallies["list"]
    assert (tally.count, tally.total_ns) == (2, 4 * SECOND_NS)


async def test_what_waits_is_live_until_it_is_done_or_cancelled() -> None:
    activity = ActivityRecorder()

    async def serve(subject: str) -> None:
        await trio.sleep_forever()

    timed = activity.timed_later("wait", serve)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timed, "first")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(timed, "second")
        await trio.testing.wait_all_tasks_blocked()
        assert [(live.name, live.subject) for live in activity.under_way()] == [("wait", "first"), ("wait", "second")]
        nursery.cancel_scope.cancel()
    assert list(activity.under_way()) == []
    assert activity.tallies["wait"].count == 2


def test_recording_adds_no_checkpoint() -> None:
    async def serve() -> int:
        return 7

    timed = ActivityRecorder().timed_later("serve", serve)()
    with pytest.raises(StopIteration) as ended:
        timed.send(None)
    assert ended.value.value == 7


def test_the_slowest_is_forgotten_after_a_minute() -> None:
    tally = Tally()
    began = 100 * SLOT_NS
    tally.add(began, began + 5 * SECOND_NS)
    tally.add(began + 2 * SLOT_NS, began + 2 * SLOT_NS + SECOND_NS)
    assert tally.slowest_s(began + 2 * SLOT_NS) == 5.0
    assert tally.slowest_s(began + 5 * SLOT_NS) == 5.0
    assert tally.slowest_s(began + (SLOTS + 1) * SLOT_NS) == 1.0
    assert tally.slowest_s(began + 20 * SLOT_NS) == 0.0


@given(st.lists(st.tuples(st.integers(0, 15 * SECOND_NS), st.integers(1, 9 * SECOND_NS)), max_size=40))
def test_the_slowest_is_that_of_the_last_six_slots(requests: list[tuple[int, int]]) -> None:
    tally, now_ns, ended = Tally(), 7 * SLOT_NS, list[tuple[int, int]]()
    for pause_ns, took_ns in requests:
        now_ns += pause_ns
        tally.add(now_ns - took_ns, now_ns)
        ended.append((now_ns // SLOT_NS, took_ns))
        recent = [took for slot, took in ended if slot > now_ns // SLOT_NS - SLOTS]
        assert tally.slowest_s(now_ns) == max(recent) / 1e9
    assert tally.count == len(requests)


def best_s(work: Callable[[], object], calls: int) -> float:
    """Return what one of many calls took in the best of some rounds, in time of this thread."""
    rounds = []
    for _ in range(7):
        began_s = time.thread_time()
        for _ in range(calls):
            work()
        rounds.append((time.thread_time() - began_s) / calls)
    return min(rounds)


def test_recording_costs_next_to_nothing() -> None:
    def serve(one: int, other: int) -> int:
        return one

    async def serve_later(one: int, other: int) -> int:
        return one

    def step(coroutine: Coroutine[Any, Any, object]) -> None:
        try:
            coroutine.send(None)
        except StopIteration:
            return

    activity = ActivityRecorder()
    timed, later = activity.timed("now", serve), activity.timed_later("later", serve_later)
    assert best_s(lambda: timed(1, 2), 20_000) - best_s(lambda: serve(1, 2), 20_000) < MOST_COST_S
    cost_s = best_s(lambda: step(later(1, 2)), 20_000) - best_s(lambda: step(serve_later(1, 2)), 20_000)
    assert cost_s < 2 * MOST_COST_S


async def test_a_watched_filesystem_answers_as_the_one_behind_it_and_is_recorded() -> None:
    activity = ActivityRecorder()
    watched: ServedFilesystem = WatchedFilesystem(memory_filesystem(), activity)
    caller = Caller(0, 0)
    handle, found = await watched.create(WORK, b"file", 0o644, 1, caller)
    assert (watched.write_nowait(handle, 0, b"hello") or await watched.write(handle, 0, b"hello")) == 5
    content = watched.read_nowait(handle, 0, 10)
    assert bytes(await watched.read(handle, 0, 10) if content is None else content) == b"hello"
    watched.release(handle)
    assert isinstance(watched.lookup(WORK, b"nothing"), Absent)
    assert b"file" in [entry.name for entry in watched.readdir(WORK, 0)]
    counts = {name: tally.count for name, tally in activity.tallies.items() if tally.count}
    assert counts == dict.fromkeys(("fs.create", "fs.write", "fs.read", "fs.release", "fs.lookup", "fs.readdir"), 1)
    assert (activity.written_bytes, activity.read_bytes) == (5, 5)
    assert found.attributes.ino


def test_every_request_of_a_filesystem_is_watched() -> None:
    asked = {name for name in vars(ServedFilesystem) if not name.startswith("_")}
    assert asked <= vars(WatchedFilesystem(memory_filesystem(), ActivityRecorder())).keys()
