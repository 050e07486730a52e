"""Least frequently used, with aging: what is asked for seldom leaves first, and old fame fades."""

from __future__ import annotations

from collections.abc import Mapping

from tvfs.plugin_api.eviction import EntryFacts
from tvplugins.parameters import read_numbers


class Lfu:
    """The rank is the number of uses above the rank at which entries are leaving (LFU with dynamic aging).

    So one that was used a hundred times and is not used any more is overtaken by what is used now, as soon as ranks of
    about a hundred are leaving.
    """

    @property
    def name(self) -> str:
        """The entry-point name."""
        return "lfu"

    def rank(self, entry: EntryFacts, aging: float, /) -> float:
        """Return its uses, saving it counted as one, above `aging`."""
        return aging + 1.0 + entry.uses

    def spare(self, entry: EntryFacts, aging: float, /) -> float | None:
        """Never: each use has raised the rank already."""
        return None


def make(parameters: Mapping[str, int | str], /) -> Lfu:
    """Return the policy; it has no parameters, and any raises `ValueError`."""
    read_numbers("lfu", parameters, {})
    return Lfu()
