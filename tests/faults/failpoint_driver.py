"""One process that does everything in which there is a failpoint, again and again: `failpoint_driver`, orders on stdin.

An order is a line of JSON, `[HOME, LEDGER, ARMED]`: a child of this process, which has imported everything and opened
nothing, makes a vault, arms what it was told to, and does the steps.  The answer is a line of JSON: how it ended, what
was refused to it, and how often each point was reached.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random

import trio

from tests.durability.ledger import LedgerFile, Line, Value
from tests.durability.power_loss import value_of
from tests.pack_sender import PackSender
from tests.unit.fsck.sample_vault import CALLER, World, opened
from tvfs import failpoints
from tvfs.clock import ManualClock
from tvfs.digest import ChunkId
from tvfs.errors import TaskVaultError
from tvfs.filesystem.model import WORK, AttributeChanges
from tvfs.filesystem.staged_file import BLOCK_BYTES
from tvfs.plugin_api import PluginRegistry
from tvfs.vault.create import create_vault
from tvfs.vault.superblock import VaultSettings
from tvfs.vault.unwanted import EPOCH_S

CAPACITY_BYTES = 128 << 20


class Steps:
    """What is done, one after the other; a step that is refused promises nothing, and the next one is tried."""

    def __init__(self, world: World, clock: ManualClock, announce: Callable[[Line], None]) -> None:
        self._world = world
        self._clock = clock
        self._announce = announce
        self._random = Random(5)
        self._whole = bytearray(self._random.randbytes(3 * BLOCK_BYTES))
        self._chunks: list[ChunkId] = []
        self.refused: list[str] = []

    async def run(self) -> None:
        for step in (
            self.create, self.seal, self.overwrite, self.truncate, self.seal_again, self.save, self.replace,
            self.store_chunks, self.compact, self.remove, self.collect, self.compact, self.rename,
        ):  # fmt: skip
            try:
                await step()
            except TaskVaultError as exc:
                self.refused.append(f"{step.__name__}: {type(exc).__name__}")

    async def create(self) -> None:
        """A directory with files; one of them synced."""
        world = self._world
        directory = world.mkdir(WORK, b"d")
        for number in range(20):
            await world.write(directory, b"small %d" % number, b"small" * number)
        async with self._promised({"work/d/whole": bytes(self._whole)}, in_place=True):
            await world.write(directory, b"whole", bytes(self._whole))
            await self._sync(b"whole")

    async def seal(self) -> None:
        await self._world.filesystem.seal_all()

    async def overwrite(self) -> None:
        """A part of what is sealed."""
        self._whole = await self._content()
        self._whole[5:16] = b"overwritten"
        async with self._promised({"work/d/whole": bytes(self._whole)}, in_place=True):
            await self._world.write(self._ino(b"d"), b"whole", b"overwritten", offset=5)
            await self._sync(b"whole")

    async def truncate(self) -> None:
        """To less than what is left of the sealed content."""
        self._whole = await self._content()
        del self._whole[BLOCK_BYTES + 100 :]
        async with self._promised({"work/d/whole": bytes(self._whole)}, in_place=True):
            ino = self._ino(b"d", b"whole")
            await self._world.filesystem.setattr(ino, AttributeChanges(size=len(self._whole)), CALLER)
            await self._sync(b"whole")

    async def seal_again(self) -> None:
        await self._world.filesystem.seal_all()

    async def save(self) -> None:
        self._whole = await self._content()
        async with self._promised({"keys/main/key/whole": bytes(self._whole)}):
            await self._world.save("main", "key", await self._world.snapshot(self._ino(b"d")))

    async def replace(self) -> None:
        """Save again, under a name that goes again."""
        await self._world.write(self._ino(b"d"), b"added", b"added")
        async with self._promised({"keys/main/other/added": b"added"}):
            await self._world.save("main", "other", await self._world.snapshot(self._ino(b"d")))

    async def store_chunks(self) -> None:
        """Chunks of the owner's own, and those of a client, of which most die."""
        vault = self._world.vault
        await vault.chunks.put(self._random.randbytes(9_000))
        await vault.chunks.flush()
        sender = PackSender(vault, "client")
        raws = [self._random.randbytes(9_000) for _ in range(12)]
        try:
            await sender.store(*raws)
        finally:
            sender.end()
        for raw in raws[1:]:
            await vault.chunks.delete(ChunkId(vault.hash_function.digest(raw)))

    async def remove(self) -> None:
        """An entry that nobody wants any more, and a file."""
        world = self._world
        async with self._promised({"keys/main/other/added": None}):
            with world.views.changing("main", "other"):
                world.views.hide("main", "other")
                await world.vault.entries.remove("main", "other", who="test")
        async with self._promised({"work/d/added": None}):
            world.filesystem.unlink(self._ino(b"d"), b"added")
            await world.vault.catalog.flush()

    async def collect(self) -> None:
        await self._world.filesystem.sweep()
        self._clock.advance(2 * EPOCH_S)
        await self._world.vault.collector.collect()

    async def compact(self) -> None:
        compactor = self._world.vault.compactor
        while (await compactor.compact(least_dead_fraction=0.01)).removed_packs:
            pass

    async def rename(self) -> None:
        """And all of it still works."""
        facts: dict[str, Value] = {"work/d/whole": None, "work/moved": bytes(self._whole)}
        async with self._promised(facts, one_of=["work/d/whole", "work/moved"]):
            self._world.filesystem.rename(self._ino(b"d"), b"whole", WORK, b"moved", 0)
            await self._world.vault.catalog.flush()

    @asynccontextmanager
    async def _promised(self, facts: dict[str, Value], *, in_place: bool = False, one_of: list[str] | None = None):  # type: ignore[no-untyped-def]
        self._announce(Line(False, facts, in_place, one_of or []))
        yield
        self._announce(Line(True, facts))

    async def _sync(self, name: bytes) -> None:
        handle = await self._world.filesystem.open(self._ino(b"d", name), os.O_WRONLY, CALLER)
        try:
            await self._world.filesystem.fsync(handle, data_only=False)
        finally:
            self._world.filesystem.release(handle)

    async def _content(self) -> bytearray:
        """What the file has: not what was meant to be, if a step was refused."""
        found = await value_of(self._world, "work/d/whole")
        return bytearray(found or b"")

    def _ino(self, *names: bytes) -> int:
        ino = WORK
        for name in names:
            ino = self._world.filesystem.resolve(name, ino)
        return ino


async def do_everything(home: Path, ledger: Path, armed: str) -> list[str]:
    """Make a vault and do all steps; return what was refused."""
    create_vault(home, settings=VaultSettings(capacity_bytes=CAPACITY_BYTES), registry=PluginRegistry())
    clock, announce = ManualClock(), LedgerFile(ledger)
    try:
        async with opened(home, clock=clock) as world:
            steps = Steps(world, clock, announce)
            failpoints.arm_from(armed)
            await steps.run()
            failpoints.disarm_all()
            return steps.refused
    finally:
        announce.close()


def counted() -> Counter[str]:
    """Have every point count how often it is reached."""
    counts: Counter[str] = Counter()
    for point in failpoints.POINTS:
        failpoints.arm(point, lambda point=point: counts.update([point]))
    return counts


def answer(home: str, ledger: str, armed: str) -> dict[str, object]:
    """Carry one order out, in a child; return how it ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        status = 1
        with suppress(BaseException):  # the child must not go on where its parent does
            try:
                counts = counted() if not armed else Counter()
                refused = trio.run(do_everything, Path(home), Path(ledger), armed)
                os.write(writing, json.dumps({"refused": refused, "counts": counts}).encode())
                status = 0
            except BaseException:
                sys.excepthook(*sys.exc_info())
                raise
        os._exit(status)
    os.close(writing)
    with open(reading, "rb") as said:
        told = said.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {"status": status, **(json.loads(told) if told else {})}


if __name__ == "__main__":
    for order in sys.stdin:
        print(json.dumps(answer(*json.loads(order))), flush=True)
