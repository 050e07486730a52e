"""What every eviction policy promises.  Subclass it and say how one is made."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tvfs.plugin_api import EntryFacts, EvictionPolicy

_INHERITED = settings(deadline=None, suppress_health_check=[HealthCheck.differing_executors])
"""Each subclass runs the same test functions, which Hypothesis takes for a mistake."""

NOW_NS = 1_700_000_000_000_000_000
_SECOND_NS = 1_000_000_000
_MOST_RANKED = 50e-6
"""Seconds a call may take."""

ENTRY = EntryFacts(
    now_ns=NOW_NS,
    scope="main",
    kind="run",
    size_bytes=1 << 20,
    share_bytes=1 << 19,
    cost_ns=3 * _SECOND_NS,
    created_ns=NOW_NS - 3600 * _SECOND_NS,
    used_ns=NOW_NS - 60 * _SECOND_NS,
    uses=3,
    uses_since=1,
    expires_ns=0,
    rank=None,
)
"""An ordinary one, to be varied."""


@st.composite
def entries(draw: st.DrawFn) -> EntryFacts:
    """Everything that can occur, also what is unlikely: no bytes, no cost, a clock that went back."""
    created_ns = draw(st.integers(0, NOW_NS))
    uses = draw(st.integers(0, 1 << 40))
    return EntryFacts(
        now_ns=draw(st.integers(created_ns, 2 * NOW_NS)),
        scope=draw(st.sampled_from(["main", "pr/7"])),
        kind=draw(st.sampled_from(["saved", "run", "snapshot", "file"])),
        size_bytes=draw(st.integers(0, 1 << 60)),
        share_bytes=draw(st.integers(0, 1 << 60)),
        cost_ns=draw(st.integers(0, 1 << 60)),
        created_ns=created_ns,
        used_ns=draw(st.integers(0, 2 * NOW_NS)),
        uses=uses,
        uses_since=draw(st.integers(0, uses)),
        expires_ns=draw(st.one_of(st.just(0), st.integers(1, 2 * NOW_NS))),
        rank=draw(st.one_of(st.none(), st.floats(-1e19, 1e19))),
    )


class EvictionContract(ABC):
    """The promises of `EvictionPolicy`."""

    @abstractmethod
    def make_policy(self) -> EvictionPolicy:
        """Return the policy under test."""

    @_INHERITED
    @given(entry=entries(), aging=st.floats(0, 1e19))
    def test_a_rank_is_a_finite_number(self, entry: EntryFacts, aging: float) -> None:
        """Whatever the entry is."""
        rank = self.make_policy().rank(entry, aging)
        assert isinstance(rank, int | float)
        assert math.isfinite(rank)

    @_INHERITED
    @given(entry=entries(), aging=st.floats(0, 1e19))
    def test_a_second_chance_is_a_finite_number_or_none(self, entry: EntryFacts, aging: float) -> None:
        """Whatever the entry is."""
        spared = self.make_policy().spare(entry, aging)
        assert spared is None or (isinstance(spared, int | float) and math.isfinite(spared))

    @_INHERITED
    @given(entry=entries(), other=entries(), aging=st.floats(0, 1e19))
    def test_a_policy_keeps_nothing_of_an_entry(self, entry: EntryFacts, other: EntryFacts, aging: float) -> None:
        """The process may end at any moment, and another policy object goes on."""
        policy = self.make_policy()
        policy.rank(other, aging)
        policy.spare(other, aging)
        assert policy.rank(entry, aging) == self.make_policy().rank(entry, aging)
        assert policy.spare(entry, aging) == self.make_policy().spare(entry, aging)

    def test_second_chances_end(self) -> None:
        """An entry that nobody uses is evicted in the end."""
        policy = self.make_policy()
        entry = replace(ENTRY, rank=policy.rank(ENTRY, 0.0))
        for _ in range(1000):
            spared = policy.spare(entry, 0.0)
            if spared is None or entry.rank is None or spared <= entry.rank:
                return
            entry = replace(entry, rank=spared, uses_since=0)
        raise AssertionError("an entry without a use was spared 1,000 times")

    def test_a_use_does_not_bring_an_entry_closer_to_its_eviction(self) -> None:
        """What is used is not worth less for it."""
        policy = self.make_policy()
        before = policy.rank(ENTRY, 0.0)
        used = replace(ENTRY, used_ns=ENTRY.now_ns, uses=ENTRY.uses + 1, uses_since=ENTRY.uses_since + 1, rank=before)
        assert policy.rank(used, 0.0) >= before

    def test_a_call_is_short(self) -> None:
        """The event loop waits for it; the fastest of many counts, because the machine does other things too."""
        policy = self.make_policy()
        fastest_s = math.inf
        for _ in range(200):
            began_s = time.perf_counter()
            policy.rank(ENTRY, 0.0)
            policy.spare(ENTRY, 0.0)
            fastest_s = min(fastest_s, time.perf_counter() - began_s)
        assert fastest_s < 2 * _MOST_RANKED
