"""What the mount shows of entries: `keys/<scope>/<key>`, `runs/<run>`, `snapshots/<name>`.

A view is derived from an entry.  The two are changed in one synchronous block, but not in one batch; so that a kill
between them leaves no view that disagrees with its entry, a row says which view is being changed, and the next start
sets it right.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tvfs.catalog.catalog import Batch, Catalog, Family, prefix_end
from tvfs.content.snapshot import Snapshot
from tvfs.digest import Digest
from tvfs.filesystem.filesystem import Filesystem
from tvfs.filesystem.model import KEYS, RUNS, SNAPSHOTS, Ino
from tvfs.filesystem.posix_error import NotFound
from tvfs.vault.entries import EntryInvalid, EntryTable, StoredEntry, StoredSnapshot
from tvfs.vault.names import NameInvalid
from tvfs.vault.stored_entry import PATHS as PATHS
from tvfs.vault.stored_entry import RUN as RUN
from tvfs.vault.stored_entry import SAVED as SAVED
from tvfs.vault.stored_entry import SNAPSHOT as SNAPSHOT

SNAPSHOT_SCOPE = ".snapshots"
"""Entries of this scope are snapshots, by name or, kept for a time, by digest; no client saves keys in it."""

_CHANGING = b"view:"
"""Rows of family `sys`, followed by scope, 0x00, key: the view is being changed."""
SHOWN_RUN = b"run:"
"""Rows of family `sys`, followed by scope, 0x00, key: under which run id a run entry is shown, in decimal."""

_MAX_NAME_BYTES = 255


class EntryViews:
    """The owner's only, synchronous."""

    def __init__(self, catalog: Catalog, filesystem: Filesystem, entries: EntryTable) -> None:
        self._catalog = catalog
        self._filesystem = filesystem
        self._entries = entries

    @contextmanager
    def changing(self, scope: str, key: str) -> Iterator[None]:
        """Put this around changing an entry and its view: after an error the view is as the entry is.

        After a kill, or if the view cannot be set right either, the next start does it.
        """
        row_key = _CHANGING + _row_key(scope, key)
        batch = Batch()
        batch.put(Family.SYS, row_key, b"")
        self._catalog.write(batch)
        try:
            yield
        except Exception:
            self._settle(row_key)
            raise
        self._forget(row_key)

    def show(self, entry: StoredEntry) -> None:
        """Show an entry instead of what was shown under its key; a run is shown by `show_run`."""
        if entry.snapshot is None or entry.kind in (RUN, PATHS):
            return
        if entry.scope == SNAPSHOT_SCOPE and entry.expires_ns:
            return  # it has no name, only a digest
        parent, name = self._place(entry.scope, entry.key)
        self._replace(parent, name, entry.snapshot)

    def hide(self, scope: str, key: str) -> None:
        """Show nothing under this key any more."""
        run = self._catalog.get(Family.SYS, SHOWN_RUN + _row_key(scope, key))
        if run is not None:
            self._discard(RUNS, run)
            batch = Batch()
            batch.delete(Family.SYS, SHOWN_RUN + _row_key(scope, key))
            self._catalog.write(batch)
        with suppress(NotFound):  # no key of this scope was ever shown
            self._discard(*self._place(scope, key, make=False))

    def show_run(self, entry: StoredEntry, run: int) -> None:
        """Show a run entry under the id of the run that made it."""
        if entry.snapshot is None:
            return
        self.hide(entry.scope, entry.key)
        batch = Batch()
        batch.put(Family.SYS, SHOWN_RUN + _row_key(entry.scope, entry.key), str(run).encode())
        self._catalog.write(batch)
        self._replace(RUNS, str(run).encode(), entry.snapshot)

    def repair(self) -> list[tuple[str, str]]:
        """Set right what a kill or an error left in the middle; return what it was.  Before anything is served."""
        left = [key for key, _ in self._catalog.scan(Family.SYS, _CHANGING, prefix_end(_CHANGING))]
        for row_key in left:
            self._settle(row_key)
        return [_names_of(row_key) for row_key in left]

    def _settle(self, row_key: bytes) -> None:
        scope, key = _names_of(row_key)
        try:
            entry = self._entries.get(scope, key)
        except EntryInvalid:  # whoever asks for it is told; of a damaged row nothing can be shown
            entry = None
        run = self._catalog.get(Family.SYS, SHOWN_RUN + _row_key(scope, key))
        if entry is None:
            self.hide(scope, key)
        elif entry.kind == RUN and run is not None:
            self.show_run(entry, int(run))
        else:
            self.show(entry)
        self._forget(row_key)

    def _forget(self, row_key: bytes) -> None:
        batch = Batch()
        batch.delete(Family.SYS, row_key)
        self._catalog.write(batch)

    def _place(self, scope: str, key: str, *, make: bool = True) -> tuple[Ino, bytes]:
        if scope == SNAPSHOT_SCOPE:
            return SNAPSHOTS, key.encode()
        directory = directory_of_scope(scope)
        if make:
            return self._filesystem.ensure_directory(KEYS, directory), key.encode()
        return self._filesystem.resolve(directory, KEYS), key.encode()

    def _replace(self, parent: Ino, name: bytes, snapshot: StoredSnapshot) -> None:
        self._discard(parent, name)
        self._filesystem.attach(parent, name, _snapshot(snapshot), owner=None, read_only=True)

    def _discard(self, parent: Ino, name: bytes) -> None:
        with suppress(NotFound):
            self._filesystem.discard(parent, name)


def directory_of_scope(scope: str) -> bytes:
    """Return the name below `keys/` that a scope is shown under; raise `NameInvalid` if that would be too long."""
    name = scope.replace("%", "%25").replace("/", "%2F").encode()
    if len(name) > _MAX_NAME_BYTES:
        raise NameInvalid("scope", scope, "is too long for a directory, where each '/' takes three bytes; shorten it")
    return name


def _row_key(scope: str, key: str) -> bytes:
    return scope.encode() + b"\0" + key.encode()


def _names_of(row_key: bytes) -> tuple[str, str]:
    scope, _, key = row_key.removeprefix(_CHANGING).decode().partition("\0")
    return scope, key


def _snapshot(stored: StoredSnapshot) -> Snapshot:
    attributes = None if stored.attributes is None else Digest.parse(stored.attributes)
    return Snapshot(Digest.parse(stored.tree), attributes, stored.index, stored.files, stored.size)
