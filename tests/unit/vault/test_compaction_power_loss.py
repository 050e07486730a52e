"""A power loss at any step of a compaction: what was not flushed of the catalog, or not synced of a pack, is gone."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.pack_sender import PackSender
from tvfs import failpoints
from tvfs.catalog.memory import MemoryCatalog
from tvfs.clock import ManualClock
from tvfs.digest import ChunkId
from tvfs.testing.memory_vault import memory_vault
from tvfs.vault.vault import Vault

POINTS = [point for point in failpoints.POINTS if point.startswith("compact.")]


class Disk:
    """Remembers how much of each file was synced, and what a power loss would leave at some moments."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        self.synced: dict[int, int] = {}
        self.left: list[tuple[str, MemoryCatalog, Path]] = []
        fdatasync = os.fdatasync

        def remembering(descriptor: int) -> None:
            fdatasync(descriptor)
            found = os.fstat(descriptor)
            self.synced[found.st_ino] = found.st_size

        monkeypatch.setattr(os, "fdatasync", remembering)

    def lose_power(self, when: str, catalog: MemoryCatalog) -> None:
        """Keep what would be found afterwards."""
        target = self.home.with_name(f"after {len(self.left)}")
        shutil.copytree(self.home, target)
        for pack in (self.home / "packs").iterdir():
            # Its name is synced when it is made; of its bytes only what was synced is sure to be there.
            os.truncate(target / "packs" / pack.name, self.synced.get(pack.stat().st_ino, 40))
        self.left.append((when, catalog.crash_copy(durable_only=True), target))


async def test_every_live_chunk_is_there_after_a_power_loss_at_any_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(tmp_path / "home", monkeypatch)
    catalog = MemoryCatalog()
    vault = memory_vault(disk.home, catalog, ManualClock())
    live = await fill(vault)
    await catalog.flush()
    remove = vault.packs.remove

    def remove_and_lose_power(number: int) -> None:
        remove(number)
        disk.lose_power("after an unlink", catalog)

    monkeypatch.setattr(vault.packs, "remove", remove_and_lose_power)
    for point in POINTS:
        failpoints.arm(point, partial(disk.lose_power, point, catalog))
    try:
        assert (await vault.compactor.compact(least_dead_fraction=0.1)).removed_packs == 3
    finally:
        failpoints.disarm_all()
    await vault.aclose()
    monkeypatch.undo()
    assert [when for when, _, _ in disk.left] == [*POINTS, *["after an unlink"] * 3]
    for when, survivor, home in disk.left:
        again = memory_vault(home, survivor, ManualClock())
        assert not again.recovery.damaged, when
        for chunk_id, raw in live.items():
            assert await again.chunks.get(chunk_id) == raw, when
        while (await again.compactor.compact(least_dead_fraction=0.1)).removed_packs:
            pass
        assert (await again.compactor.survey()).dead_bytes == 0, when
        assert len(again.packs.numbers()) == 1, when
        for chunk_id in live:
            assert await again.check_chunk(chunk_id), when
        await again.aclose()


async def fill(vault: Vault) -> dict[ChunkId, bytes]:
    draw = random.Random(7)
    live: dict[ChunkId, bytes] = {}
    digest: Callable[[bytes], bytes] = vault.hash_function.digest
    for _ in range(3):
        sender = PackSender(vault, "client")
        raws = [draw.randbytes(4000) for _ in range(10)]
        assert await sender.store(*raws) == []
        sender.end()
        for raw in raws[3:]:
            await vault.chunks.delete(ChunkId(digest(raw)))
        live.update((ChunkId(digest(raw)), raw) for raw in raws[:3])
    return live
