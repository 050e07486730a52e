from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from tvplugins.compression import zstd
from tvplugins.hash import blake3

from tvfs import failpoints
from tvfs.catalog.memory import MemoryCatalog
from tvfs.chunks.chunk_index import ChunkIndex
from tvfs.chunks.encoding import ChunkFormat
from tvfs.chunks.packed import PackedChunkStore, PackedStoreSettings
from tvfs.digest import ChunkId
from tvfs.packs.pack_directory import PackDirectory

ZSTD = zstd.make({})


class PackedVault:
    """A store in packs and everything it stands on, so that tests can look and do damage."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.catalog = MemoryCatalog()
        self.index = ChunkIndex(self.catalog)
        self.packs = PackDirectory(path, bytes(range(16)))
        self.format = ChunkFormat(blake3.make({}), ZSTD, {1: ZSTD})
        self.damage: list[tuple[ChunkId, str]] = []
        self.numbers = count(1)

    def store(self, settings: PackedStoreSettings | None = None) -> PackedChunkStore:
        return PackedChunkStore(
            self.catalog,
            self.packs,
            self.format,
            next_pack=lambda: next(self.numbers),
            on_damage=lambda chunk_id, reason: self.damage.append((chunk_id, reason)),
            settings=settings,
        )

    def overwrite(self, chunk_id: ChunkId, at: int, change: Callable[[int], int]) -> None:
        """Change one byte of a chunk's record; `at` counts from its header."""
        row = self.index.find(chunk_id)
        assert row is not None
        with open(self.path / f"{row.location.pack:016x}.pack", "r+b") as pack:
            pack.seek(row.location.offset + at)
            old = pack.read(1)[0]
            pack.seek(-1, 1)
            pack.write(bytes([change(old) % 256]))


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[PackedVault]:
    vault = PackedVault(tmp_path)
    yield vault
    vault.packs.close()


@pytest.fixture(autouse=True)
def disarm() -> Iterator[None]:
    yield
    failpoints.disarm_all()
