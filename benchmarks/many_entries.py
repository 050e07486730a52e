"""Fills a vault with entries as the daemon would, without a client for each: a million take minutes, not hours."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import trio

from benchmarks.pairs import run
from benchmarks.workplace import TV, fresh
from tvd.entry_views import SAVED, EntryViews
from tvfs.clock import SystemClock
from tvfs.content.attributes import OwnAttributes
from tvfs.content.snapshot import Snapshot
from tvfs.content.tree_builder import TreeBuilder
from tvfs.content.tree_index import REGULAR, IndexEntry
from tvfs.filesystem.filesystem import Filesystem
from tvfs.filesystem.lookups import LookupCounts
from tvfs.filesystem.owner_port import OwnerPort
from tvfs.filesystem.settings import FilesystemSettings
from tvfs.ingest.ingest import Ingest
from tvfs.plugin_api import PluginRegistry
from tvfs.vault.entries import StoredEntry, StoredSnapshot
from tvfs.vault.vault import Vault, open_vault

BATCH = 1_000
FILE_BYTES = 600


def key_of(number: int) -> str:
    """Return the key of an entry."""
    return f"key-{number:07d}"


def filled(cache: Path, count: int) -> Path:
    """Return a stopped vault with so many entries; it is filled once and kept, so copy it."""
    home = cache / f"entries-vault-{count}"
    if not home.exists():
        partial = fresh(cache / "entries-vault.partial")
        run(*TV, "init", str(partial), "--size", "40G")
        fill(partial, count)
        _rank(partial)
        partial.rename(home)
    return home


def _rank(home: Path) -> None:
    """Have the daemon give every entry its rank, as it did for those that were saved through it."""
    run(*TV, "--home", str(home), "up", "--no-mount")
    while "every entry is ranked" not in (home / "tvd.log").read_text():
        time.sleep(1)
    run(*TV, "--home", str(home), "down")


def fill(home: Path, count: int) -> None:
    """Save `count` entries, each with a small file of its own; the vault must be stopped."""
    trio.run(_fill, home, count)


async def _fill(home: Path, count: int) -> None:
    clock = SystemClock()
    async with open_vault(home, PluginRegistry()) as vault:
        filesystem = Filesystem(vault, clock=clock, settings=FilesystemSettings(), lookups=LookupCounts())
        filesystem.start()
        views = EntryViews(vault.catalog, filesystem, vault.entries)
        port = OwnerPort(vault, "benchmark")
        for first in range(0, count, BATCH):
            numbers = range(first, min(first + BATCH, count))
            snapshots = await trio.to_thread.run_sync(_store, port, numbers)
            async with trio.open_nursery() as saving:
                for number, snapshot in zip(numbers, snapshots, strict=True):
                    saving.start_soon(_save, vault, views, key_of(number), snapshot)
            port.end_batch()
            print(f"\r  {numbers.stop} of {count} entries ", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        port.close()
        await filesystem.aclose()


def _store(port: OwnerPort, numbers: range) -> list[Snapshot]:
    builder = TreeBuilder(port.settings.hash_function)
    own = OwnAttributes(0o755, 0, 0, 1, ())
    built = []
    with Ingest(port, port.settings) as ingest:
        for number in numbers:
            content = ingest.add_bytes((b"%015d," % number) * (FILE_BYTES // 16))
            file = IndexEntry(b"result", REGULAR, 0o644, 0, 0, 1, content.size, int(content.kind), content.hash)
            directory = builder.build(own, [file])
            ingest.add_directory(directory)
            built.append(directory.directory.snapshot)
        ingest.finish()
    return built


async def _save(vault: Vault, views: EntryViews, key: str, snapshot: Snapshot) -> None:
    now_ns = time.time_ns()
    attributes = None if snapshot.attributes is None else str(snapshot.attributes)
    stored = StoredSnapshot(str(snapshot.tree), attributes, snapshot.index, snapshot.files, snapshot.size)
    entry = StoredEntry("main", key, SAVED, created_ns=now_ns, used_ns=now_ns, snapshot=stored)
    # As the daemon's handler does it: `put` writes its batch before it first waits.
    with views.changing("main", key):
        views.show(entry)
        await vault.entries.put(entry, who="benchmark")
