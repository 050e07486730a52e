"""Least recently used: what nobody asked for the longest leaves first."""

from __future__ import annotations

from collections.abc import Mapping

from tvfs.plugin_api.eviction import EntryFacts
from tvplugins.parameters import read_numbers


class Lru:
    """The rank is the time of the last use."""

    @property
    def name(self) -> str:
        """The entry-point name."""
        return "lru"

    def rank(self, entry: EntryFacts, aging: float, /) -> float:
        """Return when it was last used."""
        return float(entry.used_ns)

    def spare(self, entry: EntryFacts, aging: float, /) -> float | None:
        """Never: whoever was used since has moved back already."""
        return None


def make(parameters: Mapping[str, int | str], /) -> Lru:
    """Return the policy; it has no parameters, and any raises `ValueError`."""
    read_numbers("lru", parameters, {})
    return Lru()
