"""No space: a clear error, nothing acknowledged is lost, and everything works again when there is space."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pack_sender import PackSender
from tvfs import failpoints
from tvfs.catalog.rocks import CatalogFull
from tvfs.digest import ChunkId
from tvfs.packs.pack_writer import DiskFull
from tvfs.plugin_api import PluginRegistry
from tvfs.vault.create import create_vault
from tvfs.vault.entries import StoredEntry
from tvfs.vault.superblock import MIN_CAPACITY_BYTES, VaultSettings
from tvfs.vault.vault import Vault, open_vault


@pytest.mark.usefixtures("armed")
async def test_an_append_without_space_is_refused_and_can_be_tried_again(
    vault_home: Path, registry: PluginRegistry
) -> None:
    async with open_vault(vault_home, registry) as vault:
        before = await vault.chunks.put(b"before")
        await vault.chunks.flush()
        failpoints.arm_from("commit.before_append=enospc")
        sender = PackSender(vault, "client")
        record = sender.append(b"from a client")
        with pytest.raises(DiskFull, match="free some space"):
            sender.writer.sync()
        kept = await vault.chunks.put(b"kept until there is space")
        with pytest.raises(DiskFull, match="free some space"):
            await vault.chunks.flush()
        assert await vault.chunks.get(before) == b"before"
        failpoints.disarm_all()
        await vault.chunks.flush()
        assert await vault.chunks.get(kept) == b"kept until there is space"
        sender.writer.sync()
        sender.end()
        assert record.pack not in vault.packs.numbers()
    async with open_vault(vault_home, registry) as vault:
        assert vault.recovery.clean
        assert await vault.chunks.get(kept) == b"kept until there is space"


async def store_until_full(vault: Vault, stored: dict[ChunkId, bytes]) -> None:
    """Add to `stored` what the vault acknowledged, until it refuses."""
    for number in range(100):
        raw = os.urandom(100_000) + b"%d" % number
        chunk_id = await vault.chunks.put(raw)
        await vault.chunks.flush()
        stored[chunk_id] = raw


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 24 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


async def test_a_disk_that_fills_up_and_is_freed_again(small_disk: Path, registry: PluginRegistry) -> None:
    home = small_disk / "home"
    create_vault(home, settings=VaultSettings(capacity_bytes=MIN_CAPACITY_BYTES), registry=registry)
    ballast = small_disk / "ballast"
    stored: dict[ChunkId, bytes] = {}
    async with open_vault(home, registry) as vault:
        ballast.write_bytes(bytes(os.statvfs(small_disk).f_bavail * 4096 - (3 << 20)))
        with pytest.raises(DiskFull, match="free some space"):
            await store_until_full(vault, stored)
        assert 10 < len(stored) < 40
        for chunk_id, raw in stored.items():
            assert await vault.chunks.get(chunk_id) == raw
        ballast.unlink()
        await vault.chunks.flush()
        again = await vault.chunks.put(b"again")
        await vault.chunks.flush()
    async with open_vault(home, registry) as vault:
        assert not vault.recovery.damaged
        for chunk_id, raw in stored.items():
            assert await vault.chunks.get(chunk_id) == raw
        assert await vault.chunks.get(again) == b"again"


async def test_a_catalog_without_space_acknowledges_nothing_and_recovers(
    small_disk: Path, registry: PluginRegistry
) -> None:
    home = small_disk / "home"
    create_vault(home, settings=VaultSettings(capacity_bytes=MIN_CAPACITY_BYTES), registry=registry)
    ballast = small_disk / "ballast"
    saved: list[str] = []
    async with open_vault(home, registry) as vault:
        ballast.write_bytes(bytes(os.statvfs(small_disk).f_bavail * 4096 - 300_000))
        with pytest.raises(CatalogFull, match="free some space"):
            await save_until_full(vault, saved)
        assert saved
        for key in saved:
            assert vault.entries.get("main", key) is not None
        with pytest.raises(CatalogFull):
            await vault.entries.put(StoredEntry("main", "too early", "saved", 1, 1), who="x")
        ballast.unlink()
        await vault.entries.put(StoredEntry("main", "in time", "saved", 1, 1), who="x")
        saved.append("in time")
    async with open_vault(home, registry) as vault:
        for key in saved:
            assert vault.entries.get("main", key) is not None
        assert vault.audit.verify() >= len(saved)
        await vault.entries.put(StoredEntry("main", "again", "saved", 1, 1), who="x")


async def save_until_full(vault: Vault, saved: list[str]) -> None:
    """Add to `saved` the keys that the vault acknowledged, until it refuses."""
    for number in range(2000):
        entry = StoredEntry("main", f"{number}", "run", 1, 1, result=os.urandom(20_000))
        await vault.entries.put(entry, who="x")
        saved.append(entry.key)
