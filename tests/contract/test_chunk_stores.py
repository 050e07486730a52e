"""Every store of chunks, and every wrapper around one, keeps the contract."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from tvplugins.compression import zstd
from tvplugins.hash import blake3

from tvfs import failpoints
from tvfs.catalog.memory import MemoryCatalog
from tvfs.chunks.cached import CachedChunkStore
from tvfs.chunks.chunk_index import ChunkIndex
from tvfs.chunks.coalescing import CoalescingChunkStore
from tvfs.chunks.encoding import ChunkFormat
from tvfs.chunks.memory import MemoryChunkStore
from tvfs.chunks.packed import PackedChunkStore, PackedStoreSettings
from tvfs.chunks.store import ChunkStore
from tvfs.packs.pack_directory import PackDirectory
from tvfs.testing.chunk_store_contract import ChunkStoreContract
from tvfs.testing.faulty import FaultyChunkStore

VAULT = uuid.UUID(int=5).bytes
ZSTD = zstd.make({})
FORMAT = ChunkFormat(blake3.make({}), ZSTD, {1: ZSTD})


class TestMemoryChunkStore(ChunkStoreContract):
    def make_store(self) -> ChunkStore:
        return MemoryChunkStore(FORMAT.hash_function)

    def after_power_loss(self, store: ChunkStore) -> ChunkStore:
        assert isinstance(store, MemoryChunkStore)
        return store.after_power_loss()


class TestPackedChunkStore(ChunkStoreContract):
    """The disk is modelled: of each pack, only the length at the last sync survives."""

    pack_max_bytes = 64 << 20

    @pytest.fixture(autouse=True)
    def disk(self, tmp_path: Path) -> Iterator[None]:
        self.path = tmp_path
        self.numbers = count(1)
        self.synced: dict[str, int] = {}
        self.directories: list[PackDirectory] = []
        failpoints.arm("commit.after_pack_sync", self._note_synced)
        yield
        failpoints.disarm_all()
        for directory in self.directories:
            directory.close()

    def make_store(self) -> ChunkStore:
        (self.path / "packs").mkdir()
        return self._open(MemoryCatalog(), self.path / "packs")

    def after_power_loss(self, store: ChunkStore) -> ChunkStore:
        assert isinstance(store, PackedChunkStore)
        catalog = self.catalog.crash_copy(durable_only=True)
        survived = self.path / "survived"
        shutil.copytree(self.path / "packs", survived)
        for name in os.listdir(survived):
            os.truncate(survived / name, self.synced.get(name, 0))
        packs = PackDirectory(survived, VAULT)
        for number in packs.numbers():
            committed = ChunkIndex(catalog).pack(number).committed_bytes
            assert committed <= packs.size(number), "more was committed than had been synced"
            packs.truncate(number, committed)
        return self._open(catalog, survived)

    def _open(self, catalog: MemoryCatalog, path: Path) -> PackedChunkStore:
        self.catalog = catalog
        self.directories.append(PackDirectory(path, VAULT))
        return PackedChunkStore(
            catalog,
            self.directories[-1],
            FORMAT,
            next_pack=lambda: next(self.numbers),
            on_damage=lambda chunk_id, reason: pytest.fail(f"{chunk_id.hex()}: {reason}"),
            settings=PackedStoreSettings(pack_max_bytes=self.pack_max_bytes, inline_hash_max_bytes=1000),
        )

    def _note_synced(self) -> None:
        for entry in os.scandir(self.path / "packs"):
            self.synced[entry.name] = entry.stat().st_size


class TestPackedChunkStoreWithTinyPacks(TestPackedChunkStore):
    """Every few chunks another pack."""

    pack_max_bytes = 700


class TestCoalescingChunkStore(TestPackedChunkStore):
    def make_store(self) -> ChunkStore:
        self.inner = super().make_store()
        return CoalescingChunkStore(self.inner)

    def after_power_loss(self, store: ChunkStore) -> ChunkStore:
        return CoalescingChunkStore(super().after_power_loss(self.inner))


class TestCachedChunkStore(TestPackedChunkStore):
    def make_store(self) -> ChunkStore:
        self.inner = super().make_store()
        return CachedChunkStore(self.inner, capacity_bytes=20_000)

    def after_power_loss(self, store: ChunkStore) -> ChunkStore:
        return CachedChunkStore(super().after_power_loss(self.inner))


class TestFaultyChunkStoreWithoutFaults(TestMemoryChunkStore):
    def make_store(self) -> ChunkStore:
        self.inner = super().make_store()
        return FaultyChunkStore(self.inner)

    def after_power_loss(self, store: ChunkStore) -> ChunkStore:
        return FaultyChunkStore(super().after_power_loss(self.inner))
