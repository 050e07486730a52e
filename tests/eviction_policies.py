"""Eviction policies that tests use: that the contract can express them is one of its promises."""

from __future__ import annotations

from collections.abc import Callable

from tvfs.plugin_api import EntryFacts


class CostBySize:
    """GDSF with cost: what it took to make, times its uses, by its share of the bytes; aged by what has left."""

    name = "cost-by-size"

    def rank(self, entry: EntryFacts, aging: float, /) -> float:
        return aging + (1 + entry.uses) * entry.cost_ns / max(1, entry.share_bytes)

    def spare(self, entry: EntryFacts, aging: float, /) -> float | None:
        return None


class ClockHand:
    """As SIEVE and CLOCK: a use moves nothing; at the head, what was used since goes back to the tail once."""

    name = "clock"

    def rank(self, entry: EntryFacts, aging: float, /) -> float:
        return float(entry.created_ns) if entry.rank is None else entry.rank

    def spare(self, entry: EntryFacts, aging: float, /) -> float | None:
        return float(entry.now_ns) if entry.uses_since else None


class TwoQueues:
    """As S3-FIFO: what is new is on probation; what was used by the time it is to leave gets a much longer one."""

    name = "two-queues"
    _MAIN_NS = 10**15
    """How much longer: about 12 days."""

    def rank(self, entry: EntryFacts, aging: float, /) -> float:
        return float(entry.created_ns) if entry.rank is None else entry.rank

    def spare(self, entry: EntryFacts, aging: float, /) -> float | None:
        return float(entry.now_ns + self._MAIN_NS) if entry.uses_since else None


class Misbehaving:
    """Answers with whatever a test wants."""

    def __init__(self, rank: Callable[[], float], spare: Callable[[], float | None] = lambda: None) -> None:
        self.name = "misbehaving"
        self._rank = rank
        self._spare = spare

    def rank(self, entry: EntryFacts, aging: float, /) -> float:
        return self._rank()

    def spare(self, entry: EntryFacts, aging: float, /) -> float | None:
        return self._spare()
