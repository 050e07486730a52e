"""A process that compacts until a failpoint ends it: `compaction_driver HOME FAILPOINTS`.

It fills packs, lets chunks die, says `ready`, and compacts until nothing is dead.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import trio

from tests.pack_sender import PackSender
from tvfs import failpoints
from tvfs.digest import ChunkId
from tvfs.plugin_api import PluginRegistry
from tvfs.vault.vault import open_vault

PACKS = 4
CHUNKS = 12


def raw_of(pack: int, number: int) -> bytes:
    """A chunk; the same in every process."""
    return random.Random(pack * 1000 + number).randbytes(5_000 + 700 * number)


def lives(pack: int, number: int) -> bool:
    """Whether the chunk is wanted; in the last pack none is."""
    return pack < PACKS - 1 and number % 3 == 0


async def main(home: Path, armed: str) -> None:
    async with open_vault(home, PluginRegistry()) as vault:
        for pack in range(PACKS):
            sender = PackSender(vault, "client")
            assert await sender.store(*[raw_of(pack, number) for number in range(CHUNKS)]) == []
            sender.end()
        for pack in range(PACKS):
            for number in range(CHUNKS):
                if not lives(pack, number):
                    await vault.chunks.delete(ChunkId(vault.hash_function.digest(raw_of(pack, number))))
        await vault.catalog.flush()
        print("ready", flush=True)
        failpoints.arm_from(armed)
        while (await vault.compactor.compact(least_dead_fraction=0.1)).removed_packs:
            pass


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), sys.argv[2])
