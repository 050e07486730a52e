"""What a power loss leaves of commits: the catalog's twin tells what was flushed, the writer what was synced."""

from __future__ import annotations

from pathlib import Path

import pytest

from tvfs import failpoints
from tvfs.catalog.catalog import Family
from tvfs.catalog.memory import MemoryCatalog
from tvfs.clock import ManualClock
from tvfs.digest import ChunkId
from tvfs.ingest.commit import ChunkRecord, IngestCommit
from tvfs.packs.pack_directory import PackDirectory
from tvfs.packs.pack_writer import PackWriter
from tvfs.plugin_api import PluginRegistry
from tvfs.vault.audit import AuditLog
from tvfs.vault.commit import Committer
from tvfs.vault.counters import Counters
from tvfs.vault.leases import Leases
from tvfs.vault.pack_grants import PackGrants
from tvfs.vault.recovery import recover
from tvfs.vault.reservations import Reservations
from tvfs.vault.room import Room

UUID = bytes(16)


class SmallVault:
    """The parts that a commit goes through, above a catalog in memory."""

    def __init__(self, catalog: MemoryCatalog, directory: Path, registry: PluginRegistry) -> None:
        self.catalog = catalog
        self.hash_function = registry.hash_function("blake3")
        self.packs = PackDirectory(directory, UUID)
        self.counters = Counters(catalog)
        self.report = recover(catalog, self.packs, self.counters, AuditLog(catalog, ManualClock()))
        room = Room(Reservations(1 << 30, self.packs.allocated_bytes))
        self.grants = PackGrants(catalog, self.packs, self.counters, room)
        self.committer = Committer(
            catalog=catalog,
            packs=self.packs,
            grants=self.grants,
            leases=Leases(),
            hash_function=self.hash_function,
            codec_ids={0},
        )

    def writer(self) -> PackWriter:
        grant = self.grants.grant_blocking("holder", 0)
        return PackWriter(grant.descriptor, grant.number, UUID)

    async def store(self, writer: PackWriter, raw: bytes) -> None:
        chunk_id = ChunkId(self.hash_function.digest(raw))
        at = writer.append(chunk_id, len(raw), 0, raw)
        writer.sync()
        record = ChunkRecord(chunk_id, at.pack, at.offset, at.stored_bytes, at.raw_bytes, at.codec)
        assert await self.committer.commit(IngestCommit(chunks=[record]), "holder") == []

    def has(self, raw: bytes) -> bool:
        return self.catalog.get(Family.CHUNK, self.hash_function.digest(raw)) is not None


async def test_an_acknowledged_commit_survives(tmp_path: Path, registry: PluginRegistry) -> None:
    vault = SmallVault(MemoryCatalog(), tmp_path, registry)
    writer = vault.writer()
    await vault.store(writer, b"acknowledged")
    writer.close()
    after = SmallVault(vault.catalog.crash_copy(durable_only=True), tmp_path, registry)
    assert after.has(b"acknowledged")
    assert not after.report.damaged
    assert after.packs.size(writer.number) == vault.packs.size(writer.number)


@pytest.mark.parametrize("durable_only", [True, False])
async def test_a_commit_cut_off_after_its_batch_is_whole_or_absent(
    tmp_path: Path, registry: PluginRegistry, durable_only: bool
) -> None:
    class Crash(BaseException):
        pass

    def crash() -> None:
        raise Crash

    vault = SmallVault(MemoryCatalog(), tmp_path, registry)
    writer = vault.writer()
    await vault.store(writer, b"acknowledged")
    failpoints.arm("commit.after_batch", crash)
    try:
        with pytest.raises(Crash):
            await vault.store(writer, b"cut off")
    finally:
        failpoints.disarm_all()
    writer.close()
    after = SmallVault(vault.catalog.crash_copy(durable_only=durable_only), tmp_path, registry)
    assert after.has(b"acknowledged")
    assert after.has(b"cut off") is not durable_only
    assert bool(after.report.truncated_packs) is durable_only
    assert not after.report.damaged
