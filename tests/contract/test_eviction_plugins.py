"""The built-in eviction policies keep the contract, and so do those that the field knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from tvplugins.eviction import lfu, lru, ttl

from tests.eviction_policies import ClockHand, CostBySize, TwoQueues
from tvfs.plugin_api import EntryFacts, EvictionPolicy, PluginRegistry, PluginUnknown
from tvfs.testing.eviction_contract import ENTRY, EvictionContract
from tvfs.testing.hash_contract import refuses_unknown_parameters

NONE: Mapping[str, int | str] = {}


class TestLru(EvictionContract):
    def make_policy(self) -> EvictionPolicy:
        return lru.make(NONE)


class TestLfu(EvictionContract):
    def make_policy(self) -> EvictionPolicy:
        return lfu.make(NONE)


class TestTtl(EvictionContract):
    def make_policy(self) -> EvictionPolicy:
        return ttl.make({"life_s": 60})


class TestCostBySize(EvictionContract):
    def make_policy(self) -> EvictionPolicy:
        return CostBySize()


class TestClockHand(EvictionContract):
    def make_policy(self) -> EvictionPolicy:
        return ClockHand()


class TestTwoQueues(EvictionContract):
    def make_policy(self) -> EvictionPolicy:
        return TwoQueues()


def first_to_leave(policy: EvictionPolicy, aging: float = 0.0, **entries: EntryFacts) -> str:
    return min(entries, key=lambda name: policy.rank(entries[name], aging))


def test_lru_lets_go_of_what_was_used_longest_ago() -> None:
    often = replace(ENTRY, uses=100, used_ns=ENTRY.used_ns - 1000)
    assert first_to_leave(lru.make(NONE), often=often, lately=replace(ENTRY, uses=0)) == "often"


def test_lfu_lets_go_of_what_was_used_least_until_the_rest_has_aged() -> None:
    policy = lfu.make(NONE)
    often, seldom = replace(ENTRY, uses=100), replace(ENTRY, uses=1)
    assert first_to_leave(policy, often=often, seldom=seldom) == "seldom"
    # The famous one was ranked long ago; what is saved now begins where entries are leaving.
    assert policy.rank(often, 0.0) < policy.rank(seldom, 100.0)


def test_ttl_lets_go_of_what_would_expire_first() -> None:
    policy = ttl.make({"life_s": 60})
    soon = replace(ENTRY, expires_ns=ENTRY.now_ns + 1, uses=100)
    later = replace(ENTRY, created_ns=ENTRY.now_ns)
    assert first_to_leave(policy, soon=soon, later=later) == "soon"
    assert first_to_leave(policy, soon=soon, past=ENTRY) == "past"


def test_unknown_and_impossible_parameters_are_refused() -> None:
    for make in (lru.make, lfu.make, ttl.make):
        refuses_unknown_parameters(make)
    with pytest.raises(ValueError, match="negative"):
        ttl.make({"life_s": -1})


def test_the_built_in_policies_are_found_by_name_and_an_unknown_one_is_answered_with_theirs() -> None:
    registry = PluginRegistry()
    assert {"lfu", "lru", "ttl"} <= set(registry.names("eviction"))
    for name in ("lfu", "lru", "ttl"):
        assert registry.eviction(name).name == name
    with pytest.raises(PluginUnknown, match="lfu, lru, ttl"):
        registry.eviction("random")
