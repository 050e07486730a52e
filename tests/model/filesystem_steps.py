"""`tvfs.filesystem` beside the model of dictionaries, without a kernel: as many steps as one wants, from a seed.

`python -m tests.model.filesystem_steps --steps 1000000 --seed 1`; `--life SEED` has one life again, `--plant NAME` with
a planted bug.  Every answer is compared; all names, attributes and bytes every few steps and at the end of a life.
"""

from __future__ import annotations

import argparse
import copy
import errno
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio

from tests.model.filesystem_model import NAMES, OFFSETS, Directory, File, Link, Model, Refused, links_in
from tests.model.filesystem_referee import compare, demand, nodes_below
from tvfs.content.snapshot import Snapshot
from tvfs.filesystem.evictables import QUIET_S
from tvfs.filesystem.model import RENAME_EXCHANGE, RENAME_NOREPLACE, AttributeChanges, Handle, Ino
from tvfs.filesystem.posix_error import PosixError
from tvfs.filesystem.settings import FilesystemSettings
from tvfs.testing.memory_vault import CALLER, MemoryWorld

LIFE_STEPS = 1_000
COMPARE_EVERY = 40
MOST_NODES = 120
MOST_HANDLES = 4
LENGTHS = (0, 1, 10, 10, 5_000, 5_000, 5_000, 150_000)
MEMORY = Path("/dev/shm")


@dataclass
class Opened:
    """A handle, and the file that it is open on, whatever becomes of its names."""

    handle: Handle
    ino: Ino
    file: File
    writes: bool


class Life:
    """One vault and its model, from the making to the end; a step that cannot be taken does nothing."""

    def __init__(self, home: Path, seed: int) -> None:
        self.random = random.Random(seed)
        # Where short files are staged: mostly as usual, else nearly all in files, or all.
        in_row_bytes = random.Random(~seed).choice((None, None, 0, 64, 4096))
        settings = (
            FilesystemSettings() if in_row_bytes is None else FilesystemSettings(staged_in_row_bytes=in_row_bytes)
        )
        self.world = MemoryWorld(home, settings=settings)
        self.model = Model()
        self.saved: list[tuple[Snapshot, Directory]] = []
        self.opened: list[Opened] = []
        self.marked: list[Directory] = []
        self.unswept = False
        self.mix: Counter[str] = Counter()
        self.happened: Counter[str] = Counter()
        self.trace: list[str] = []

    async def run(self, steps: int) -> None:
        """Take steps, and compare."""
        names, weights = list(WEIGHTS), list(WEIGHTS.values())
        for number, name in enumerate(self.random.choices(names, weights, k=steps), 1):
            self.mix[name] += 1
            self.trace = [*self.trace[-12:], name]
            await getattr(self, name)()
            if number % COMPARE_EVERY == 0:
                await self.compare_all()
        await self.finish()

    async def finish(self) -> None:
        """Close everything; compare, and what the trees are that others were attached from."""
        await self.compare_all()
        for opened in self.opened:
            self.world.filesystem.release(opened.handle)
        self.opened.clear()
        await self.compare_all()
        for number, (snapshot, directory) in enumerate(self.saved):
            name = b"last%d" % number
            self.world.filesystem.attach(self.world.ino(b""), name, snapshot)
            await compare(self.world, name, directory, links_in(directory), more_links=False)
        await self.world.aclose()

    async def compare_all(self) -> None:
        """Names, attributes and bytes."""
        root = self.model.root
        await compare(self.world, b"", root, links_in(root), more_links=self.unswept)
        for opened in self.opened:
            found = await self._read_handle(opened, 0, len(opened.file.content) + 1)
            demand(found == opened.file.content, "an open file has other content")

    # Names.

    async def mkdir(self) -> None:
        path = self._path()
        await self._both(lambda: self.model.add(path, Directory()), lambda: self.world.mkdir(path))

    async def symlink(self) -> None:
        path = self._path()
        make = self.world.filesystem.symlink
        await self._both(
            lambda: self.model.add(path, Link(b"to")), lambda: make(*self.world.place(path), b"to", CALLER)
        )

    async def unlink(self) -> None:
        path = self._path()
        await self._both(partial(self.model.remove, path, directory=False), lambda: self.world.unlink(path))

    async def rmdir(self) -> None:
        path = self._path()
        remove = self.world.filesystem.rmdir
        await self._both(partial(self.model.remove, path, directory=True), lambda: remove(*self.world.place(path)))

    async def rename(self) -> None:
        old, new = self._path(), self._path()
        flags = self.random.choice((0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE))
        await self._both(partial(self.model.rename, old, new, flags), lambda: self.world.rename(old, new, flags))

    async def link(self) -> None:
        old, new = self._path(), self._path()
        link = self.world.filesystem.link
        await self._both(partial(self.model.link, old, new), lambda: link(self.world.ino(old), *self.world.place(new)))

    async def chmod(self) -> None:
        path, mode = self._path(), self.random.choice((0o600, 0o755, 0o4711))

        def change() -> None:
            self.model.find(path).mode = mode

        if not self._is_link(path):
            await self._both(change, lambda: self._setattr(path, AttributeChanges(mode=mode)))

    async def discard(self) -> None:
        """Throw a name away with all below it, as the owner does."""
        path = self._path()

        def forget() -> None:
            parent, name = self.model.place(path)
            self.model.find(path)
            del parent.names[name]

        if not self._is_open_below(path):
            discard = self.world.filesystem.discard
            await self._both(forget, lambda: discard(*self.world.place(path)))
            self.unswept = True

    # Files.

    async def write(self) -> None:
        path, offset, data = self._path(), self.random.choice(OFFSETS), self._data()
        if not self._is_link(path):
            await self._both(
                partial(self.model.write, path, offset, data), lambda: self.world.write(path, data, offset=offset)
            )

    async def replace(self) -> None:
        """Open with O_TRUNC and write."""
        path, data = self._path(), self._data()

        def change() -> None:
            self.model.write(path, 0, b"")
            self.model.truncate(path, 0)
            self.model.write(path, 0, data)

        if not self._is_link(path):
            await self._both(change, lambda: self.world.write(path, data, flags=os.O_TRUNC))

    async def truncate(self) -> None:
        path, size = self._path(), self.random.choice(OFFSETS)
        if not self._is_link(path):
            await self._both(
                partial(self.model.truncate, path, size), lambda: self._setattr(path, AttributeChanges(size=size))
            )

    async def read(self) -> None:
        path = self._path()
        node = self._node(path)
        if isinstance(node, File):
            demand(await self.world.read(path) == node.content, f"{path!r} has other content")

    async def open(self) -> None:
        path = self._path()
        node = self._node(path)
        if isinstance(node, File) and len(self.opened) < MOST_HANDLES:
            writes = self.random.random() < 0.6
            ino = self.world.ino(path)
            handle = await self.world.filesystem.open(ino, os.O_RDWR if writes else os.O_RDONLY, CALLER)
            self.opened.append(Opened(handle, ino, node, writes))

    async def close(self) -> None:
        if self.opened:
            opened = self.opened.pop(self.random.randrange(len(self.opened)))
            self.world.filesystem.release(opened.handle)

    async def write_open(self) -> None:
        """Write through a handle, whether or not the file still has a name."""
        for opened in self._one_open(writes=True):
            offset, data = self.random.choice((*OFFSETS, len(opened.file.content))), self._data()
            await self.world.write_to(opened.handle, offset, data)
            if data:
                before = opened.file.content[:offset].ljust(offset, b"\0")
                opened.file.content = before + data + opened.file.content[offset + len(data) :]

    async def truncate_open(self) -> None:
        for opened in self._one_open(writes=True):
            size = self.random.choice(OFFSETS)
            await self.world.filesystem.setattr(opened.ino, AttributeChanges(size=size), CALLER)
            opened.file.content = opened.file.content[:size].ljust(size, b"\0")

    async def read_open(self) -> None:
        for opened in self._one_open(writes=False):
            offset, length = self.random.choice(OFFSETS), self.random.choice((1, 4096, 200_000))
            found = await self._read_handle(opened, offset, length)
            demand(found == opened.file.content[offset : offset + length], "an open file reads otherwise")

    async def fsync(self) -> None:
        for opened in self._one_open(writes=False):
            await self.world.filesystem.fsync(opened.handle, False)

    # Snapshots and eviction.

    async def snapshot(self) -> None:
        """Of any directory, also while files in it are open for writing: they are named."""
        path = self.random.choice((b"", self._path()))
        node = self._node(path)
        if not isinstance(node, Directory) or len(self.saved) >= 12:
            return
        outcome = await self.world.filesystem.snapshot(self.world.ino(path), allow_open=True)
        inside = {id(each) for _, each in nodes_below(node)}
        written = {id(opened.file) for opened in self.opened if opened.writes and id(opened.file) in inside}
        named = {id(self.model.find(path + b"/" + each)) for each in outcome.open_for_writing}
        demand(named == written, f"of {len(written)} files open for writing {len(named)} are named")
        self.happened["snapshots with writers"] += bool(written)
        self.saved.append((outcome.snapshot, copy.deepcopy(node)))
        self._hold()

    async def attach(self) -> None:
        if not self.saved or len(nodes_below(self.model.root)) > MOST_NODES:
            return
        path, (snapshot, directory) = self._path(), self.random.choice(self.saved)
        attach = self.world.filesystem.attach
        await self._both(
            lambda: self.model.add(path, copy.deepcopy(directory)), lambda: attach(*self.world.place(path), snapshot)
        )

    async def mark(self) -> None:
        """Let the files below a directory be evictable, or not any more."""
        path = self._path()
        node = self._node(path)
        if isinstance(node, Directory):
            evictable = self.random.random() < 0.7
            self.world.filesystem.evictables.mark(self.world.ino(path), evictable)
            self.marked = [each for each in self.marked if each is not node] + [node] * evictable
            await self.world.filesystem.gatherer.gather()

    async def evict(self) -> None:
        """Evict some files: they are in evictable directories, have one name, and nobody has them open."""
        evictables = self.world.filesystem.evictables
        told: list[tuple[int, bytes]] = []
        evictables.tell = lambda parent, name, ino: told.append((parent, name))
        self.world.clock.advance(2 * QUIET_S)
        for _ in range(self.random.randrange(1, 4)):
            for candidate in evictables.lowest(1):
                evictables.let_go(candidate)
        places = {self.world.ino(path): node for path, node in self._directories()}
        evictable = {id(inner) for top in self._marked_in_place() for inner in [top, *_directories_below(top)]}
        links = links_in(self.model.root)
        for parent, name in told:
            directory = places.get(Ino(parent))
            if directory is None:
                demand(self.unswept, "a file was evicted from a directory that is nowhere")  # from the trash
                continue
            gone = directory.names.pop(name, None)
            demand(isinstance(gone, File), "what was evicted is no file, or was not there")
            demand(id(directory) in evictable, "a file was evicted from a directory that is not evictable")
            demand(links[id(gone)] == 1 or self.unswept, "a file with several names was evicted")
            demand(all(opened.file is not gone for opened in self.opened), "an open file was evicted")
            self.happened["evicted"] += 1

    async def gather(self) -> None:
        await self.world.filesystem.gatherer.gather()

    async def sweep(self) -> None:
        await self.world.filesystem.sweep()
        self.unswept = bool(self.opened)

    async def seal(self) -> None:
        await self.world.filesystem.seal_all()
        if not self.opened:
            demand(self.world.filesystem.staged_files() == 0, "files stay staged")

    async def collect(self) -> None:
        """Let go of the content that nothing refers to, long after."""
        self.world.clock.advance(3_600)
        await self.world.vault.collector.collect()

    # Ends.

    async def kill(self) -> None:
        self.world.kill()
        self._hold()
        self.opened.clear()
        self.unswept = True

    async def restart(self) -> None:
        for opened in self.opened:
            self.world.filesystem.release(opened.handle)
        self.opened.clear()
        await self.world.restart()
        self._hold()
        self.unswept = True

    def _hold(self) -> None:
        """As a client does that keeps what it has saved; leases end with the process."""
        self.world.vault.leases.hold("model", [snapshot.index for snapshot, _ in self.saved])

    # What they need.

    def _path(self) -> bytes:
        """Something that is there, more often than not."""
        if self.random.random() < 0.45:
            return b"/".join(self.random.choices(NAMES, k=self.random.choice((1, 1, 2, 2, 3))))
        path, node = [], self.model.root
        while isinstance(node, Directory) and node.names and not (path and self.random.random() < 0.3):
            path.append(self.random.choice(sorted(node.names)))
            node = node.names[path[-1]]
        return b"/".join(path) or NAMES[0]

    def _data(self) -> bytes:
        return bytes([self.random.randrange(256)]) * self.random.choice(LENGTHS)

    def _node(self, path: bytes) -> Any:
        try:
            return self.model.find(path)
        except Refused:
            return None

    def _is_link(self, path: bytes) -> bool:
        return isinstance(self._node(path), Link)

    def _is_open_below(self, path: bytes) -> bool:
        node = self._node(path)
        inside = {id(node)} | ({id(each) for _, each in nodes_below(node)} if isinstance(node, Directory) else set())
        return any(id(opened.file) in inside for opened in self.opened)

    def _one_open(self, *, writes: bool) -> list[Opened]:
        found = [opened for opened in self.opened if opened.writes or not writes]
        return [self.random.choice(found)] if found else []

    def _directories(self) -> Iterator[tuple[bytes, Directory]]:
        yield b"", self.model.root
        for path, node in nodes_below(self.model.root):
            if isinstance(node, Directory):
                yield path, node

    def _marked_in_place(self) -> list[Directory]:
        there = {id(node) for _, node in self._directories()}
        return [top for top in self.marked if id(top) in there]

    async def _setattr(self, path: bytes, changes: AttributeChanges) -> None:
        await self.world.filesystem.setattr(self.world.ino(path), changes, CALLER)

    async def _read_handle(self, opened: Opened, offset: int, length: int) -> bytes:
        found = self.world.filesystem.read_nowait(opened.handle, offset, length)
        if found is None:
            found = await self.world.filesystem.read(opened.handle, offset, length)
        return bytes(found)

    async def _both(self, model: Callable[[], object], real: Callable[[], Awaitable[object] | object]) -> None:
        """Do the same to both; both do it, or both refuse it for the same reason."""
        expected = got = 0
        try:
            model()
        except Refused as exc:
            expected = exc.errno
        try:
            outcome = real()
            if isinstance(outcome, Awaitable):
                await outcome
        except PosixError as exc:
            got = exc.errno
        demand(got == expected, f"{errno.errorcode.get(got)} instead of {errno.errorcode.get(expected)}")
        self.happened["refused alike"] += bool(got)


WEIGHTS = {
    "write": 14, "replace": 4, "truncate": 8, "read": 6, "mkdir": 8, "symlink": 2, "unlink": 6, "rmdir": 3,
    "rename": 12, "link": 5, "chmod": 4, "discard": 1, "open": 6, "close": 4, "write_open": 8, "truncate_open": 3,
    "read_open": 6, "fsync": 1, "snapshot": 2, "attach": 4, "mark": 2, "evict": 2, "gather": 1, "sweep": 2, "seal": 4,
    "collect": 1, "kill": 1, "restart": 1,
}  # fmt: skip


def _directories_below(top: Directory) -> list[Directory]:
    return [node for _, node in nodes_below(top) if isinstance(node, Directory)]


class Failure(AssertionError):
    """A life went wrong; says how to have it again."""

    def __init__(self, seed: int, life: Life | None, cause: BaseException) -> None:
        trace = life.trace if life else []
        super().__init__(
            f"life {seed} went wrong ({', '.join(trace[-6:])}): {type(cause).__name__}: {cause};"
            f" again: python -m tests.model.filesystem_steps --life {seed}"
        )
        self.steps = sum(life.mix.values()) if life else 0
        self.cause = cause


@contextmanager
def _home() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="tv-model-", dir=MEMORY if MEMORY.is_dir() else None))
    try:
        yield home
    finally:
        shutil.rmtree(home)


def live(seed: int, steps: int = LIFE_STEPS) -> Life:
    """Run one life; raise `Failure`."""
    lives: list[Life] = []

    async def run(home: Path) -> None:
        lives.append(Life(home, seed))
        await lives[0].run(steps)

    with _home() as home:
        try:
            trio.run(run, home)
        except Exception as exc:
            cause: BaseException = exc
            while isinstance(cause, BaseExceptionGroup):
                cause = cause.exceptions[0]
            raise Failure(seed, lives[0] if lives else None, cause) from exc
    return lives[0]


def run_lives(steps: int, seed: int, *, progress_every: int = 0) -> tuple[Counter[str], Counter[str]]:
    """Run as many lives as it takes; return the mix of steps, and what happened in them."""
    mix: Counter[str] = Counter()
    happened: Counter[str] = Counter()
    number = 0
    while sum(mix.values()) < steps:
        life = live(seed + number, min(LIFE_STEPS, steps - sum(mix.values())))
        mix += life.mix
        happened += life.happened
        number += 1
        if progress_every and number % progress_every == 0:
            print(f"{sum(mix.values())} steps, seeds {seed}..{seed + number - 1}", flush=True)
    return mix, happened


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1, help="of the first life; the next ones follow")
    parser.add_argument("--life", type=int, help="run one life again, by its seed")
    parser.add_argument("--plant", help="with a planted bug: see tests/model/filesystem_planted.py")
    wanted = parser.parse_args()
    if wanted.plant:
        from tests.model.filesystem_planted import PLANTED

        PLANTED[wanted.plant].plant().__enter__()
    if wanted.life is not None:
        print(live(wanted.life).happened)
        return 0
    began_s = time.monotonic()
    mix, happened = run_lives(wanted.steps, wanted.seed, progress_every=50)
    print(f"seed {wanted.seed}: {sum(mix.values())} steps, clean, {time.monotonic() - began_s:.0f} s")
    print(f"steps: {dict(mix.most_common())}\nwhat happened in them: {dict(happened.most_common())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
