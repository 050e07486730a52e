"""kill -9 between any two steps of the commit order."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.conftest import du
from tests.faults.vault_driver import chunks_of
from tests.pack_sender import PackSender
from tvfs.catalog.catalog import Family
from tvfs.digest import ChunkId
from tvfs.plugin_api import PluginRegistry
from tvfs.vault.vault import Vault, open_vault

ROOT = Path(__file__).parents[2]
POINTS = [
    "commit.before_append",
    "commit.after_append",
    "commit.after_pack_sync",
    "commit.after_batch",
    "commit.after_wal_sync",
]


def run_driver(home: Path, armed: str, who: str) -> list[str]:
    """Run the driver until it is killed; return what it acknowledged."""
    driver = subprocess.run(
        [sys.executable, "-m", "tests.faults.vault_driver", home, armed, who, "6"],
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=f"{ROOT}:{ROOT}/plugins"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert driver.returncode == -9, driver.stderr
    return driver.stdout.splitlines()


async def check_commit(vault: Vault, number: int, *, acknowledged: bool, blob: bool) -> bool:
    """Check that a commit is whole or, unless it was acknowledged, absent; tell which."""
    chunks = chunks_of(number)
    own = [ChunkId(vault.hash_function.digest(raw)) for raw in chunks[:2]]
    row = vault.catalog.get(Family.BLOB, b"\x09" + vault.hash_function.digest(b"".join(chunks)))
    there = [vault.chunks.has(chunk_id) for chunk_id in own] + ([row is not None] if blob else [])
    assert len(set(there)) == 1, f"commit {number} is there in part: {there}"
    assert there[0] or not acknowledged, f"commit {number} was acknowledged and is gone"
    if there[0]:
        for raw in chunks:
            assert await vault.chunks.get(ChunkId(vault.hash_function.digest(raw))) == raw
    return there[0]


@pytest.mark.parametrize("who", ["client", "owner"])
@pytest.mark.parametrize("point", POINTS)
async def test_a_kill_at_any_step_loses_nothing_acknowledged_and_leaves_nothing_in_part(
    vault_home: Path, registry: PluginRegistry, point: str, who: str
) -> None:
    said = run_driver(vault_home, f"{point}=kill@4", who)
    acknowledged = [int(line) for line in said if line.isdigit()]
    assert acknowledged == [0, 1, 2]
    async with open_vault(vault_home, registry) as vault:
        report = vault.recovery
        assert not report.clean
        assert not report.damaged
        durable = point in ("commit.after_batch", "commit.after_wal_sync")
        for number in range(6):
            there = await check_commit(vault, number, acknowledged=number in acknowledged, blob=who == "client")
            assert there == (number in acknowledged or (number == 3 and durable))
        # What was appended for the commit that never came is cut off.
        assert bool(report.truncated_packs) == (point in ("commit.after_append", "commit.after_pack_sync"))
        entries = [entry.key for entry in vault.entries.list_entries()]
        assert entries == [f"key {number}" for number in range(3)]
        assert vault.audit.verify() == 3
        assert vault.usage.report().total == du(vault_home)
        # And it works on.
        sender = PackSender(vault, "next")
        assert sender.number not in vault.recovery.removed_packs
        assert await sender.store(*chunks_of(5)) == []
        sender.end()
        assert await check_commit(vault, 5, acknowledged=True, blob=False)
    async with open_vault(vault_home, registry) as vault:
        assert vault.recovery.clean
        assert not vault.recovery.truncated_packs
        assert not vault.recovery.removed_packs
        assert await check_commit(vault, 5, acknowledged=True, blob=False)


async def test_a_kill_during_the_first_commit_leaves_an_empty_vault(vault_home: Path, registry: PluginRegistry) -> None:
    assert run_driver(vault_home, "commit.after_pack_sync=kill", "client") == []
    async with open_vault(vault_home, registry) as vault:
        assert vault.recovery.removed_packs == [1]
        assert vault.packs.numbers() == []
        assert list(vault.chunks.scan()) == []
        assert vault.usage.report().total == du(vault_home)
        # The number of a removed pack is not used again.
        sender = PackSender(vault, "next")
        assert sender.number == 2
        sender.end()
