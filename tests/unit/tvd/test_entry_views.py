from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
import trio

from tvd.entry_views import RUN, SAVED, SNAPSHOT, SNAPSHOT_SCOPE, EntryViews, directory_of_scope
from tvfs.catalog.catalog import Batch, Family
from tvfs.clock import SystemClock
from tvfs.content.snapshot import Snapshot
from tvfs.filesystem.filesystem import Filesystem
from tvfs.filesystem.lookups import LookupCounts
from tvfs.filesystem.model import KEYS, RUNS, SNAPSHOTS, Ino
from tvfs.filesystem.posix_error import NotFound
from tvfs.filesystem.settings import FilesystemSettings
from tvfs.ingest.ingest import Ingest
from tvfs.ingest.tree_walk import save_paths
from tvfs.plugin_api import PluginRegistry
from tvfs.vault.create import create_vault
from tvfs.vault.entries import EntryInvalid, StoredEntry, StoredSnapshot
from tvfs.vault.names import NameInvalid
from tvfs.vault.stored_entry import entry_row_key
from tvfs.vault.superblock import VaultSettings
from tvfs.vault.vault import Vault, open_vault


class Opened:
    """A vault with its filesystem and views."""

    def __init__(self, vault: Vault) -> None:
        self.vault = vault
        self.filesystem = Filesystem(
            vault, clock=SystemClock(), settings=FilesystemSettings(), lookups=LookupCounts(), boot="boot"
        )
        self.filesystem.start()
        self.views = EntryViews(vault.catalog, self.filesystem, vault.entries)

    async def entry(self, directory: Path, name: str, *, scope: str = "main", kind: str = SAVED) -> StoredEntry:
        """Return an entry `key` for a tree with one empty file of this name."""
        (directory / name).touch()
        snapshot = await trio.to_thread.run_sync(self._stored, directory, name)
        attributes = None if snapshot.attributes is None else str(snapshot.attributes)
        stored = StoredSnapshot(str(snapshot.tree), attributes, snapshot.index, snapshot.files, snapshot.size)
        return StoredEntry(scope, "key", kind, created_ns=1, used_ns=1, snapshot=stored)

    def _stored(self, directory: Path, name: str) -> Snapshot:
        port = self.filesystem._port
        with Ingest(port, port.settings) as ingest:
            return save_paths(ingest, os.fsencode(directory), [os.fsencode(name)])

    def names(self, path: bytes, start: Ino) -> list[bytes] | None:
        """Return what is listed at a path, or None if it is not there."""
        try:
            ino = self.filesystem.resolve(path, start)
        except NotFound:
            return None
        return [entry.name for entry in self.filesystem.readdir(ino, 0)]


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opened]:
    registry = PluginRegistry()
    create_vault(tmp_path / "vault", settings=VaultSettings(capacity_bytes=64 << 20), registry=registry)
    async with open_vault(tmp_path / "vault", registry) as vault:
        one = Opened(vault)
        yield one
        await one.filesystem.aclose()


class Killed(BaseException):
    """Nothing of ours runs after it, as after a kill."""


class Broken(Exception):
    """The catalog failed, say."""


async def test_an_entry_is_shown_replaced_and_hidden(opened: Opened, tmp_path: Path) -> None:
    opened.views.show(await opened.entry(tmp_path, "a", scope="pr/1%"))
    assert opened.names(b"pr%2F1%25/key", KEYS) == [b"a"]
    opened.views.show(await opened.entry(tmp_path, "b", scope="pr/1%"))
    assert opened.names(b"pr%2F1%25/key", KEYS) == [b"b"]
    opened.views.hide("pr/1%", "key")
    assert opened.names(b"pr%2F1%25", KEYS) == []
    opened.views.hide("pr/1%", "key")
    opened.views.hide("never", "seen")
    assert opened.names(b"never", KEYS) is None


async def test_a_named_snapshot_is_shown_by_its_name(opened: Opened, tmp_path: Path) -> None:
    entry = await opened.entry(tmp_path, "a", scope=SNAPSHOT_SCOPE, kind=SNAPSHOT)
    opened.views.show(entry)
    await opened.vault.entries.put(entry, who="test")
    assert opened.names(b"key", SNAPSHOTS) == [b"a"]


async def test_a_snapshot_without_a_name_is_not_shown(opened: Opened, tmp_path: Path) -> None:
    entry = await opened.entry(tmp_path, "a", scope=SNAPSHOT_SCOPE, kind=SNAPSHOT)
    opened.views.show(msgspec.structs.replace(entry, expires_ns=1))
    assert opened.names(b"", SNAPSHOTS) == []


async def test_a_run_is_shown_by_its_id_and_only_the_latest_of_an_entry(opened: Opened, tmp_path: Path) -> None:
    entry = await opened.entry(tmp_path, "a", kind=RUN)
    opened.views.show(entry)
    assert opened.names(b"main", KEYS) is None
    opened.views.show_run(entry, 7)
    assert opened.names(b"7", RUNS) == [b"a"]
    opened.views.show_run(await opened.entry(tmp_path, "b", kind=RUN), 8)
    assert opened.names(b"", RUNS) == [b"8"]
    opened.views.hide("main", "key")
    assert opened.names(b"", RUNS) == []


@pytest.mark.parametrize("reached_the_entry", [False, True])
async def test_a_replacement_that_was_cut_short_is_set_right_by_the_next_start(
    opened: Opened, tmp_path: Path, reached_the_entry: bool
) -> None:
    old, new = await opened.entry(tmp_path, "old"), await opened.entry(tmp_path, "new")
    opened.views.show(old)
    await opened.vault.entries.put(old, who="test")
    with suppress(Killed), opened.views.changing("main", "key"):
        opened.views.hide("main", "key")
        opened.views.show(new)
        if reached_the_entry:
            await opened.vault.entries.put(new, who="test", replace=True)
        raise Killed
    assert opened.names(b"main/key", KEYS) == [b"new"]
    assert opened.views.repair() == [("main", "key")]
    assert opened.names(b"main/key", KEYS) == [b"new" if reached_the_entry else b"old"]
    assert opened.views.repair() == []


@pytest.mark.parametrize("existed", [False, True])
async def test_a_change_that_fails_leaves_the_view_as_the_entry_is(
    opened: Opened, tmp_path: Path, existed: bool
) -> None:
    old, new = await opened.entry(tmp_path, "old"), await opened.entry(tmp_path, "new")
    if existed:
        opened.views.show(old)
        await opened.vault.entries.put(old, who="test")
    with suppress(Broken), opened.views.changing("main", "key"):
        opened.views.show(new)
        raise Broken
    assert opened.names(b"main/key", KEYS) == ([b"old"] if existed else None)
    assert opened.views.repair() == []


async def test_a_removal_that_was_cut_short_is_set_right_by_the_next_start(opened: Opened, tmp_path: Path) -> None:
    run = await opened.entry(tmp_path, "a", kind=RUN)
    await opened.vault.entries.put(run, who="test")
    opened.views.show_run(run, 3)
    with suppress(Killed), opened.views.changing("main", "key"):
        await opened.vault.entries.remove("main", "key", who="test")
        raise Killed
    opened.views.repair()
    assert opened.names(b"", RUNS) == []


@pytest.mark.damages_vault("a row of family entry is no entry")
async def test_a_start_goes_on_though_the_entry_of_a_view_is_damaged(opened: Opened, tmp_path: Path) -> None:
    old = await opened.entry(tmp_path, "old")
    opened.views.show(old)
    await opened.vault.entries.put(old, who="test")
    with suppress(Killed), opened.views.changing("main", "key"):
        raise Killed
    batch = Batch()
    batch.put(Family.ENTRY, entry_row_key("main", "key"), b"not an entry")
    opened.vault.catalog.write(batch)
    assert opened.views.repair() == [("main", "key")]
    assert opened.names(b"main/key", KEYS) is None
    with pytest.raises(EntryInvalid):
        opened.vault.entries.get("main", "key")


async def test_a_change_that_was_finished_leaves_nothing_to_set_right(opened: Opened, tmp_path: Path) -> None:
    entry = await opened.entry(tmp_path, "a")
    with opened.views.changing("main", "key"):
        opened.views.show(entry)
        await opened.vault.entries.put(entry, who="test")
    assert opened.views.repair() == []


def test_a_scope_whose_directory_would_be_too_long_is_refused() -> None:
    assert directory_of_scope("a/b") == b"a%2Fb"
    assert len(directory_of_scope("a" * 255)) == 255
    with pytest.raises(NameInvalid, match="too long"):
        directory_of_scope("a/" * 100 + "a")
