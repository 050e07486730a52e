"""Between values of the vault and values on the wire."""

from __future__ import annotations

from taskvault.protocol.messages import Entry, SnapshotRef
from tvfs.content.snapshot import Snapshot
from tvfs.digest import Digest
from tvfs.errors import TaskVaultError
from tvfs.vault.entries import StoredEntry, StoredSnapshot


class Rejected(TaskVaultError):
    """A request asks for something that no request may ask for; an error of the program that sent it."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The daemon refused the request: {reason}. This is an error of the program that sent it.")
        self.reason = reason


def snapshot_from(ref: SnapshotRef) -> Snapshot:
    """Return the snapshot; raise `DigestInvalid`."""
    attributes = None if ref.attributes is None else Digest.parse(ref.attributes)
    return Snapshot(Digest.parse(ref.tree), attributes, ref.index, ref.files, ref.size)


def ref_of(snapshot: Snapshot) -> SnapshotRef:
    """Return the snapshot as it goes over the wire."""
    attributes = None if snapshot.attributes is None else str(snapshot.attributes)
    return SnapshotRef(str(snapshot.tree), attributes, snapshot.index, snapshot.files, snapshot.size)


def stored_from(ref: SnapshotRef) -> StoredSnapshot:
    """Return the snapshot as a row keeps it."""
    return StoredSnapshot(ref.tree, ref.attributes, ref.index, ref.files, ref.size)


def ref_of_stored(stored: StoredSnapshot) -> SnapshotRef:
    """Return a stored snapshot as it goes over the wire."""
    return SnapshotRef(stored.tree, stored.attributes, stored.index, stored.files, stored.size)


def entry_of(stored: StoredEntry) -> Entry:
    """Return a stored entry as it goes over the wire."""
    return Entry(
        scope=stored.scope,
        key=stored.key,
        kind=stored.kind,
        created_ns=stored.created_ns,
        used_ns=stored.used_ns,
        snapshot=None if stored.snapshot is None else ref_of_stored(stored.snapshot),
        result=stored.result,
        cost_ns=stored.cost_ns,
        observed=stored.observed,
        uses=stored.uses,
        pinned=stored.pinned,
        expires_ns=stored.expires_ns,
    )
