"""Snapshots as messages write them, and back."""

from __future__ import annotations

from taskvault.protocol.messages import SnapshotRef
from tvfs.content.snapshot import Snapshot
from tvfs.digest import Digest


def reference(snapshot: Snapshot) -> SnapshotRef:
    """Return a snapshot as messages write it."""
    attributes = None if snapshot.attributes is None else str(snapshot.attributes)
    return SnapshotRef(str(snapshot.tree), attributes, snapshot.index, snapshot.files, snapshot.size)


def dereference(ref: SnapshotRef) -> Snapshot:
    """Return the snapshot that a message names; raise `DigestInvalid`."""
    attributes = None if ref.attributes is None else Digest.parse(ref.attributes)
    return Snapshot(Digest.parse(ref.tree), attributes, ref.index, ref.files, ref.size)
