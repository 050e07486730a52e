"""Asks the eviction policy, and goes on without it where it fails."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from tvfs.catalog.catalog import Catalog, Family
from tvfs.clock import Clock
from tvfs.plugin_api.eviction import EntryFacts, EvictionPolicy

STATE = b"eviction"
"""Row of family `sys`: msgpack array `EvictionState`."""

LEAST_RECENTLY_USED = "lru"
"""How entries are ranked without a policy."""

SLOW_S = 0.005
"""A policy that thinks longer keeps everybody from being served."""


class EvictionState(msgspec.Struct, frozen=True, array_like=True):
    """What the ranks that are stored mean."""

    version: int = 1
    policy: str = ""
    """By which they were given; empty: some entries were never ranked."""
    parameters: dict[str, int | str] = {}
    aging: float = 0.0
    """The highest rank of those that were evicted."""
    complete: bool = False
    """Whether every entry has been ranked by this policy."""


def read_state(catalog: Catalog) -> EvictionState:
    """Return the stored state; one that cannot be read counts as none: everything is ranked anew then."""
    row = catalog.get(Family.SYS, STATE)
    try:
        return EvictionState() if row is None else msgspec.msgpack.decode(row, type=EvictionState)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return EvictionState()


def encode_state(state: EvictionState) -> bytes:
    """Return the row's value."""
    return msgspec.msgpack.encode(state)


class Ranking:
    """A policy that cannot do harm: what it gets wrong is ranked by when it was last used."""

    def __init__(
        self,
        policy: EvictionPolicy | None,
        clock: Clock,
        *,
        on_trouble: Callable[[str], None] | None = None,
    ) -> None:
        """Without a policy everything is ranked by use.  `on_trouble` hears once, in a sentence, that one failed."""
        self._policy = policy
        self._clock = clock
        self._on_trouble = on_trouble
        self.name = LEAST_RECENTLY_USED if policy is None else policy.name

    def rank(self, facts: EntryFacts, aging: float) -> tuple[float, bool]:
        """Return the rank, and whether it is the time of the last use because the policy failed."""
        if self._policy is None:
            return float(facts.used_ns), False
        began_s = self._clock.monotonic_s()
        try:
            rank = self._checked(self._policy.rank(facts, aging))
        except Exception as exc:  # noqa: BLE001  # whatever a policy raises, entries must be ranked
            self._failed(exc)
            return float(facts.used_ns), True
        self._watch(began_s)
        return rank, False

    def spare(self, facts: EntryFacts, aging: float) -> float | None:
        """Return the new rank of an entry that has a second chance, higher than the old one, or None to evict it."""
        if self._policy is None:
            return None
        began_s = self._clock.monotonic_s()
        try:
            answer = self._policy.spare(facts, aging)
            spared = None if answer is None else self._checked(answer)
        except Exception as exc:  # noqa: BLE001  # whatever a policy raises, room must be made
            self._failed(exc)
            return None
        self._watch(began_s)
        return spared if spared is not None and (facts.rank is None or spared > facts.rank) else None

    def _checked(self, rank: object) -> float:
        if not isinstance(rank, int | float) or not math.isfinite(rank):
            raise ValueError(f"it answered {rank!r}, which is no finite number")
        return float(rank)

    def _watch(self, began_s: float) -> None:
        took_s = self._clock.monotonic_s() - began_s
        if took_s > SLOW_S:
            self._tell(f"took {took_s * 1000:.0f} ms for one entry, and nobody was served meanwhile")

    def _failed(self, exc: Exception) -> None:
        self._tell(f"failed ({type(exc).__name__}: {exc}); what it fails on is ranked by when it was last used")

    def _tell(self, what: str) -> None:
        if self._on_trouble is not None:
            tell, self._on_trouble = self._on_trouble, None
            tell(f"The eviction policy {self.name!r} {what}. Choose another in [eviction], or correct it.")
