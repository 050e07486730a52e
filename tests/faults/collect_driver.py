"""A process that lets go of a tree and saves the same again, both at once: `collect_driver HOME FAILPOINTS FILES`.

It says `saved` once the entry that finds the tree again is durable.
"""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from tests.pack_sender import PackSender, entry_of, store_tree
from tvfs import failpoints
from tvfs.clock import ManualClock
from tvfs.plugin_api import PluginRegistry
from tvfs.vault import collector
from tvfs.vault.unwanted import EPOCH_S
from tvfs.vault.vault import OpenSettings, Vault, open_vault


async def save(vault: Vault, holder: str, files: int) -> None:
    sender = PackSender(vault, holder)
    snapshot = await store_tree(sender, files)
    await vault.entries.put(entry_of(snapshot), who="driver")
    sender.end()


async def save_again(vault: Vault, files: int) -> None:
    await save(vault, "again", files)
    print("saved", flush=True)


async def main(home: Path, armed: str, files: int) -> None:
    collector.STEPS_A_SLICE = 1
    clock = ManualClock()
    # Without pauses the collector and whoever saves take turns step by step.
    settings = OpenSettings(background_pauses=False)
    async with open_vault(home, PluginRegistry(), settings=settings, clock=clock) as vault:
        await save(vault, "first", files)
        await vault.entries.remove("main", "k", who="driver")
        clock.advance(EPOCH_S)
        failpoints.arm_from(armed)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(vault.collector.collect)
            for _ in range(files // 100):
                await trio.lowlevel.checkpoint()
            await save_again(vault, files)
        clock.advance(EPOCH_S)
        await vault.collector.collect()
        print("collected", flush=True)


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
