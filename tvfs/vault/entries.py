"""Entries: what keys find.  Family `entry`, key `scope, 0x00, key`; the order in which they leave in family `usage`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain

import msgspec

from tvfs import failpoints
from tvfs.catalog.catalog import Batch, Catalog, prefix_end
from tvfs.catalog.rocks import CatalogFull
from tvfs.clock import Clock
from tvfs.errors import TaskVaultError
from tvfs.vault.audit import AuditLog
from tvfs.vault.entry_ranks import EntryRanks
from tvfs.vault.entry_rows import EntryRows
from tvfs.vault.entry_totals import EntryTotals
from tvfs.vault.entry_usage import BY_EXPIRY, BY_RANK, expiry_row, parse_expiry_row, parse_rank_row, rank_row
from tvfs.vault.names import check_scope
from tvfs.vault.stored_entry import EntryInvalid as EntryInvalid
from tvfs.vault.stored_entry import StoredEntry as StoredEntry
from tvfs.vault.stored_entry import StoredSnapshot as StoredSnapshot
from tvfs.vault.stored_entry import decode_entry, entry_row_key, names_of_row
from tvfs.vault.unsteady import KeyUnsteady, UnsteadyKeys


class KeyExists(TaskVaultError):
    """An entry may be replaced only on request."""

    def __init__(self, scope: str, key: str) -> None:
        super().__init__(
            f"The key {key!r} exists in scope {scope!r} already; replace it with --replace, or choose another."
        )
        self.scope = scope
        self.key = key


class KeyMissing(TaskVaultError):
    """No entry has this key."""

    def __init__(self, scope: str, key: str) -> None:
        super().__init__(f"Scope {scope!r} has no key {key!r}; `tv cache ls` lists the keys there are.")
        self.scope = scope
        self.key = key


@dataclass(frozen=True, slots=True)
class RankedRow:
    """Says that an entry may be evicted; the entry has the last word."""

    rank: float
    row_key: bytes


@dataclass(frozen=True, slots=True)
class ExpiredRow:
    """Says that the life of an entry has ended; the entry has the last word."""

    expires_ns: int
    row_key: bytes


class EntryTable:
    """The entries of a vault.  A change, its rows of usage and its audit record are one batch.

    An entry past its time to live is found by nothing but `expired`, which is for those who remove it.
    The owner's only.  What is not `async` is synchronous, and takes constant time or that of a page.
    """

    def __init__(
        self, catalog: Catalog, audit: AuditLog, clock: Clock, *, sharers: Callable[[bytes], int] | None = None
    ) -> None:
        """`sharers` returns how many rows refer to the tree with an index, so that its bytes can be divided."""
        self._catalog = catalog
        self._audit = audit
        self._clock = clock
        self._rows = EntryRows(catalog)
        self.ranks = EntryRanks(catalog, self._rows, clock, sharers=sharers)
        self.unsteady = UnsteadyKeys(catalog)
        """For reading; `mark_unsteady` and `put` change it."""

    def get(self, scope: str, key: str, *, count_use: bool = False) -> StoredEntry | None:
        """Return the entry, or None; raise `NameInvalid` or `EntryInvalid`.

        `count_use` notes that it was used now and ranks it anew, without waiting and without audit.
        """
        row_key = entry_row_key(scope, key)
        entry = self._rows.read(row_key)
        if entry is None or entry.has_expired(self._clock.now_ns()):
            return None
        if count_use:
            used = msgspec.structs.replace(entry, used_ns=self._clock.now_ns(), uses=entry.uses + 1)
            used = self.ranks.ranked(used)
            with suppress(CatalogFull):  # who asks for what is there should not hear of a full disk
                self._rows.bind(Batch(), row_key, entry, used)
            return used
        return entry

    def exists(self, scope: str, key: str) -> bool:
        """Whether the key finds anything, readable or not; raise `NameInvalid`."""
        try:
            return self.get(scope, key) is not None
        except EntryInvalid:
            return True

    async def put(self, entry: StoredEntry, *, who: str, replace: bool = False, despite_mark: bool = False) -> None:
        """Bind the key to the entry, durably; raise `KeyExists` unless `replace`, or `NameInvalid`.

        Raises `KeyUnsteady` if the key is marked, unless `despite_mark`, which takes the mark away.
        The content must have been committed before.  The batch is written before this first waits.
        """
        row_key = entry_row_key(entry.scope, entry.key)
        existed = self.exists(entry.scope, entry.key)
        if existed and not replace:
            raise KeyExists(entry.scope, entry.key)
        self.check_steady(entry.scope, entry.key, despite_mark=despite_mark)
        batch = Batch()
        if self.unsteady.get(entry.scope, entry.key) is not None:
            self._audit.append_to(batch, action="unmark", scope=entry.scope, key=entry.key, who=who)
            self.unsteady.remove_in(batch, entry.scope, entry.key)
        self._audit.append_to(
            batch,
            action="replace" if existed else "save",
            scope=entry.scope,
            key=entry.key,
            who=who,
            detail=f"{entry.kind} {entry.snapshot.tree}" if entry.snapshot else entry.kind,
        )
        self._rows.bind(batch, row_key, self._rows.whatever_is_at(row_key), self.ranks.ranked(entry))
        await self._flush()

    async def set_pin(self, scope: str, key: str, *, pinned: bool, who: str) -> StoredEntry:
        """Let the entry never be evicted, or again, durably, and return it; raise `KeyMissing` or `NameInvalid`.

        Its time to live, if it has one, ends all the same.
        """
        row_key = entry_row_key(scope, key)
        entry = self.get(scope, key)
        if entry is None:
            raise KeyMissing(scope, key)
        if entry.pinned != pinned:
            old, entry = entry, self.ranks.ranked(msgspec.structs.replace(entry, pinned=pinned, rank=None))
            batch = Batch()
            self._audit.append_to(batch, action="pin" if pinned else "unpin", scope=scope, key=key, who=who)
            self._rows.bind(batch, row_key, old, entry)
        await self._flush()
        return entry

    async def remove(self, scope: str, key: str, *, who: str) -> None:
        """Forget the entry, durably; raise `KeyMissing` or `NameInvalid`.  Also removes one that cannot be read."""
        if not self.exists(scope, key):
            raise KeyMissing(scope, key)
        row_key = entry_row_key(scope, key)
        batch = Batch()
        self._audit.append_to(batch, action="remove", scope=scope, key=key, who=who)
        self._rows.bind(batch, row_key, self._rows.whatever_is_at(row_key), None)
        await self._flush()

    def check_steady(self, scope: str, key: str, *, despite_mark: bool = False) -> None:
        """Raise `KeyUnsteady` if `put` would, or `NameInvalid`."""
        mark = None if despite_mark else self.unsteady.get(scope, key)
        if mark is not None:
            raise KeyUnsteady(scope, key, mark.how)

    async def mark_unsteady(self, scope: str, key: str, *, run: str, how: str, who: str) -> None:
        """Mark a key whose run did not make the same again, and forget its entry, durably; raise `NameInvalid`.

        Nothing is bound to the key until somebody insists.  The batch is written before this first waits.
        """
        row_key = entry_row_key(scope, key)
        batch = Batch()
        self._audit.append_to(batch, action="mark", scope=scope, key=key, who=who, detail=f"run {run}: {how}")
        self.unsteady.add_to(batch, scope, key, marked_ns=self._clock.now_ns(), run=run, how=how)
        self._rows.bind(batch, row_key, self._rows.whatever_is_at(row_key), None)
        await self._flush()

    async def _flush(self) -> None:
        failpoints.reach("entry.after_batch")
        await self._catalog.flush()
        failpoints.reach("entry.after_wal")

    def list_entries(
        self, scope: str | None = None, *, after: tuple[str, str] | None = None, limit: int = 1000
    ) -> list[StoredEntry]:
        """Return up to `limit` entries in the order of their rows, of one scope or of all, after `(scope, key)`."""
        found: list[StoredEntry] = []
        while len(found) < limit:
            page, after = self.page(scope, after=after, limit=limit - len(found))
            found += page
            if after is None:
                break
        return found

    def page(
        self,
        scope: str | None = None,
        *,
        after: tuple[str, str] | None = None,
        limit: int,
        leave_out: str | None = None,
        unreadable: list[EntryInvalid] | None = None,
    ) -> tuple[list[StoredEntry], tuple[str, str] | None]:
        """Return the entries in the next `limit` rows, and after which to go on; None at the end.

        There may be fewer, or none: those that have expired are left out, and those that cannot be read, which are
        added to `unreadable`.  The rows of the scope `leave_out` do not count.
        """
        prefix = b"" if scope is None else check_scope(scope).encode() + b"\0"
        start = prefix
        if after is not None:
            start = max(start, entry_row_key(*after) + b"\0")
        found: list[StoredEntry] = []
        now_ns = self._clock.now_ns()
        end = prefix_end(prefix) if prefix else None
        for looked_at, (row_key, row) in enumerate(self._scan_without(leave_out, start, end), 1):
            try:
                entry = decode_entry(row_key, row)
                if not entry.has_expired(now_ns):
                    found.append(entry)
            except EntryInvalid as exc:
                if unreadable is not None:
                    unreadable.append(exc)
            if looked_at == limit:
                return found, names_of_row(row_key)
        return found, None

    def _scan_without(self, scope: str | None, start: bytes, end: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        if scope is None:
            return self._rows.scan(start, end)
        first, beyond = scope.encode() + b"\0", scope.encode() + b"\x01"
        before = self._rows.scan(start, first if end is None else min(first, end))
        return chain(before, self._rows.scan(max(start, beyond), end))

    def scopes(self) -> Iterator[str]:
        """Yield every scope that has an entry, in order; one look-up each, however many entries it has."""
        start = b""
        while (row := next(self._rows.scan(start), None)) is not None:
            scope, _, _ = row[0].partition(b"\0")
            yield scope.decode()
            start = scope + b"\x01"

    def count(self) -> int:
        """How many entries there are; what has expired counts until it is removed."""
        return self.totals().entries

    def totals(self) -> EntryTotals:
        """Sums over all entries, without looking at them."""
        return self._rows.totals()

    def lowest(self, limit: int) -> list[RankedRow]:
        """Return up to `limit` entries that may be evicted, the lowest rank first."""
        return [RankedRow(*parse_rank_row(row)) for row in self._rows.head(BY_RANK, limit)]

    def evictable(self, row: RankedRow) -> StoredEntry | None:
        """Return the entry that the row stands for; None, and forget the row, if there is none, or not with this rank.

        An entry that cannot be read is not evicted: it is for `tv fsck`, or `tv cache rm`.
        """
        found = self._rows.whatever_is_at(row.row_key)
        if isinstance(found, StoredEntry) and found.rank == row.rank and found.is_evictable:
            return found
        self._rows.forget(rank_row(row.rank, row.row_key))
        return None

    def evict(self, entry: StoredEntry, *, who: str) -> None:
        """Forget an entry, as it is now, to make room; in order with everything else, not yet durable."""
        batch = Batch()
        self.ranks.age(batch, entry)
        self._drop(batch, entry, "evict", who)

    def expired(self, limit: int) -> list[ExpiredRow]:
        """Return up to `limit` entries whose time to live has ended, the first to end first."""
        rows = [ExpiredRow(*parse_expiry_row(row)) for row in self._rows.head(BY_EXPIRY, limit)]
        now_ns = self._clock.now_ns()
        return [row for row in rows if row.expires_ns <= now_ns]

    def past_life(self, row: ExpiredRow) -> StoredEntry | None:
        """Return the entry that the row stands for; None, and forget the row, if it is not that entry's."""
        found = self._rows.whatever_is_at(row.row_key)
        if isinstance(found, StoredEntry) and found.expires_ns == row.expires_ns:
            return found
        self._rows.forget(expiry_row(row.expires_ns, row.row_key))
        return None

    def expire(self, entry: StoredEntry, *, who: str) -> None:
        """Forget an entry, as it is now, whose life has ended; in order with everything else, not yet durable."""
        self._drop(Batch(), entry, "expire", who)

    def _drop(self, batch: Batch, entry: StoredEntry, action: str, who: str) -> None:
        self._audit.append_to(batch, action=action, scope=entry.scope, key=entry.key, who=who)
        self._rows.bind(batch, entry_row_key(entry.scope, entry.key), entry, None)
