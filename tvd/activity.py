"""What the owner is doing: counts and times by kind of request, the slowest of the last minute, what is under way.

Recording costs a third of a microsecond, twice that for what may wait, and never waits.  The owner's thread only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from time import perf_counter_ns
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

SLOT_NS = 10 * 1_000_000_000
SLOTS = 6
"""The slowest is kept for each of the last six slots of ten seconds: a minute, give or take one slot."""


class Tally:
    """One kind of request since the start."""

    __slots__ = ("count", "floor_ns", "slot_end_ns", "slowest_ns", "total_ns")

    def __init__(self) -> None:
        self.count = 0
        self.total_ns = 0
        self.floor_ns = 0
        """The slowest of the current slot: only what took longer needs a closer look."""
        self.slot_end_ns = 0
        self.slowest_ns = [0] * SLOTS
        """Of each slot, but not yet of the current one."""

    def note(self, ended_ns: int, took_ns: int) -> None:
        """Take in a request that ended in another slot, or took longer than any in this one."""
        if ended_ns >= self.slot_end_ns:
            self._turn(ended_ns)
        self.floor_ns = max(self.floor_ns, took_ns)

    def add(self, began_ns: int, ended_ns: int) -> None:
        """Count a request; what is called most often does the same in place."""
        took_ns = ended_ns - began_ns
        self.count += 1
        self.total_ns += took_ns
        if took_ns > self.floor_ns or ended_ns >= self.slot_end_ns:
            self.note(ended_ns, took_ns)

    def slowest_s(self, now_ns: int) -> float:
        """The slowest of the last minute; 0 if there was none."""
        if now_ns >= self.slot_end_ns:
            self._turn(now_ns)
        return max(*self.slowest_ns, self.floor_ns) / 1e9

    def _turn(self, now_ns: int) -> None:
        slot, current = now_ns // SLOT_NS, self.slot_end_ns // SLOT_NS - 1
        self.slowest_ns[current % SLOTS] = self.floor_ns
        for passed in range(max(current + 1, slot - SLOTS + 1), slot + 1):
            self.slowest_ns[passed % SLOTS] = 0
        self.floor_ns = 0
        self.slot_end_ns = (slot + 1) * SLOT_NS


class Live:
    """A request that is being served, and may wait."""

    __slots__ = ("began_ns", "name", "subject")

    def __init__(self, name: str, subject: object, began_ns: int) -> None:
        self.name = name
        self.subject = subject
        """What it is about; made into text only when somebody asks."""
        self.began_ns = began_ns


class ActivityRecorder:
    """Wraps what serves requests.  Only what may wait can be seen under way: the rest is done before anybody asks."""

    def __init__(self, clock_ns: Callable[[], int] = perf_counter_ns) -> None:
        """`clock_ns` is monotonic."""
        self.clock_ns = clock_ns
        self.tallies: dict[str, Tally] = {}
        self.live: set[Live] = set()
        self.hits = 0
        self.misses = 0
        self.read_bytes = 0
        self.written_bytes = 0

    def requests(self) -> int:
        """How many requests of any kind have been served."""
        return sum(tally.count for tally in self.tallies.values())

    def tally(self, name: str) -> Tally:
        """Return the tally of a kind of request."""
        return self.tallies.setdefault(name, Tally())

    def timed(self, name: str, serve: Callable[P, R]) -> Callable[P, R]:
        """Return `serve`, counted and timed; for what never waits."""
        tally, clock_ns, called = self.tally(name), self.clock_ns, cast("Callable[..., R]", serve)

        # Positional only, and the tally in place: a third of the time.
        def served(*args: object) -> R:
            began_ns = clock_ns()
            try:
                return called(*args)
            finally:
                ended_ns = clock_ns()
                took_ns = ended_ns - began_ns
                tally.count += 1
                tally.total_ns += took_ns
                if took_ns > tally.floor_ns or ended_ns >= tally.slot_end_ns:
                    tally.note(ended_ns, took_ns)

        return cast("Callable[P, R]", served)

    def timed_listing(self, name: str, serve: Callable[P, Iterator[T]]) -> Callable[P, Iterator[T]]:
        """Do the same for a generator: from its first step to its end, or until nobody holds it any more."""
        add, clock_ns = self.tally(name).add, self.clock_ns

        def served(*args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
            began_ns = clock_ns()
            try:
                yield from serve(*args, **kwargs)
            finally:
                add(began_ns, clock_ns())

        return served

    def timed_later(self, name: str, serve: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        """Do the same for what may wait, which is live meanwhile; adds no checkpoint."""
        add, clock_ns, live = self.tally(name).add, self.clock_ns, self.live

        async def served(*args: P.args, **kwargs: P.kwargs) -> R:
            under_way = Live(name, args[0] if args else None, clock_ns())
            live.add(under_way)
            try:
                return await serve(*args, **kwargs)
            finally:
                live.discard(under_way)
                add(under_way.began_ns, clock_ns())

        return served

    def under_way(self) -> Iterable[Live]:
        """What is being served now, oldest first."""
        return sorted(self.live, key=lambda live: live.began_ns)
