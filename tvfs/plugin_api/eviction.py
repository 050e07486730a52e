"""Contract of an eviction policy: which entries leave first when room is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

API_VERSION = 1
"""Of this contract. A plugin may declare the one it was written for as `api_version`, on factory or plugin."""


@dataclass(frozen=True, slots=True)
class EntryFacts:
    """What is known of an entry when it is ranked.  Fields may be added; none changes its meaning."""

    now_ns: int
    """Nanoseconds since 1970, as all times here."""
    scope: str
    kind: str
    """`saved` (paths under a key), `run` (a result), `snapshot`, `file` (in an evictable directory)."""
    size_bytes: int
    """Sum of the lengths of its files."""
    share_bytes: int
    """An estimate of its share of the bytes that it keeps alive: what several keep is divided among them."""
    cost_ns: int
    """What it took to make: wall time of the command; 0 if unknown."""
    created_ns: int
    used_ns: int
    """Last counted use, or when it was saved."""
    uses: int
    """Counted uses since it was saved."""
    uses_since: int
    """Counted uses since it was saved or last spared: what a second chance is given for."""
    expires_ns: int
    """When its time to live ends; 0: never."""
    rank: float | None
    """Its rank until now; None when it is ranked for the first time."""


class EvictionPolicy(Protocol):
    """Gives each entry a rank; the lowest leaves first.  Pinned entries are not ranked, expired ones leave anyway.

    Threads: one call at a time, while the owner's event loop waits: each must take less than 50 us.  Nothing that
    blocks, no files, no locks.  One that does not return within a second is given up, and counts as a failure.
    State: none of its own is needed.  A policy sees one entry at a time and may keep nothing of it, because the
    process may end at any moment; what it has to remember is in the facts: the rank it gave, and `aging`.
    Persistence: ranks are stored and compared with ranks given later, also by later versions under the same name.  If
    the meaning of ranks changes, the name must: then all entries are ranked anew, in the background, after a start.
    Failure: a policy that raises, or answers with NaN, an infinity or no number, does no harm: the entry is ranked by
    when it was last used (`spare`: it is evicted), and the daemon says that it is in trouble.

    `aging` is the highest rank of those evicted so far (0.0 at first), which only grows.  A policy that counts adds it
    to the rank, so that what was counted long ago weighs less than what is counted now.
    """

    @property
    def name(self) -> str:
        """The entry-point name."""
        ...

    def rank(self, entry: EntryFacts, aging: float, /) -> float:
        """Return the rank, a finite number; called when the entry is saved, unpinned, and at each counted use."""
        ...

    def spare(self, entry: EntryFacts, aging: float, /) -> float | None:
        """Say whether the entry, which is the next to be evicted, has a second chance: None to evict it, or a new rank.

        Bounded: a rank that is not higher than the old one evicts it, and so does whoever asks, without
        asking, after a thousand others in a row were spared.
        """
        ...


class EvictionPolicyFactory(Protocol):
    """What the entry point names."""

    def __call__(self, parameters: Mapping[str, int | str], /) -> EvictionPolicy:
        """Return the policy; raise `ValueError` for parameters it does not know."""
        ...
