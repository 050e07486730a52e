"""Named snapshots, and finding a snapshot by what people write."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import islice

import trio

from tvd.control.wire import ref_of, stored_from
from tvd.entry_views import SNAPSHOT, SNAPSHOT_SCOPE, EntryViews
from tvfs.catalog.catalog import Family
from tvfs.content.ingress import TreeForeign, TreeIncomplete
from tvfs.content.snapshot import Snapshot
from tvfs.content.tree_index import TreeIndexMissing, decode_root, tree_index_id
from tvfs.digest import Digest, DigestInvalid
from tvfs.errors import TaskVaultError
from tvfs.vault.entries import KeyExists, StoredEntry, StoredSnapshot
from tvfs.vault.foreign_trees import take_foreign_tree
from tvfs.vault.names import NameInvalid, check_key
from tvfs.vault.vault import Vault

UNNAMED_KEPT_S = 7 * 86_400
"""How long a snapshot without a name can be attached by its digest, unless room is needed: it may be evicted."""

SLICE = 64
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
    """A named snapshot is an entry in a scope of its own, and shown as `snapshots/<name>`.

    One without a name is an entry there too, under its tree's digest; it has a time to live and is not shown.
    """

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
        """Show a snapshot under a name, durably; raise `NameInvalid`, `NameExists` or `SnapshotMissing`.

        If the name is the digest of its tree, it is kept for `UNNAMED_KEPT_S` and not shown.
        """
        if name == str(snapshot.tree):
            await self._keep_unnamed(snapshot, who=who)
            return
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

    async def remove(self, name: str, *, who: str) -> None:
        """Forget a snapshot by its name, or one without a name by its digest, durably; raise `SnapshotMissing`."""
        key = _key_of(name)
        if self._entry(key, count_use=False) is None:
            raise SnapshotMissing(name)
        with self._views.changing(SNAPSHOT_SCOPE, key):
            self._views.hide(SNAPSHOT_SCOPE, key)
            await self._vault.entries.remove(SNAPSHOT_SCOPE, key, who=who)

    async def find(self, wanted: str, *, holder: Hashable = None) -> Snapshot:
        """Return the snapshot with this name, or one of this tree digest; raise `SnapshotMissing`.

        It counts as a use.  A tree of which the vault has no more than the messages is checked and made attachable
        first, and is held for the holder; raises what `take_foreign_tree` does of one that cannot be.
        """
        entry = self._entry(_key_of(wanted), count_use=True)
        if entry is not None and entry.snapshot is not None:
            return snapshot_of(entry.snapshot)
        try:
            tree = Digest.parse(wanted)
        except DigestInvalid:
            raise SnapshotMissing(wanted) from None
        return await self._of_tree(tree) or await self._foreign(tree, holder)

    async def _keep_unnamed(self, snapshot: Snapshot, *, who: str) -> None:
        self.check(snapshot)
        now_ns = self._vault.clock.now_ns()
        entry = StoredEntry(
            SNAPSHOT_SCOPE,
            str(snapshot.tree),
            SNAPSHOT,
            created_ns=now_ns,
            used_ns=now_ns,
            snapshot=stored_from(ref_of(snapshot)),
            expires_ns=now_ns + UNNAMED_KEPT_S * 1_000_000_000,
        )
        await self._vault.entries.put(entry, who=who, replace=True)

    def _entry(self, key: str, *, count_use: bool) -> StoredEntry | None:
        try:
            return self._vault.entries.get(SNAPSHOT_SCOPE, key, count_use=count_use)
        except NameInvalid:
            return None

    async def _foreign(self, tree: Digest, holder: Hashable) -> Snapshot:
        try:
            return await take_foreign_tree(self._vault, tree, holder=holder)
        except TreeForeign:
            raise SnapshotMissing(str(tree)) from None
        except TreeIncomplete as exc:
            if exc.missing != tree:
                raise
            raise SnapshotMissing(str(tree)) from None

    async def _of_tree(self, tree: Digest) -> Snapshot | None:
        catalog = self._vault.catalog
        bare = tree_index_id(self._vault.hash_function.digest, tree.hash, None)
        found = _readable(bare, catalog.get(Family.TREE, bare))
        # With attributes rather than without: whoever saved the tree had them.
        start = b""
        while True:
            # A scan is not kept open while others run, so it is begun anew after each slice.
            part = list(islice(catalog.scan(Family.TREE, start), SLICE))
            for index, row in part:
                snapshot = _readable(index, row)
                if snapshot is not None and snapshot.tree == tree and snapshot.attributes is not None:
                    return snapshot
            if len(part) < SLICE:
                break
            start = part[-1][0] + b"\0"
            await trio.lowlevel.checkpoint()
        return found if found is not None and found.tree == tree else None


def _readable(index: bytes, row: bytes | None) -> Snapshot | None:
    """Return the snapshot of a root; None if there is none, or none that can be read."""
    try:
        return decode_root(index, row).snapshot(index)
    except TreeIndexMissing:
        return None


def snapshot_of(stored: StoredSnapshot) -> Snapshot:
    """Return a stored snapshot."""
    attributes = None if stored.attributes is None else Digest.parse(stored.attributes)
    return Snapshot(Digest.parse(stored.tree), attributes, stored.index, stored.files, stored.size)


def _key_of(wanted: str) -> str:
    """Return the key of a name; a digest is written in one way only."""
    try:
        return str(Digest.parse(wanted))
    except DigestInvalid:
        return wanted


def _check_name(name: str) -> None:
    check_key(name)
    try:
        Digest.parse(name)
    except DigestInvalid:
        return
    raise NameInvalid("snapshot name", name, "reads like a digest; choose another")
