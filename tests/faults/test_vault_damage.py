"""Packs that are not what was written: an error, never wrong bytes, and healed by storing the content again."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.pack_sender import PackSender
from tvfs.catalog.catalog import Family
from tvfs.chunks.chunk_row import decode_chunk_row
from tvfs.chunks.store import ChunkDamaged
from tvfs.digest import ChunkId
from tvfs.packs.record import RECORD_HEADER_BYTES
from tvfs.plugin_api import PluginRegistry
from tvfs.vault.vault import Vault, open_vault

pytestmark = pytest.mark.damages_vault("packs are changed, cut and removed")


def contents() -> list[bytes]:
    return [random.Random(number).randbytes(3000) + b"text " * 500 for number in range(8)]


async def store(vault: Vault) -> dict[ChunkId, bytes]:
    stored = {await vault.chunks.put(raw): raw for raw in contents()}
    await vault.chunks.flush()
    return stored


async def read_all(vault: Vault, stored: dict[ChunkId, bytes]) -> set[ChunkId]:
    """Read every chunk; return those that are damaged.  Any wrong byte fails."""
    damaged = set()
    for chunk_id, raw in stored.items():
        try:
            assert await vault.chunks.get(chunk_id) == raw
        except ChunkDamaged:
            damaged.add(chunk_id)
    return damaged


async def heal(vault: Vault, stored: dict[ChunkId, bytes]) -> None:
    """Store everything again the way a client does."""
    missing = await vault.committer.find_missing(list(stored), "client")
    sender = PackSender(vault, "client")
    assert await sender.store(*[stored[ChunkId(chunk_id)] for chunk_id in missing]) == []
    sender.end()
    assert await read_all(vault, stored) == set()


def offset_of(vault: Vault, chunk_id: ChunkId) -> int:
    row = vault.catalog.get(Family.CHUNK, chunk_id)
    assert row is not None
    return decode_chunk_row(row).location.offset


@pytest.mark.parametrize("where", ["magic", "codec", "length", "checksum", "id", "payload start", "payload end"])
async def test_a_flipped_bit_is_found_quarantined_and_healed(
    vault_home: Path, registry: PluginRegistry, where: str
) -> None:
    at = {"magic": 0, "codec": 5, "length": 11, "checksum": 20, "id": 30, "payload start": 56, "payload end": -1}[where]
    async with open_vault(vault_home, registry) as vault:
        stored = await store(vault)
        victim = list(stored)[3]
        row = vault.catalog.get(Family.CHUNK, victim)
        assert row is not None
        location = decode_chunk_row(row).location
        position = location.offset + (at if at >= 0 else RECORD_HEADER_BYTES + location.stored_bytes - 1)
    with (vault_home / "packs" / f"{1:016x}.pack").open("r+b") as pack:
        pack.seek(position)
        byte = pack.read(1)[0]
        pack.seek(position)
        pack.write(bytes([byte ^ 0x10]))
    async with open_vault(vault_home, registry) as vault:
        damaged = await read_all(vault, stored)
        # A header's checksums are for scans: a read goes by the index and the hash, and may do without them.
        assert damaged in ({victim}, set())
        assert damaged or where == "checksum"
        if damaged:
            assert not vault.chunks.has(victim)
            assert await read_all(vault, stored) == {victim}
            assert [record.action for record in vault.audit.latest(9)] == ["quarantine"]
        await heal(vault, stored)
        assert vault.audit.verify() == len(damaged)
    async with open_vault(vault_home, registry) as vault:
        assert await read_all(vault, stored) == set()


async def test_damage_that_nobody_has_read_yet_is_healed_with_what_was_found(
    vault_home: Path, registry: PluginRegistry
) -> None:
    async with open_vault(vault_home, registry) as vault:
        stored = await store(vault)
        # One in a header, the others in payloads.
        places = [offset_of(vault, list(stored)[number]) + at for number, at in ((1, 60), (4, 30), (6, 60))]
    with (vault_home / "packs" / f"{1:016x}.pack").open("r+b") as pack:
        for place in places:
            pack.seek(place)
            byte = pack.read(1)[0]
            pack.seek(place)
            pack.write(bytes([byte ^ 1]))
    async with open_vault(vault_home, registry) as vault:
        with pytest.raises(ChunkDamaged):
            await vault.chunks.get(list(stored)[4])
        await heal(vault, stored)
        assert [record.action for record in vault.audit.latest(9)] == ["quarantine"] * 3
        assert await vault.committer.find_missing(list(stored), "client") == []


async def test_a_truncated_pack_loses_its_end_only_and_is_healed(vault_home: Path, registry: PluginRegistry) -> None:
    async with open_vault(vault_home, registry) as vault:
        stored = await store(vault)
        ids = list(stored)
        cut = offset_of(vault, ids[5]) + 100
        length = vault.packs.size(1)
    with (vault_home / "packs" / f"{1:016x}.pack").open("r+b") as pack:
        pack.truncate(cut)
    async with open_vault(vault_home, registry) as vault:
        assert vault.recovery.short_packs == {1: length - cut}
        assert vault.recovery.damaged
        assert await read_all(vault, stored) == set(ids[5:])
        await heal(vault, stored)


async def test_a_pack_that_is_gone_is_reported_and_healed(vault_home: Path, registry: PluginRegistry) -> None:
    async with open_vault(vault_home, registry) as vault:
        stored = await store(vault)
    (vault_home / "packs" / f"{1:016x}.pack").unlink()
    async with open_vault(vault_home, registry) as vault:
        assert vault.recovery.missing_packs == [1]
        assert await read_all(vault, stored) == set(stored)
        await heal(vault, stored)


async def test_what_a_start_found_gone_is_healed_by_storing_it_again(
    vault_home: Path, registry: PluginRegistry
) -> None:
    async with open_vault(vault_home, registry) as vault:
        stored = await store(vault)
    (vault_home / "packs" / f"{1:016x}.pack").unlink()
    async with open_vault(vault_home, registry) as vault:
        await heal(vault, stored)
