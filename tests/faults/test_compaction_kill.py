"""kill -9 between any two steps of a compaction: every live chunk reads, `du` is right, and the next one finishes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.compaction_driver import CHUNKS, PACKS, lives, raw_of
from tests.faults.conftest import du
from tvfs.catalog.catalog import Family
from tvfs.chunks.chunk_index import ChunkIndex
from tvfs.digest import ChunkId
from tvfs.packs.pack_reader import record_bytes
from tvfs.packs.pack_row import decode_pack_row, pack_number
from tvfs.plugin_api import PluginRegistry
from tvfs.vault.vault import Vault, open_vault

ROOT = Path(__file__).parents[2]
POINTS = [
    "compact.after_copy",
    "compact.after_sync",
    "compact.after_rows",
    "compact.after_wal",
    "compact.before_unlink",
]


def run_driver(home: Path, armed: str) -> None:
    driver = subprocess.run(
        [sys.executable, "-m", "tests.faults.compaction_driver", home, armed],
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=f"{ROOT}:{ROOT}/plugins"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert driver.returncode == -9, driver.stderr
    assert driver.stdout.split() == ["ready"]


async def check_everything(vault: Vault) -> None:
    index = ChunkIndex(vault.catalog)
    live_bytes: dict[int, int] = {}
    for pack in range(PACKS):
        for number in range(CHUNKS):
            raw = raw_of(pack, number)
            chunk_id = ChunkId(vault.hash_function.digest(raw))
            assert vault.chunks.has(chunk_id) == lives(pack, number)
            if lives(pack, number):
                assert await vault.chunks.get(chunk_id) == raw
                row = index.find(chunk_id)
                assert row is not None
                at = row.location
                live_bytes[at.pack] = live_bytes.get(at.pack, 0) + record_bytes(at)
    rows = {pack_number(key): decode_pack_row(row) for key, row in vault.catalog.scan(Family.PACK)}
    assert {number: row.live_bytes for number, row in rows.items() if row.live_bytes} == live_bytes
    assert sorted(rows) == vault.packs.numbers()
    assert all(vault.packs.size(number) == row.committed_bytes for number, row in rows.items())
    assert vault.usage.measure().total == du(vault.layout.home)


@pytest.mark.parametrize("point", POINTS)
async def test_a_kill_at_any_step_of_compaction_loses_nothing_and_the_next_one_finishes(
    vault_home: Path, registry: PluginRegistry, point: str
) -> None:
    run_driver(vault_home, f"{point}=kill")
    async with open_vault(vault_home, registry) as vault:
        report = vault.recovery
        assert not report.clean
        assert not report.damaged
        # Copied and not moved: the new pack goes.  Moved and not yet removed: the old ones have no rows.
        removed = {"compact.after_copy": 1, "compact.after_sync": 1, "compact.before_unlink": PACKS}
        assert len(report.removed_packs) == removed.get(point, 0)
        await check_everything(vault)
        while (await vault.compactor.compact(least_dead_fraction=0.1)).removed_packs:
            pass
        assert (await vault.compactor.survey()).dead_bytes == 0
        assert len(vault.packs.numbers()) == 1
        await check_everything(vault)
    async with open_vault(vault_home, registry) as vault:
        assert vault.recovery.clean
        assert not vault.recovery.removed_packs
        await check_everything(vault)
