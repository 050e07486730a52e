"""Entries: what keys find.  Family `entry`, key `scope, 0x00, key`."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tvfs.catalog.catalog import Batch, Catalog, Family, prefix_end
from tvfs.clock import Clock
from tvfs.errors import TaskVaultError
from tvfs.vault.audit import AuditLog
from tvfs.vault.names import check_key, check_scope

VERSION = b"\x01"
"""First byte of every row; the rest is a msgpack `StoredEntry`."""


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


class EntryInvalid(TaskVaultError):
    """A stored entry cannot be read."""

    def __init__(self, scope: str, key: str, reason: str) -> None:
        super().__init__(
            f"The entry {key!r} in scope {scope!r} is damaged ({reason});"
            " remove it with `tv cache rm` and save it again."
        )


class StoredSnapshot(msgspec.Struct, frozen=True):
    """A snapshot in a row: digests as `str(Digest)` writes them."""

    tree: str
    attributes: str | None
    index: bytes
    files: int
    size: int


class StoredEntry(msgspec.Struct, frozen=True):
    """Something a key finds."""

    scope: str
    key: str
    kind: str
    """`saved` (a set of paths) or `run` (an action result)."""
    created_ns: int
    used_ns: int
    snapshot: StoredSnapshot | None = None
    result: bytes = b""
    """For `run`: the serialised REAPI `ActionResult`."""
    cost_ns: int = 0
    """What it took to make: wall time of the command."""
    observed: str = "declared"
    uses: int = 0


class EntryTable:
    """The entries of a vault.  A change and its audit record are one batch, on the disk when the call returns."""

    def __init__(self, catalog: Catalog, audit: AuditLog, clock: Clock) -> None:
        self._catalog = catalog
        self._audit = audit
        self._clock = clock
        self._count: int | None = None

    def get(self, scope: str, key: str, *, count_use: bool = False) -> StoredEntry | None:
        """Return the entry, or None; raise `NameInvalid` or `EntryInvalid`.

        `count_use` notes that it was used now: a figure for eviction, written without waiting and without audit.
        """
        row_key = _row_key(scope, key)
        row = self._catalog.get(Family.ENTRY, row_key)
        if row is None:
            return None
        entry = _decode(row_key, row)
        if count_use:
            entry = msgspec.structs.replace(entry, used_ns=self._clock.now_ns(), uses=entry.uses + 1)
            batch = Batch()
            batch.put(Family.ENTRY, row_key, _encode(entry))
            self._catalog.write(batch)
        return entry

    def exists(self, scope: str, key: str) -> bool:
        """Whether the key finds anything, readable or not; raise `NameInvalid`."""
        return self._catalog.get(Family.ENTRY, _row_key(scope, key)) is not None

    async def put(self, entry: StoredEntry, *, who: str, replace: bool = False) -> None:
        """Bind the key to the entry, durably; raise `KeyExists` unless `replace`, or `NameInvalid`.

        The content must have been committed before.
        """
        row_key = _row_key(entry.scope, entry.key)
        existed = self._catalog.get(Family.ENTRY, row_key) is not None
        if existed and not replace:
            raise KeyExists(entry.scope, entry.key)
        batch = Batch()
        batch.put(Family.ENTRY, row_key, _encode(entry))
        self._audit.append_to(
            batch,
            action="replace" if existed else "save",
            scope=entry.scope,
            key=entry.key,
            who=who,
            detail=f"{entry.kind} {entry.snapshot.tree}" if entry.snapshot else entry.kind,
        )
        self._catalog.write(batch)
        if self._count is not None and not existed:
            self._count += 1
        await self._catalog.flush()

    async def remove(self, scope: str, key: str, *, who: str) -> None:
        """Forget the entry, durably; raise `KeyMissing` or `NameInvalid`.  Also removes one that cannot be read."""
        row_key = _row_key(scope, key)
        if self._catalog.get(Family.ENTRY, row_key) is None:
            raise KeyMissing(scope, key)
        batch = Batch()
        batch.delete(Family.ENTRY, row_key)
        self._audit.append_to(batch, action="remove", scope=scope, key=key, who=who)
        self._catalog.write(batch)
        if self._count is not None:
            self._count -= 1
        await self._catalog.flush()

    def list_entries(
        self, scope: str | None = None, *, after: tuple[str, str] | None = None, limit: int = 1000
    ) -> list[StoredEntry]:
        """Return up to `limit` entries in the order of their rows, of one scope or of all, after `(scope, key)`."""
        prefix = b"" if scope is None else check_scope(scope).encode() + b"\0"
        start = prefix
        if after is not None:
            start = max(start, _row_key(*after) + b"\0")
        found: list[StoredEntry] = []
        for row_key, row in self._catalog.scan(Family.ENTRY, start, prefix_end(prefix) if prefix else None):
            if len(found) >= limit:
                break
            found.append(_decode(row_key, row))
        return found

    def scopes(self) -> Iterator[str]:
        """Yield every scope that has an entry, in order; one look-up each, however many entries it has."""
        start = b""
        while (row := next(self._catalog.scan(Family.ENTRY, start), None)) is not None:
            scope, _, _ = row[0].partition(b"\0")
            yield scope.decode()
            start = scope + b"\x01"

    def count(self) -> int:
        """How many entries there are; the first call counts them, 1 µs each."""
        if self._count is None:
            self._count = sum(1 for _ in self._catalog.scan(Family.ENTRY))
        return self._count


def _row_key(scope: str, key: str) -> bytes:
    return check_scope(scope).encode() + b"\0" + check_key(key).encode()


def _encode(entry: StoredEntry) -> bytes:
    return VERSION + msgspec.msgpack.encode(entry)


def _decode(row_key: bytes, row: bytes) -> StoredEntry:
    scope, _, key = row_key.decode(errors="replace").partition("\0")
    if row[:1] != VERSION:
        raise EntryInvalid(scope, key, f"format version {row[0] if row else 'none'}")
    try:
        entry = msgspec.msgpack.decode(memoryview(row)[1:], type=StoredEntry)
    except msgspec.MsgspecError as exc:
        raise EntryInvalid(scope, key, str(exc)) from exc
    if (entry.scope, entry.key) != (scope, key):
        raise EntryInvalid(scope, key, "it is another key's")
    return entry
