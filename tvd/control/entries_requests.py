"""Requests about what keys find."""

from __future__ import annotations

import trio

from taskvault.protocol.messages import (
    Done,
    Entries,
    EntryReply,
    GetEntry,
    ListEntries,
    RemoveEntry,
    SaveEntry,
)
from tvd.control.answer import Table
from tvd.control.snapshots import Snapshots
from tvd.control.vault_session import VaultSession
from tvd.control.wire import Rejected, entry_of, snapshot_from, stored_from
from tvd.entry_views import RUN, SAVED, SNAPSHOT_SCOPE, EntryViews, directory_of_scope
from tvfs.vault.entries import KeyExists, KeyMissing, StoredEntry
from tvfs.vault.names import NameInvalid, check_key, check_scope
from tvfs.vault.vault import Vault

MOST_LISTED = 1000
"""Entries in one answer; 300 bytes each, and their results."""


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
        }

    async def save(self, session: VaultSession, request: SaveEntry) -> EntryReply:
        """Refused before anything is changed, or done whole."""
        _check_names(request.scope, request.key)
        if request.kind not in (SAVED, RUN):
            raise Rejected(f"there is no kind of entry called {request.kind!r}")
        self._snapshots.check(snapshot_from(request.snapshot))
        entries = self._vault.entries
        if not request.replace and entries.exists(request.scope, request.key):
            raise KeyExists(request.scope, request.key)
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
        )
        # One synchronous block: `put` writes its batch before it first waits.
        with self._views.changing(request.scope, request.key):
            self._views.hide(request.scope, request.key)
            self._views.show(entry)
            await entries.put(entry, who=session.who, replace=request.replace)
        return EntryReply(entry_of(entry))

    async def get(self, session: VaultSession, request: GetEntry) -> EntryReply:
        """None is an answer, not an error."""
        _check_names(request.scope, request.key)
        found = self._vault.entries.get(request.scope, request.key, count_use=request.count_use)
        return EntryReply(None if found is None else entry_of(found))

    async def list_entries(self, session: VaultSession, request: ListEntries) -> Entries:
        """In key order; fewer than asked for only at the end."""
        if not 1 <= request.limit <= MOST_LISTED:
            raise Rejected(f"{request.limit} entries cannot be listed at once, at most {MOST_LISTED}")
        listed: list[StoredEntry] = []
        after = request.after
        while True:
            wanted = request.limit - len(listed)
            page = self._vault.entries.list_entries(request.scope, after=after, limit=wanted)
            listed += [entry for entry in page if entry.scope != SNAPSHOT_SCOPE]
            if len(page) < wanted or len(listed) == request.limit:
                return Entries([entry_of(entry) for entry in listed])
            after = (page[-1].scope, page[-1].key)
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


def _check_names(scope: str, key: str) -> None:
    if check_scope(scope) == SNAPSHOT_SCOPE:
        raise NameInvalid("scope", scope, "is where named snapshots are kept; choose another")
    directory_of_scope(scope)
    check_key(key)
