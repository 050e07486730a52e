"""Time to live: what would expire first leaves first, whether it is used or not."""

from __future__ import annotations

from collections.abc import Mapping

from tvfs.plugin_api.eviction import EntryFacts
from tvplugins.parameters import read_numbers

DEFAULT_LIFE_S = 30 * 86_400
"""How long an entry that was saved without a time to live is taken to be wanted."""


class Ttl:
    """The rank is the end of its life."""

    def __init__(self, *, life_s: int = DEFAULT_LIFE_S) -> None:
        """`life_s` counts from the saving of entries that have no time to live; they do not expire at its end."""
        self._life_ns = life_s * 1_000_000_000

    @property
    def name(self) -> str:
        """The entry-point name."""
        return "ttl"

    def rank(self, entry: EntryFacts, aging: float, /) -> float:
        """Return when its life ends, or would end."""
        return float(entry.expires_ns or entry.created_ns + self._life_ns)

    def spare(self, entry: EntryFacts, aging: float, /) -> float | None:
        """Never: time passes for all."""
        return None


def make(parameters: Mapping[str, int | str], /) -> Ttl:
    """Return the policy; `life_s` is its parameter, and another raises `ValueError`."""
    numbers = read_numbers("ttl", parameters, {"life_s": DEFAULT_LIFE_S})
    if numbers["life_s"] < 0:
        raise ValueError(f"The parameter 'life_s' of ttl must not be negative, not {numbers['life_s']}.")
    return Ttl(life_s=numbers["life_s"])
