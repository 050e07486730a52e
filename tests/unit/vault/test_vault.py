from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.pack_sender import PackSender
from tvfs.catalog.catalog import Batch, Family
from tvfs.digest import ChunkId
from tvfs.errors import FormatTooNew
from tvfs.plugin_api import PluginRegistry
from tvfs.vault.counters import NEXT_PACK
from tvfs.vault.lock import VaultInUse
from tvfs.vault.superblock import KEY, Superblock, SuperblockInvalid, decode_superblock, encode_superblock
from tvfs.vault.vault import open_vault


def contents(home: Path) -> dict[str, bytes]:
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}


async def test_what_was_stored_is_there_after_closing_and_opening(home: Path, registry: PluginRegistry) -> None:
    async with open_vault(home, registry) as vault:
        assert not vault.recovery.clean
        sender = PackSender(vault, "a")
        await sender.store(b"one")
        sender.end()
        two = await vault.chunks.put(b"two")
    async with open_vault(home, registry) as vault:
        assert vault.recovery.clean
        assert not vault.recovery.truncated_packs
        assert await vault.chunks.get(ChunkId(vault.hash_function.digest(b"one"))) == b"one"
        assert await vault.chunks.get(two) == b"two"
        assert vault.counters.take(NEXT_PACK) == 3


async def test_a_vault_has_one_owner(home: Path, registry: PluginRegistry) -> None:
    async with open_vault(home, registry) as vault:
        with pytest.raises(VaultInUse, match=f"process {os.getpid()}; stop it with `tv down`"):
            async with open_vault(home, registry):
                pass
        await vault.chunks.put(b"still works")
    async with open_vault(home, registry):
        pass


@pytest.mark.leaves_no_vault("it is of a newer format")
async def test_a_newer_format_is_refused_and_nothing_is_changed(home: Path, registry: PluginRegistry) -> None:
    (home / "format").write_text("2\n")
    before = contents(home)
    with pytest.raises(FormatTooNew):
        async with open_vault(home, registry):
            pass
    assert contents(home) == before


@pytest.mark.leaves_no_vault("it is of a newer format")
async def test_a_newer_superblock_is_refused_too(home: Path, registry: PluginRegistry) -> None:
    async with open_vault(home, registry) as vault:
        row = vault.catalog.get(Family.SYS, KEY)
        assert row is not None
        batch = Batch()
        batch.put(Family.SYS, KEY, row.replace(b"\xa6format\x01", b"\xa6format\x02"))
        vault.catalog.write(batch)
    with pytest.raises(FormatTooNew):
        async with open_vault(home, registry):
            pass


def test_a_superblock_that_is_none_is_said_to_be_unreadable() -> None:
    good = decode_superblock(encode_superblock(_superblock()))
    assert good == _superblock()
    for row in (None, b"", b"\xc1", b"\x80", encode_superblock(_superblock(uuid=b"short"))):
        with pytest.raises(SuperblockInvalid):
            decode_superblock(row)


async def test_damage_is_audited_and_told(home: Path, registry: PluginRegistry) -> None:
    heard: list[ChunkId] = []
    async with open_vault(home, registry, on_damage=lambda chunk_id, _: heard.append(chunk_id)) as vault:
        chunk_id = await vault.chunks.put(bytes(range(256)) * 100)
        await vault.chunks.flush()
        with vault.layout.pack(1).open("r+b") as pack:
            pack.seek(200)
            pack.write(b"\xff\xff\xff")
        with pytest.raises(Exception, match="damaged"):
            await vault.chunks.get(chunk_id)
        assert heard == [chunk_id]
        assert [(record.action, record.key) for record in vault.audit.latest(1)] == [("quarantine", chunk_id.hex())]
        assert await vault.chunks.put(bytes(range(256)) * 100) == chunk_id
        await vault.chunks.flush()
        assert await vault.chunks.get(chunk_id) == bytes(range(256)) * 100


def _superblock(uuid: bytes = bytes(16)) -> Superblock:
    from tvfs.vault.superblock import Chunking

    return Superblock(1, uuid, "blake3", Chunking("fastcdc", {"average": 1}), "zstd", 1 << 30, 5)
