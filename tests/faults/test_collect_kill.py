"""kill -9 while a tree is let go and the same tree is saved again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.collect_driver import save
from tests.thinned import thinned
from tvfs.catalog.catalog import Family
from tvfs.clock import ManualClock
from tvfs.digest import ChunkId
from tvfs.plugin_api import PluginRegistry
from tvfs.vault.reachability import compare_exactly
from tvfs.vault.unwanted import EPOCH_S
from tvfs.vault.vault import Vault, open_vault

ROOT = Path(__file__).parents[2]
FILES = 3000
PAGES = 12


def run_driver(home: Path, armed: str) -> list[str]:
    driver = subprocess.run(
        [sys.executable, "-m", "tests.faults.collect_driver", home, armed, str(FILES)],
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=f"{ROOT}:{ROOT}/plugins"),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert driver.returncode == (-9 if armed else 0), driver.stderr
    return driver.stdout.splitlines()


async def check_whole(vault: Vault) -> None:
    """The entry is there and so is all that it leads to; counts and rows agree."""
    entry = vault.entries.get("main", "k")
    assert entry is not None
    assert entry.snapshot is not None
    assert vault.catalog.get(Family.TREE, entry.snapshot.index) is not None
    assert len(list(vault.catalog.scan(Family.TREEPAGE))) == PAGES
    for number in range(FILES):
        raw = b"file %d" % number
        assert await vault.chunks.get(ChunkId(vault.hash_function.digest(raw))) == raw


@pytest.mark.parametrize("batch", thinned([1, 2, 3, 5, 9, 17, 30, 45]))
async def test_a_kill_while_a_tree_is_let_go_and_saved_again_leaves_it_whole_or_lets_it_go(
    vault_home: Path, registry: PluginRegistry, batch: int
) -> None:
    said = run_driver(vault_home, f"collect.after_batch=kill@{batch}")
    clock = ManualClock()
    async with open_vault(vault_home, registry, clock=clock) as vault:
        assert compare_exactly(vault.catalog, "blake3") == []
        if "saved" in said:
            await check_whole(vault)
        await vault.collector.collect()
        clock.advance(EPOCH_S)
        await vault.collector.collect()
        assert compare_exactly(vault.catalog, "blake3", vault.catalog.unwanted.newborn) == []
        if vault.entries.get("main", "k") is None:
            assert list(vault.catalog.scan(Family.REF)) == []
            assert list(vault.chunks.scan()) == []
            await save(vault, "now", FILES)
        await check_whole(vault)
    async with open_vault(vault_home, registry, clock=clock) as vault:
        await vault.collector.collect()
        await check_whole(vault)


async def test_what_is_saved_while_it_is_let_go_stays(vault_home: Path, registry: PluginRegistry) -> None:
    assert run_driver(vault_home, "") == ["saved", "collected"]
    async with open_vault(vault_home, registry) as vault:
        assert compare_exactly(vault.catalog, "blake3") == []
        await check_whole(vault)
