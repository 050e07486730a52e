"""Ranks of entries: given by the policy, stored, and given anew when the policy has changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from tvfs.catalog.catalog import Batch, Catalog, Family
from tvfs.clock import Clock
from tvfs.plugin_api.eviction import EntryFacts
from tvfs.vault.entry_rows import EntryRows
from tvfs.vault.ranking import STATE, EvictionState, Ranking, encode_state, read_state
from tvfs.vault.stored_entry import EntryInvalid, StoredEntry, decode_entry, entry_row_key

REFERENCES_OF_ONE = 3
"""To its tree, from an entry: its own row, and range and inode of what the mount shows of it."""

RANKED_AT_ONCE = 32
"""Entries that are ranked anew in one batch: 30 us each."""


class EntryRanks:
    """The owner's only, synchronous."""

    def __init__(
        self, catalog: Catalog, rows: EntryRows, clock: Clock, *, sharers: Callable[[bytes], int] | None = None
    ) -> None:
        """`sharers` returns how many rows refer to the tree with an index, so that its bytes can be divided."""
        self._catalog = catalog
        self._rows = rows
        self._clock = clock
        self._sharers = sharers
        self._ranking = Ranking(None, clock)
        self._state = read_state(catalog)

    def use(self, ranking: Ranking, parameters: Mapping[str, int | str]) -> None:
        """Rank by this policy from now on; if it is not the one before, `rank_some` is to be called until done."""
        self._ranking = ranking
        if (self._state.policy, self._state.parameters) != (ranking.name, dict(parameters)):
            self._write_state(EvictionState(policy=ranking.name, parameters=dict(parameters)))

    @property
    def are_complete(self) -> bool:
        """Whether every entry has its rank from the policy that is used."""
        return self._state.complete

    def rank_some(self, after: bytes | None) -> bytes | None:
        """Rank the next entries anew, after a row; return after which to go on, or None when all are done.

        Also gives entries of an older vault the rows of usage that they lack.
        """
        batch = Batch()
        start = b"" if after is None else after + b"\0"
        for looked_at, (row_key, row) in enumerate(self._rows.scan(start), 1):
            try:
                entry = decode_entry(row_key, row)
            except EntryInvalid:  # whoever asks for it is told
                entry = None
            if entry is not None:
                changed = self.ranked(msgspec.structs.replace(entry, rank=None))
                self._rows.add_to(batch, row_key, entry, changed, anew=True)
            if looked_at == RANKED_AT_ONCE:
                self._catalog.write(batch)
                return row_key
        self._catalog.write(batch)
        self._write_state(msgspec.structs.replace(self._state, complete=True))
        return None

    def ranked(self, entry: StoredEntry) -> StoredEntry:
        """Return the entry with its rank, or with none if it may not be evicted."""
        if not entry.is_evictable:
            return msgspec.structs.replace(entry, rank=None, ranked_by_use=False)
        rank, by_use = self._ranking.rank(self._facts(entry), self._state.aging)
        return msgspec.structs.replace(entry, rank=rank, ranked_by_use=by_use)

    def spare(self, entry: StoredEntry) -> bool:
        """Ask the policy whether an entry at the head has a second chance; if so, give it its new rank."""
        rank = self._ranking.spare(self._facts(entry), self._state.aging)
        if rank is None:
            return False
        spared = msgspec.structs.replace(entry, rank=rank, ranked_by_use=False, spared_uses=entry.uses)
        self._rows.bind(Batch(), entry_row_key(entry.scope, entry.key), entry, spared)
        return True

    def age(self, batch: Batch, evicted: StoredEntry) -> None:
        """Add to the batch that evicts an entry what that means for the ranks of others."""
        # A rank that was given by use is on another scale, and would make all that is counted negligible.
        if evicted.rank is not None and not evicted.ranked_by_use:
            self._age(batch, evicted.rank)

    def rank_file(self, facts: EntryFacts) -> tuple[float, bool]:
        """Return the rank of a file, and whether it is the time of its last use because the policy failed."""
        return self._ranking.rank(facts, self._state.aging)

    def spare_file(self, facts: EntryFacts) -> float | None:
        """Return the new rank of a file that has a second chance, or None to evict it."""
        return self._ranking.spare(facts, self._state.aging)

    def age_file(self, batch: Batch, rank: float, *, by_use: bool) -> None:
        """Add to the batch that evicts a file what that means for the ranks of others."""
        if not by_use:
            self._age(batch, rank)

    def share_bytes(self, entry: StoredEntry) -> int:
        """Estimate how many bytes go with the entry."""
        if entry.snapshot is None or self._sharers is None:
            return entry.size_bytes
        references = self._sharers(entry.snapshot.index)
        return entry.size_bytes // max(1, -(-references // REFERENCES_OF_ONE))

    def _facts(self, entry: StoredEntry) -> EntryFacts:
        return EntryFacts(
            now_ns=self._clock.now_ns(),
            scope=entry.scope,
            kind=entry.kind,
            size_bytes=entry.size_bytes,
            share_bytes=self.share_bytes(entry),
            cost_ns=entry.cost_ns,
            created_ns=entry.created_ns,
            used_ns=entry.used_ns,
            uses=entry.uses,
            uses_since=entry.uses - entry.spared_uses,
            expires_ns=entry.expires_ns,
            rank=entry.rank,
        )

    def _age(self, batch: Batch, rank: float) -> None:
        if rank > self._state.aging:
            self._state = msgspec.structs.replace(self._state, aging=rank)
            batch.put(Family.SYS, STATE, encode_state(self._state))

    def _write_state(self, state: EvictionState) -> None:
        batch = Batch()
        batch.put(Family.SYS, STATE, encode_state(state))
        self._catalog.write(batch)
        self._state = state
