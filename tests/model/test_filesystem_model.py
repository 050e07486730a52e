"""The filesystem beside a model of dictionaries, in any order of operations, kills included."""

from __future__ import annotations

import copy
import errno
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.model.filesystem_model import NAMES, OFFSETS, Directory, Link, Model, Refused, links_in
from tvfs.content.snapshot import Snapshot
from tvfs.filesystem.model import RENAME_EXCHANGE, RENAME_NOREPLACE, AttributeChanges
from tvfs.filesystem.posix_error import PosixError
from tvfs.testing.memory_vault import CALLER, MemoryWorld

paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(b"/".join)


class FilesystemComparison(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="tv-model-"))
        self.world = MemoryWorld(self.home)
        self.model = Model()
        self.saved: list[tuple[Snapshot, Directory]] = []
        self.attached = 0
        self.unswept = False

    def teardown(self) -> None:
        if not hasattr(self, "home"):
            return
        try:
            for number, (snapshot, directory) in enumerate(self.saved):
                # The trees that others were attached from are what they were.
                name = b"last%d" % number
                self.world.filesystem.attach(self.world.ino(b""), name, snapshot)
                trio.run(self.compare, name, directory, links_in(directory))
        finally:
            trio.run(self.world.aclose)
            shutil.rmtree(self.home)

    @rule(path=paths, offset=st.sampled_from(OFFSETS), length=st.sampled_from((0, 1, 10, 5000, 150_000)), byte=st.binary(min_size=1, max_size=1))  # noqa: E501  # fmt: skip
    def write(self, path: bytes, offset: int, length: int, byte: bytes) -> None:
        if self.is_link(path):
            return
        data = byte * length
        self.both(partial(self.model.write, path, offset, data), lambda: self.world.write(path, data, offset=offset))

    @rule(path=paths, size=st.sampled_from(OFFSETS))
    def truncate(self, path: bytes, size: int) -> None:
        if not self.is_link(path):
            self.both(partial(self.model.truncate, path, size), lambda: self.setattr(path, AttributeChanges(size=size)))

    @rule(path=paths, mode=st.sampled_from((0o600, 0o755)))
    def chmod(self, path: bytes, mode: int) -> None:
        def change() -> None:
            self.model.find(path).mode = mode

        if not self.is_link(path):
            self.both(change, lambda: self.setattr(path, AttributeChanges(mode=mode)))

    @rule(path=paths)
    def mkdir(self, path: bytes) -> None:
        self.both(lambda: self.model.add(path, Directory()), lambda: self.world.mkdir(path))

    @rule(path=paths)
    def symlink(self, path: bytes) -> None:
        def make() -> None:
            self.world.filesystem.symlink(*self.world.place(path), b"to", CALLER)

        self.both(lambda: self.model.add(path, Link(b"to")), make)

    @rule(path=paths)
    def unlink(self, path: bytes) -> None:
        self.both(partial(self.model.remove, path, directory=False), lambda: self.world.unlink(path))

    @rule(path=paths)
    def rmdir(self, path: bytes) -> None:
        def remove() -> None:
            self.world.filesystem.rmdir(*self.world.place(path))

        self.both(partial(self.model.remove, path, directory=True), remove)

    @rule(old=paths, new=paths, flags=st.sampled_from((0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE)))
    def rename(self, old: bytes, new: bytes, flags: int) -> None:
        self.both(partial(self.model.rename, old, new, flags), lambda: self.world.rename(old, new, flags))

    @rule(old=paths, new=paths)
    def link(self, old: bytes, new: bytes) -> None:
        def link() -> None:
            ino = self.world.ino(old)
            self.world.filesystem.link(ino, *self.world.place(new))

        self.both(partial(self.model.link, old, new), link)

    @rule(path=st.one_of(st.just(b""), paths))
    def take_snapshot(self, path: bytes) -> None:
        try:
            directory = self.model.find(path)
        except Refused:
            return
        if isinstance(directory, Directory):
            outcome = trio.run(partial(self.world.filesystem.snapshot, self.world.ino(path)))
            assert outcome.open_for_writing == []
            self.saved.append((outcome.snapshot, copy.deepcopy(directory)))

    @precondition(lambda self: self.saved and self.attached < 6)
    @rule(path=paths, which=st.integers(0, 100))
    def attach(self, path: bytes, which: int) -> None:
        snapshot, directory = self.saved[which % len(self.saved)]
        self.attached += 1

        def attach() -> None:
            self.world.filesystem.attach(*self.world.place(path), snapshot)

        self.both(lambda: self.model.add(path, copy.deepcopy(directory)), attach)

    @rule(path=paths)
    def discard(self, path: bytes) -> None:
        def forget() -> None:
            parent, name = self.model.place(path)
            self.model.find(path)
            del parent.names[name]

        def discard() -> None:
            self.world.filesystem.discard(*self.world.place(path))
            self.unswept = True

        self.both(forget, discard)

    @rule()
    def sweep(self) -> None:
        assert trio.run(self.world.filesystem.sweep) == 0
        self.unswept = False

    @rule()
    def seal(self) -> None:
        trio.run(self.world.filesystem.seal_all)
        assert self.world.filesystem.staged_files() == 0

    @rule()
    def kill(self) -> None:
        self.world.kill()

    @invariant()
    def agree(self) -> None:
        if hasattr(self, "model"):
            trio.run(self.compare, b"", self.model.root, links_in(self.model.root))

    async def compare(self, path: bytes, directory: Directory, links: Counter[int]) -> None:
        names = self.world.names(path)
        assert names == sorted(directory.names), path
        seen = self.world.stat(path)
        assert seen.nlink == 2 + sum(isinstance(node, Directory) for node in directory.names.values())
        if path:
            assert seen.mode == stat.S_IFDIR | directory.mode
        for name, node in directory.names.items():
            at = path + b"/" + name if path else name
            if isinstance(node, Directory):
                await self.compare(at, node, links)
                continue
            found = self.world.stat(at)
            # Names in the trash count until they are swept.
            expected = links[id(node)]
            assert found.nlink == expected or (self.unswept and found.nlink > expected), at
            if isinstance(node, Link):
                assert self.world.filesystem.readlink(found.ino) == node.target
            else:
                assert (found.mode, found.size) == (stat.S_IFREG | node.mode, len(node.content)), at
                assert await self.world.read(at) == node.content, at

    def both(self, model: Callable[[], object], real: Callable[[], Awaitable[object] | object]) -> None:
        """Do the same to both; both do it, or both refuse it for the same reason."""
        expected = got = 0
        try:
            model()
        except Refused as exc:
            expected = exc.errno

        async def act() -> None:
            outcome = real()
            if isinstance(outcome, Awaitable):
                await outcome

        try:
            trio.run(act)
        except PosixError as exc:
            got = exc.errno
        assert errno.errorcode.get(got) == errno.errorcode.get(expected)

    async def setattr(self, path: bytes, changes: AttributeChanges) -> None:
        await self.world.filesystem.setattr(self.world.ino(path), changes, CALLER)

    def is_link(self, path: bytes) -> bool:
        try:
            return isinstance(self.model.find(path), Link)
        except Refused:
            return False


TestFilesystemModel = FilesystemComparison.TestCase
TestFilesystemModel.settings = settings(
    max_examples=15, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.slow
class TestFilesystemModelForLonger(FilesystemComparison.TestCase):
    settings = settings(TestFilesystemModel.settings, max_examples=150)
