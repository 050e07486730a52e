"""Named snapshots, and finding a snapshot by what people write."""

from __future__ import annotations

from itertools import islice

import trio

from tvd.control.wire import ref_of, stored_from
from tvd.entry_views import SNAPSHOT, SNAPSHOT_SCOPE, EntryViews
from tvfs.catalog.catalog import Family
from tvfs.content.snapshot import Snapshot
from tvfs.content.tree_index import TreeIndexMissing, decode_root, tree_index_id
from tvfs.digest import Digest, DigestInvalid
from tvfs.errors import TaskVaultError
from tvfs.vault.entries import KeyExists, StoredEntry, StoredSnapshot
from tvfs.vault.names import NameInvalid, check_key
from tvfs.vault.vault import Vault

SLICE = 256
"""Rows of tree indexes looked at before others get their turn."""


class SnapshotMissing(TaskVaultError):
    """No snapshot is known by that name, or its content is not there."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"There is no snapshot {name!r}; name one with `tv snapshot PATH NAME`, or give a tree's digest."
        )
        self.name = name


class NameExists(TaskVaultError):
    """A snapshot has the name already."""

    def __init__(self, name: str) -> None:
        super().__init__(f"There is a snapshot {name!r} already; replace it with --replace, or choose another name.")
        self.name = name


class Snapshots:
    """A named snapshot is an entry in a scope of its own, and shown as `snapshots/<name>`."""

    def __init__(self, vault: Vault, views: EntryViews) -> None:
        self._vault = vault
        self._views = views

    def check(self, snapshot: Snapshot) -> None:
        """Raise `SnapshotMissing` unless exactly this snapshot was committed."""
        try:
            root = decode_root(snapshot.index, self._vault.catalog.get(Family.TREE, snapshot.index))
        except TreeIndexMissing:
            raise SnapshotMissing(str(snapshot.tree)) from None
        if root.snapshot(snapshot.index) != snapshot:
            raise SnapshotMissing(str(snapshot.tree))

    async def name(self, name: str, snapshot: Snapshot, *, who: str, replace: bool) -> None:
        """Show a snapshot under a name, durably; raise `NameInvalid`, `NameExists` or `SnapshotMissing`."""
        _check_name(name)
        self.check(snapshot)
        entries = self._vault.entries
        if not replace and entries.exists(SNAPSHOT_SCOPE, name):
            raise NameExists(name)
        now_ns = self._vault.clock.now_ns()
        kept = stored_from(ref_of(snapshot))
        entry = StoredEntry(SNAPSHOT_SCOPE, name, SNAPSHOT, created_ns=now_ns, used_ns=now_ns, snapshot=kept)
        # One synchronous block: `put` writes its batch before it first waits.
        with self._views.changing(SNAPSHOT_SCOPE, name):
            self._views.show(entry)
            try:
                await entries.put(entry, who=who, replace=replace)
            except KeyExists as exc:  # cannot be: nothing was awaited since we looked
                raise AssertionError from exc

    async def find(self, wanted: str) -> Snapshot:
        """Return the snapshot with this name, or one of this tree digest; raise `SnapshotMissing`."""
        try:
            tree = Digest.parse(wanted)
        except DigestInvalid:
            return self._named(wanted)
        return await self._of_tree(tree)

    def _named(self, name: str) -> Snapshot:
        try:
            entry = self._vault.entries.get(SNAPSHOT_SCOPE, name)
        except NameInvalid:
            raise SnapshotMissing(name) from None
        if entry is None or entry.snapshot is None:
            raise SnapshotMissing(name)
        return snapshot_of(entry.snapshot)

    async def _of_tree(self, tree: Digest) -> Snapshot:
        catalog = self._vault.catalog
        bare = tree_index_id(self._vault.hash_function.digest, tree.hash, None)
        row = catalog.get(Family.TREE, bare)
        found = None if row is None else decode_root(bare, row).snapshot(bare)
        # With attributes rather than without: whoever saved the tree had them.
        start = b""
        while True:
            # A scan is not kept open while others run, so it is begun anew after each slice.
            part = list(islice(catalog.scan(Family.TREE, start), SLICE))
            for index, row in part:
                snapshot = decode_root(index, row).snapshot(index)
                if snapshot.tree == tree and snapshot.attributes is not None:
                    return snapshot
            if len(part) < SLICE:
                break
            start = part[-1][0] + b"\0"
            await trio.lowlevel.checkpoint()
        if found is None or found.tree != tree:
            raise SnapshotMissing(str(tree))
        return found


def snapshot_of(stored: StoredSnapshot) -> Snapshot:
    """Return a stored snapshot."""
    attributes = None if stored.attributes is None else Digest.parse(stored.attributes)
    return Snapshot(Digest.parse(stored.tree), attributes, stored.index, stored.files, stored.size)


def _check_name(name: str) -> None:
    check_key(name)
    try:
        Digest.parse(name)
    except DigestInvalid:
        return
    raise NameInvalid("snapshot name", name, "reads like a digest; choose another")
