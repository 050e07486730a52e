"""Requests about what keys find."""

from __future__ import annotations

import trio

from taskvault.protocol.framing import MAX_FRAME_BYTES, FrameTooLarge
from taskvault.protocol.messages import (
    Done,
    Entries,
    EntryReply,
    FindNewest,
    GetEntry,
    ListEntries,
    RemoveEntry,
    SaveEntry,
    SetPin,
    UnsteadyKey,
)
from tvd.control.answer import Table
from tvd.control.privacy import is_listed
from tvd.control.snapshots import Snapshots
from tvd.control.vault_session import VaultSession
from tvd.control.wire import Rejected, entry_of, snapshot_from, stored_from
from tvd.entry_views import PATHS, RUN, SAVED, SNAPSHOT_SCOPE, EntryViews, directory_of_scope
from tvfs.vault.entries import KeyExists, KeyMissing, StoredEntry
from tvfs.vault.names import NameInvalid, check_key, check_scope
from tvfs.vault.newest import newest_saved
from tvfs.vault.stored_entry import EntryInvalid
from tvfs.vault.vault import Vault

MOST_LISTED = 1000
"""Entries in one answer; 300 bytes each, and their results."""

MOST_TRIED = 16
"""Keys in one request for an entry."""

LISTED_AT_A_TIME = 64
"""Before others get their turn."""

MOST_RESULT_BYTES = 1 << 20
"""Of one entry; outputs are content, a result only names them."""

MOST_OBSERVED = 64
"""Characters of the name of a tracer."""

LONGEST_LIFE_S = 100 * 366 * 86_400.0
"""Of an entry with a time to live: a century."""


class EntriesRequests:
    """Answers them from one vault; an entry and what the mount shows of it change together."""

    def __init__(self, vault: Vault, views: EntryViews, snapshots: Snapshots) -> None:
        self._vault = vault
        self._views = views
        self._snapshots = snapshots

    def table(self) -> Table[VaultSession]:
        """Handlers by request."""
        return {
            SaveEntry: self.save,
            GetEntry: self.get,
            ListEntries: self.list_entries,
            RemoveEntry: self.remove,
            SetPin: self.set_pin,
            FindNewest: self.find_newest,
        }

    async def save(self, session: VaultSession, request: SaveEntry) -> EntryReply:
        """Refused before anything is changed, or done whole."""
        _check_names(request.scope, request.key)
        if request.kind not in (SAVED, RUN, PATHS):
            raise Rejected(f"there is no kind of entry called {request.kind!r}")
        if len(request.result) > MOST_RESULT_BYTES:
            raise Rejected(f"a result has {len(request.result)} bytes, and {MOST_RESULT_BYTES} are allowed")
        if len(request.observed) > MOST_OBSERVED:
            raise Rejected(f"{request.observed[:MOST_OBSERVED]!r}… is no name of a tracer")
        self._snapshots.check(snapshot_from(request.snapshot))
        entries = self._vault.entries
        if not request.replace and entries.exists(request.scope, request.key):
            raise KeyExists(request.scope, request.key)
        # Refused before the views are touched.
        entries.check_steady(request.scope, request.key, despite_mark=request.despite_mark)
        now_ns = self._vault.clock.now_ns()
        entry = StoredEntry(
            request.scope,
            request.key,
            request.kind,
            created_ns=now_ns,
            used_ns=now_ns,
            snapshot=stored_from(request.snapshot),
            result=request.result,
            cost_ns=request.cost_ns,
            pinned=request.pinned,
            expires_ns=_expiry(now_ns, request.ttl_s),
            observed=request.observed,
        )
        # One synchronous block: `put` writes its batch before it first waits.
        with self._views.changing(request.scope, request.key):
            self._views.hide(request.scope, request.key)
            self._views.show(entry)
            await entries.put(entry, who=session.who, replace=request.replace, despite_mark=request.despite_mark)
        return EntryReply(entry_of(entry))

    async def get(self, session: VaultSession, request: GetEntry) -> EntryReply:
        """None is an answer, not an error."""
        if len(request.or_else) >= MOST_TRIED:
            raise Rejected(f"{len(request.or_else) + 1} keys cannot be tried at once, at most {MOST_TRIED}")
        for key in (request.key, *request.or_else):
            _check_names(request.scope, key)
            found = self._vault.entries.get(request.scope, key, count_use=request.count_use)
            reply = _reply(session, found)
            if reply.entry is not None:
                break
        return reply if reply.entry is not None else EntryReply(None, self._mark(request))

    def _mark(self, request: GetEntry) -> UnsteadyKey | None:
        """Say why there is no entry, if a key is marked."""
        for key in (request.key, *request.or_else):
            mark = self._vault.entries.unsteady.get(request.scope, key)
            if mark is not None:
                return UnsteadyKey(key, mark.run, mark.how, mark.marked_ns)
        return None

    async def list_entries(self, session: VaultSession, request: ListEntries) -> Entries:
        """In key order; fewer than asked for only at the end.  What cannot be read is named, and hides nothing else."""
        if not 1 <= request.limit <= MOST_LISTED:
            raise Rejected(f"{request.limit} entries cannot be listed at once, at most {MOST_LISTED}")
        listed: list[StoredEntry] = []
        unreadable: list[EntryInvalid] = []
        after = request.after
        while True:
            wanted = min(LISTED_AT_A_TIME, request.limit - len(listed))
            page, after = self._vault.entries.page(
                request.scope, after=after, limit=wanted, leave_out=SNAPSHOT_SCOPE, unreadable=unreadable
            )
            listed += [entry for entry in page if is_listed(session, entry)]
            results_bytes = sum(len(entry.result) for entry in listed)
            if results_bytes > MAX_FRAME_BYTES:
                raise FrameTooLarge(results_bytes)
            if after is None or len(listed) == request.limit:
                damage = [str(each) for each in unreadable[:MOST_LISTED]]
                return Entries([entry_of(entry) for entry in listed], damage)
            await trio.lowlevel.checkpoint()

    async def remove(self, session: VaultSession, request: RemoveEntry) -> Done:
        """The content stays until it is swept."""
        _check_names(request.scope, request.key)
        if not self._vault.entries.exists(request.scope, request.key):
            raise KeyMissing(request.scope, request.key)
        with self._views.changing(request.scope, request.key):
            self._views.hide(request.scope, request.key)
            await self._vault.entries.remove(request.scope, request.key, who=session.who)
        return Done()

    async def set_pin(self, session: VaultSession, request: SetPin) -> EntryReply:
        """Durable when answered."""
        _check_names(request.scope, request.key)
        entries = self._vault.entries
        pinned = await entries.set_pin(request.scope, request.key, pinned=request.pinned, who=session.who)
        return EntryReply(entry_of(pinned))

    async def find_newest(self, session: VaultSession, request: FindNewest) -> EntryReply:
        """None is an answer, not an error."""
        _check_scope(request.scope)
        found = await newest_saved(
            self._vault.catalog,
            self._vault.entries,
            request.scope,
            request.prefix,
            count_use=request.count_use,
        )
        return _reply(session, found)


def _reply(session: VaultSession, found: StoredEntry | None) -> EntryReply:
    """Tell of an entry; its content stays as long as the connection, whatever becomes of the entry."""
    if found is None or (found.snapshot is not None and not session.keep(found.snapshot.index)):
        return EntryReply(None)
    return EntryReply(entry_of(found))


def _expiry(now_ns: int, ttl_s: float | None) -> int:
    if ttl_s is None:
        return 0
    if not 0 < ttl_s <= LONGEST_LIFE_S:  # NaN is not either
        raise Rejected(f"a time to live of {ttl_s} seconds is not between 0 and {LONGEST_LIFE_S:.0f}")
    return now_ns + int(ttl_s * 1e9)


def _check_names(scope: str, key: str) -> None:
    _check_scope(scope)
    check_key(key)


def _check_scope(scope: str) -> None:
    if check_scope(scope) == SNAPSHOT_SCOPE:
        raise NameInvalid("scope", scope, "is where named snapshots are kept; choose another")
    directory_of_scope(scope)
