"""Content that is stored, referred to, let go of, collected and stored again, in any order, kills included.

The referee: after each step the counts are what the rows say, and what is wanted can be read.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.pack_sender import PackSender, blob_of
from tvfs.catalog.catalog import Family
from tvfs.content.snapshot import Snapshot
from tvfs.filesystem.model import WORK
from tvfs.ingest.commit import IngestCommit
from tvfs.testing.memory_vault import MemoryWorld
from tvfs.vault.entries import StoredEntry
from tvfs.vault.reachability import compare, compare_exactly
from tvfs.vault.stored_entry import StoredSnapshot
from tvfs.vault.unwanted import EPOCH_S

_LONG = random.Random(1).randbytes(1_500_000)
CONTENTS = (b"", b"one", b"two", b"three" * 1000, _LONG, _LONG[:900_000] + b"changed" + _LONG[900_000:])
NAMES = (b"a", b"b", b"c")
HOLDERS = ("client", "other")
SENT = [[b"%d" % number for number in range(count)] for count in (2, 700, 2500)]
"""Contents of so many chunks: a short manifest, one that is counted little by little, and a paged one."""


@dataclass(frozen=True)
class Saved:
    snapshot: Snapshot
    files: dict[bytes, bytes]


class ReclaimMachine(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.home = Path(tempfile.mkdtemp())
        self.world = MemoryWorld(self.home)
        self.files: dict[bytes, dict[bytes, bytes]] = {}
        """What is below `work/`: directories of files."""
        self.held: dict[str, list[Saved]] = {holder: [] for holder in HOLDERS}
        self.entries: dict[str, Saved] = {}

    def run(self, act: Callable[..., Awaitable[Any]], *arguments: Any, **named: Any) -> Any:
        return trio.run(partial(act, *arguments, **named))

    @rule(directory=st.sampled_from(NAMES), name=st.sampled_from(NAMES), content=st.sampled_from(CONTENTS))
    def write(self, directory: bytes, name: bytes, content: bytes) -> None:
        if directory not in self.files:
            self.world.mkdir(directory)
            self.files[directory] = {}
        path = directory + b"/" + name
        if name in self.files[directory]:
            self.world.unlink(path)
        self.run(self.world.write, path, content)
        self.files[directory][name] = content

    @rule(directory=st.sampled_from(NAMES), name=st.sampled_from(NAMES))
    def overwrite(self, directory: bytes, name: bytes) -> None:
        content = self.files.get(directory, {}).get(name)
        if content:
            self.run(self.world.write, directory + b"/" + name, b"X", offset=len(content) // 2)
            middle = len(content) // 2
            self.files[directory][name] = content[:middle] + b"X" + content[middle + 1 :]

    @rule()
    def seal(self) -> None:
        self.run(self.world.filesystem.seal_all)

    @rule(directory=st.sampled_from(NAMES), holder=st.sampled_from(HOLDERS))
    def snapshot(self, directory: bytes, holder: str) -> None:
        if directory in self.files:
            ino = self.world.ino(directory)
            outcome = self.run(self.world.filesystem.snapshot, ino, holder=holder)
            self.held[holder].append(Saved(outcome.snapshot, dict(self.files[directory])))

    @rule(holder=st.sampled_from(HOLDERS), number=st.integers(0, 3), directory=st.sampled_from(NAMES))
    def attach(self, holder: str, number: int, directory: bytes) -> None:
        if number < len(self.held[holder]) and directory not in self.files:
            saved = self.held[holder][number]
            self.world.filesystem.attach(WORK, directory, saved.snapshot)
            self.files[directory] = dict(saved.files)

    @rule(holder=st.sampled_from(HOLDERS), number=st.integers(0, 3), key=st.sampled_from("kl"))
    def save(self, holder: str, number: int, key: str) -> None:
        if number < len(self.held[holder]):
            saved = self.held[holder][number]
            tree = saved.snapshot
            stored = StoredSnapshot(str(tree.tree), str(tree.attributes), tree.index, tree.files, tree.size)
            entry = StoredEntry("main", key, "saved", 1, 1, stored)
            self.run(self.world.vault.entries.put, entry, who="model", replace=True)
            self.entries[key] = saved

    @rule(key=st.sampled_from("kl"), holder=st.sampled_from(HOLDERS))
    def look_up(self, key: str, holder: str) -> None:
        if key in self.entries:
            self.world.vault.leases.hold(holder, [self.entries[key].snapshot.index])
            self.held[holder].append(self.entries[key])

    @rule(key=st.sampled_from("kl"))
    def forget(self, key: str) -> None:
        if self.entries.pop(key, None) is not None:
            self.run(self.world.vault.entries.remove, "main", key, who="model")

    @rule(directory=st.sampled_from(NAMES))
    def discard(self, directory: bytes) -> None:
        if self.files.pop(directory, None) is not None:
            self.world.filesystem.discard(WORK, directory)

    @rule(holder=st.sampled_from(HOLDERS), chunks=st.sampled_from(SENT), whole=st.booleans())
    def send(self, holder: str, chunks: list[bytes], whole: bool) -> None:
        """Store a content that nothing refers to, or only its chunks."""
        sender = PackSender(self.world.vault, holder + "'s sender")
        ids = [self.world.vault.hash_function.digest(raw) for raw in chunks]

        async def send() -> None:
            missing = set(await self.world.vault.committer.find_missing(ids, sender.holder))
            records = [sender.append(raw) for raw, chunk_id in zip(chunks, ids, strict=True) if chunk_id in missing]
            blob, pages = blob_of(self.world.vault, chunks)
            commit = IngestCommit(chunks=records, blobs=[blob] if whole else [], rows=pages if whole else [])
            assert await sender.commit(commit) == []

        self.run(send)
        sender.end()

    @rule(holder=st.sampled_from(HOLDERS))
    def go_away(self, holder: str) -> None:
        self.world.vault.end_holder(holder)
        self.held[holder].clear()

    @rule(seconds=st.sampled_from((1.0, EPOCH_S)))
    def wait(self, seconds: float) -> None:
        self.world.clock.advance(seconds)

    @rule()
    def sweep(self) -> None:
        self.run(self.world.filesystem.sweep)

    @rule()
    def collect(self) -> None:
        self.run(self.world.vault.collector.collect)

    @rule(turns=st.integers(1, 40))
    def collect_for_a_while(self, turns: int) -> None:
        async def collect() -> None:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.world.vault.collector.collect)
                    for _ in range(turns):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()

        self.run(collect)

    @rule()
    def kill(self) -> None:
        self.world.kill()
        for held in self.held.values():
            held.clear()

    @rule()
    def stop_and_start(self) -> None:
        self.run(self.world.restart)
        for held in self.held.values():
            held.clear()

    @invariant()
    def counts_are_what_the_rows_say(self) -> None:
        if hasattr(self, "world"):
            catalog = self.world.vault.catalog
            assert compare_exactly(catalog, "blake3", catalog.unwanted.newborn) == []

    @rule()
    def compare_live(self) -> None:
        assert self.run(compare, self.world.vault.catalog) == []

    @rule()
    @precondition(lambda self: self.files or self.entries)
    def read(self) -> None:
        self.run(self.check_readable)

    async def check_readable(self) -> None:
        world = self.world
        for directory, files in self.files.items():
            assert set(world.names(directory)) == set(files)
            for name, content in files.items():
                assert await world.read(directory + b"/" + name) == content
        for saved in [*self.entries.values(), *(saved for held in self.held.values() for saved in held)]:
            world.filesystem.attach(WORK, b"look", saved.snapshot)
            assert set(world.names(b"look")) == set(saved.files)
            for name, content in saved.files.items():
                assert await world.read(b"look/" + name) == content
            world.filesystem.discard(WORK, b"look")

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        self.run(self.check_readable)
        self.run(self.let_everything_go)
        self.run(self.world.aclose)
        shutil.rmtree(self.home)

    async def let_everything_go(self) -> None:
        """Nothing unwanted stays."""
        world = self.world
        for key in self.entries:
            await world.vault.entries.remove("main", key, who="model")
        for directory in self.files:
            world.filesystem.discard(WORK, directory)
        for holder in HOLDERS:
            world.vault.end_holder(holder)
        assert await world.filesystem.sweep() == 0
        for _ in range(2):
            world.clock.advance(EPOCH_S)
            await world.vault.collector.collect()
        catalog = world.vault.catalog
        families = (Family.REF, Family.DOOMED, Family.BLOB, Family.PAGE, Family.TREE, Family.TREEPAGE)
        left = {family: len(list(catalog.scan(family))) for family in families}
        assert not any(left.values()), left
        assert list(world.vault.chunks.scan()) == []
        assert not catalog.unwanted.newborn


ReclaimMachine.TestCase.settings = settings(
    max_examples=10,
    stateful_step_count=30,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestReclaim = ReclaimMachine.TestCase


@pytest.mark.slow
class TestReclaimForLonger(ReclaimMachine.TestCase):
    settings = settings(ReclaimMachine.TestCase.settings, max_examples=100)
