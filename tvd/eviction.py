"""Lets entries go: those whose time to live has ended, and, when room is needed, those that the policy ranks lowest.

What is evicted is hidden from the mount and forgotten in one synchronous block, so that a look-up finds all of it or
nothing.  Whoever has its view open goes on reading: until it is closed, the view stays in the trash and keeps the
content.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
import trio

from tvd.entry_views import EntryViews
from tvfs.clock import Clock
from tvfs.vault.entries import EntryTable, RankedRow
from tvfs.vault.slices import SLICE_S, Slices

SLICE_CANDIDATES = 16
"""At most so many in a slice, however fast the clock says it is."""

EXPIRE_EVERY_S = 5.0
"""How soon what has expired, and is not found any more, is removed."""

MOST_SPARED = 1000
"""Second chances in a row, after which the next one is not asked for: a policy must not keep everything."""

MOST_WAITED_S = 3.0
"""How long to wait for files that somebody has just written, when nothing else is left: see `QUIET_S` of those."""

WHO = "tvd"
"""Of audit records."""


class Candidate(Protocol):
    """Something that may be evicted."""

    @property
    def rank(self) -> float:
        """The lowest leaves first."""
        ...


class CandidateSource(Protocol):
    """One kind of what may be evicted.  Synchronous; nothing else runs between the calls of one slice."""

    def lowest(self, limit: int) -> Sequence[Candidate]:
        """Return up to `limit` candidates, the lowest rank first."""
        ...

    def spare(self, candidate: Any, /) -> bool:
        """Give it a second chance if the policy wants that; it has a higher rank then."""
        ...

    def let_go(self, candidate: Any, /) -> int:
        """Evict it and return an estimate of the bytes, at least 1; 0 if it was not there, and is listed no more."""
        ...

    def ask_again_s(self) -> float | None:
        """If `lowest` has just returned nothing: after how many seconds it may return something; None if not."""
        ...

    def rank_some(self, after: bytes | None, /) -> bytes | None:
        """Rank the next few anew, from the beginning or after a row; return after which to go on; None: all done."""
        ...


class EntryCandidates:
    """Entries by rank; not those that are pinned, nor named snapshots."""

    def __init__(self, entries: EntryTable, views: EntryViews) -> None:
        self._entries = entries
        self._views = views

    def lowest(self, limit: int) -> Sequence[RankedRow]:
        """Return up to `limit` candidates, the lowest rank first."""
        return self._entries.lowest(limit)

    def spare(self, candidate: RankedRow, /) -> bool:
        """Give it a second chance if the policy wants that."""
        entry = self._entries.evictable(candidate)
        return entry is not None and self._entries.ranks.spare(entry)

    def let_go(self, candidate: RankedRow, /) -> int:
        """Hide and forget the entry."""
        entry = self._entries.evictable(candidate)
        if entry is None:
            return 0
        share_bytes = self._entries.ranks.share_bytes(entry)
        with self._views.changing(entry.scope, entry.key):
            self._views.hide(entry.scope, entry.key)
            self._entries.evict(entry, who=WHO)
        return max(1, share_bytes)

    def ask_again_s(self) -> float | None:
        """Nobody waits for an entry."""
        return None

    def rank_some(self, after: bytes | None, /) -> bytes | None:
        """Rank the next entries anew."""
        return self._entries.ranks.rank_some(after)


@dataclass(slots=True)
class _Slice:
    """What a slice did."""

    bytes: int = 0
    seen: int = 0


class Evictor:
    """Any number may ask at the same time; they take turns slice by slice."""

    def __init__(
        self,
        entries: EntryTable,
        views: EntryViews,
        clock: Clock,
        slices: Slices,
        *,
        others: Sequence[CandidateSource] = (),
    ) -> None:
        """`others` are candidates beside the entries: files in evictable directories."""
        self._entries = entries
        self._views = views
        self._clock = clock
        self._slices = slices
        # The entries are ranked last: with the last of them it is noted that all are.
        self._sources: list[CandidateSource] = [*others, EntryCandidates(entries, views)]
        self._spared_in_a_row = 0
        self.evicted = 0
        """How many were evicted since the start."""
        self.expired = 0
        """How many were removed since the start because their time to live had ended."""

    async def run(self) -> None:
        """Rank anew what must be, and remove what expires; for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.rank_all)
            while True:
                await self.expire()
                await trio.sleep(EXPIRE_EVERY_S)

    async def expire(self) -> int:
        """Remove the entries whose time to live has ended; return how many."""
        removed = 0
        while rows := self._entries.expired(SLICE_CANDIDATES):
            began_s = self._clock.monotonic_s()
            for row in rows:
                entry = self._entries.past_life(row)
                if entry is not None:
                    with self._views.changing(entry.scope, entry.key):
                        self._views.hide(entry.scope, entry.key)
                        self._entries.expire(entry, who=WHO)
                    removed += 1
                    self.expired += 1
                if self._clock.monotonic_s() - began_s >= SLICE_S:
                    break
            await self._slices.next()
        return removed

    async def evict(self, wanted_bytes: int) -> int:
        """Evict by rank until about so many bytes were let go; return how many, as estimated; 0: nothing is left.

        The bytes are not free yet: the collector and the compactor make them so.
        """
        let_go_bytes = 0
        progress_s = self._clock.monotonic_s()
        while let_go_bytes < wanted_bytes:
            done = self._slice(wanted_bytes - let_go_bytes)
            if done.seen:
                progress_s = self._clock.monotonic_s()
            elif let_go_bytes or not await self._wait_for_more(progress_s):
                break
            let_go_bytes += done.bytes
            await self._slices.next()
        return let_go_bytes

    async def rank_all(self) -> None:
        """Rank every entry anew if the policy is not the one before; the daemon serves meanwhile.

        Until it is done, the old ranks and the new ones are compared with each other.  After a kill it begins again.
        """
        if self._entries.ranks.are_complete:
            return
        log = structlog.get_logger().bind(part="eviction")
        count = self._entries.count()
        if count:
            log.info("ranking every entry anew", entries=count)
        for source in self._sources:
            after = source.rank_some(None)
            while after is not None:
                await self._slices.next()
                after = source.rank_some(after)
        if count:
            log.info("every entry is ranked")

    async def _wait_for_more(self, progress_s: float) -> bool:
        """Wait for what will be a candidate in a moment; return False if there is nothing to wait for."""
        waits_s = [wait_s for source in self._sources if (wait_s := source.ask_again_s()) is not None]
        if not waits_s or self._clock.monotonic_s() - progress_s > MOST_WAITED_S:
            return False
        await trio.sleep(min(waits_s))
        return True

    def _slice(self, wanted_bytes: int) -> _Slice:
        done = _Slice()
        ends_s = self._clock.monotonic_s() + SLICE_S
        for source, candidate in self._lowest():
            done.seen += 1
            if self._spared_in_a_row < MOST_SPARED and source.spare(candidate):
                self._spared_in_a_row += 1
            else:
                let_go_bytes = source.let_go(candidate)
                done.bytes += let_go_bytes
                if let_go_bytes:
                    self._spared_in_a_row = 0
                    self.evicted += 1
            if done.bytes >= wanted_bytes or self._clock.monotonic_s() >= ends_s:
                break
        return done

    def _lowest(self) -> list[tuple[CandidateSource, Candidate]]:
        merged = heapq.merge(
            *([(source, one) for one in source.lowest(SLICE_CANDIDATES)] for source in self._sources),
            key=lambda found: found[1].rank,
        )
        return [found for found, _ in zip(merged, range(SLICE_CANDIDATES), strict=False)]
