from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.pack_sender import PackSender
from tvfs.clock import ManualClock
from tvfs.plugin_api import PluginRegistry
from tvfs.vault.reservations import VaultFull
from tvfs.vault.usage import MEASURED_FOR_S
from tvfs.vault.vault import Vault, open_vault


def du(home: Path) -> int:
    command = ["du", "-x", "-s", "--block-size=1", f"--exclude={home}/mnt", str(home)]
    return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()[0])


@pytest.mark.damages_vault("its staging files are made up")
async def test_the_total_is_what_du_says_after_real_work(home: Path, registry: PluginRegistry) -> None:
    clock = ManualClock()
    async with open_vault(home, registry, clock=clock) as vault:
        assert vault.usage.report().total == du(home)
        sender = PackSender(vault, "a")
        await sender.store(*[os.urandom(10_000) for _ in range(200)])
        for number in range(100):
            await vault.chunks.put(b"%d" % number * 1000)
        await vault.chunks.flush()
        sender.append(os.urandom(100_000))
        sender.writer.sync()
        for ino in range(64, 70):
            path = vault.layout.staged_file(ino, 1)
            path.parent.mkdir()
            path.write_bytes(os.urandom(5000 * (ino - 60)))
            vault.usage.staging_changed(path.stat().st_blocks * 512)
        vault.layout.staged_file(64, 1).unlink()
        vault.usage.staging_changed(-5 * 4096)
        vault.layout.log.write_bytes(bytes(50_000))
        (vault.layout.mount / "below").mkdir(parents=True)
        sender.end()
        clock.advance(MEASURED_FOR_S * 2)
        running = vault.usage.report()
        assert running.total == du(home)
        assert vault.usage.measure() == running
    async with open_vault(home, registry) as vault:
        assert vault.usage.report().total == du(home)
        assert vault.usage.report().staging == running.staging


async def test_measuring_sets_a_wrong_total_right(vault: Vault) -> None:
    vault.usage.staging_changed(12345)
    assert vault.usage.report().total == du(vault.layout.home) + 12345
    assert vault.usage.measure().total == du(vault.layout.home)


async def test_a_pack_is_reserved_before_it_is_written_and_used_afterwards(vault: Vault) -> None:
    free_bytes = vault.reservations.free_bytes
    sender = PackSender(vault, "a", reserve_bytes=1 << 20)
    assert vault.reservations.reserved_bytes == 1 << 20
    await sender.store(os.urandom(500_000))
    assert (1 << 20) - 520_000 < vault.reservations.reserved_bytes < (1 << 20) - 480_000
    sender.end()
    assert vault.reservations.reserved_bytes == 0
    assert free_bytes - 540_000 < vault.reservations.free_bytes < free_bytes - 480_000


async def test_no_pack_is_granted_beyond_the_capacity(vault: Vault) -> None:
    with pytest.raises(VaultFull):
        vault.grants.grant_blocking("a", vault.superblock.capacity_bytes)
    assert vault.packs.numbers() == []
    assert vault.reservations.reserved_bytes == 0
