"""First in, first out: what was saved the longest ago leaves first, however often it is used."""

from __future__ import annotations

from collections.abc import Mapping

from tvfs.plugin_api import EntryFacts


class Fifo:
    """The rank is the time of saving."""

    api_version = 1
    name = "fifo"

    def rank(self, entry: EntryFacts, aging: float, /) -> float:
        """Return when the entry was saved."""
        return float(entry.created_ns)

    def spare(self, entry: EntryFacts, aging: float, /) -> float | None:
        """Never: there are no second chances."""
        return None


def make(parameters: Mapping[str, int | str], /) -> Fifo:
    """Return the policy; it has no parameters."""
    if parameters:
        raise ValueError(f"fifo has no parameters ({', '.join(parameters)}).")
    return Fifo()
