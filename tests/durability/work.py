"""A mixed load that keeps a ledger: files are written, synced, replaced and deleted, trees saved and attached."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from taskvault.client import Client
from taskvault.mounted import MountedTree
from taskvault.protocol import messages as m
from taskvault.snapshots import take_snapshot
from tests.durability.ledger import Line, Value

SIZES = (0, 100, 5_000, 60_000, 150_000, 400_000)
MOST_FILES = 24
MOST_TREES = 8

Announce = Callable[[Line], None]


class Writer:
    """Does one thing after the other to files in a directory of its own, with the system calls of a program."""

    def __init__(self, mount: Path, name: str, rng: random.Random, announce: Announce) -> None:
        self._mount = mount
        self._root = mount / "work" / name
        self._path = f"work/{name}"
        self._rng = rng
        self._announce = announce
        self.files: dict[str, bytes] = {}
        self._number = 0
        self._steps: tuple[tuple[int, Callable[[], None]], ...] = (
            (5, self.create), (5, self.replace), (4, self.overwrite), (3, self.append), (2, self.truncate),
            (3, self.rename), (3, self.delete), (2, self.write_carelessly),
        )  # fmt: skip

    def begin(self, known: Mapping[str, Sequence[Value]] | None = None) -> None:
        """Make the directory, or go on with what is known to be there, by path."""
        self._root.mkdir(exist_ok=True)
        sync_directory(self._root.parent)
        self.files = {
            path.removeprefix(f"{self._path}/"): value
            for path, [value] in (known or {}).items()
            if value is not None and path.startswith(f"{self._path}/")
        }

    def step(self) -> None:
        """Do something."""
        weights, steps = zip(*self._steps, strict=True)
        self._rng.choices(steps, weights)[0]()

    def create(self) -> None:
        """A new file, synced; not its directory: the sync of a new file is one of its name too."""
        name, content = self._fresh(), self._content()
        self._say(False, {name: content}, in_place=True)
        with open(self._root / name, "xb", buffering=0) as file:
            write_all(file.fileno(), content)
            os.fsync(file.fileno())
        self._say(True, {name: content})

    def replace(self) -> None:
        """As an editor saves: another file, synced, takes the place."""
        name = self._any() or self._fresh()
        content = self._content()
        beside = self._root / f"{name}.new"
        with open(beside, "wb", buffering=0) as file:
            write_all(file.fileno(), content)
            os.fsync(file.fileno())
        self._say(False, {name: content})
        os.rename(beside, self._root / name)
        sync_directory(self._root)
        self._say(True, {name: content})

    def overwrite(self) -> None:
        name = self._any()
        if name is None:
            return
        old = self.files[name]
        at = self._rng.randrange(len(old) + 1)
        part = self._rng.randbytes(self._rng.choice((10, 3_000, 140_000)))
        self._change(name, old[:at] + part + old[at + len(part) :], lambda fd: write_all(fd, part, at))

    def append(self) -> None:
        name = self._any()
        if name is None:
            return
        old, part = self.files[name], self._rng.randbytes(self._rng.choice((20, 9_000)))
        self._change(name, old + part, lambda fd: write_all(fd, part, len(old)))

    def truncate(self) -> None:
        name = self._any()
        if name is None:
            return
        old = self.files[name]
        size = self._rng.choice((0, len(old) // 2, len(old) + 5_000))
        self._change(name, old[:size].ljust(size, b"\0"), lambda fd: os.ftruncate(fd, size))

    def rename(self) -> None:
        name = self._any()
        if name is None:
            return
        new, content = self._fresh(), self.files[name]
        facts: dict[str, Value] = {name: None, new: content}
        self._say(False, facts, one_of=[name, new])
        os.rename(self._root / name, self._root / new)
        sync_directory(self._root)
        self._say(True, facts)

    def delete(self) -> None:
        name = self._any()
        if name is None:
            return
        self._say(False, {name: None})
        os.unlink(self._root / name)
        sync_directory(self._root)
        self._say(True, {name: None})

    def write_carelessly(self) -> None:
        """Without a sync: a power loss may leave a part of it."""
        name = self._fresh()
        content = self._content()
        self._say(False, {name: content}, in_place=True)
        with open(self._root / name, "xb", buffering=0) as file:
            write_all(file.fileno(), content)
        self._announce(Line(True, {f"{self._path}/{name}": content}, handed_over=True))

    def _change(self, name: str, content: bytes, how: Callable[[int], None]) -> None:
        self._say(False, {name: content}, in_place=True)
        descriptor = os.open(self._root / name, os.O_RDWR | os.O_CLOEXEC)
        try:
            how(descriptor)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._say(True, {name: content})

    def _say(
        self, promised: bool, facts: dict[str, Value], *, in_place: bool = False, one_of: Sequence[str] = ()
    ) -> None:
        named = {f"{self._path}/{name}": value for name, value in facts.items()}
        self._announce(Line(promised, named, in_place, [f"{self._path}/{name}" for name in one_of]))
        if promised:
            for name, value in facts.items():
                if value is None:
                    self.files.pop(name, None)
                else:
                    self.files[name] = value

    def _any(self) -> str | None:
        if len(self.files) > MOST_FILES and self._rng.random() < 0.5:
            self.delete_one()
        return self._rng.choice(sorted(self.files)) if self.files else None

    def delete_one(self) -> None:
        """Keep the number of files bounded."""
        name = min(self.files)
        self._say(False, {name: None})
        os.unlink(self._root / name)
        sync_directory(self._root)
        self._say(True, {name: None})

    def _fresh(self) -> str:
        self._number += 1
        return f"f{self._number}"

    def _content(self) -> bytes:
        return self._rng.randbytes(self._rng.choice(SIZES))


class Saver:
    """Saves trees from beside the mount and from below it, attaches and removes them, lets go of them."""

    def __init__(self, home: Path, mount: Path, outside: Path, rng: random.Random, announce: Announce) -> None:
        self._home = home
        self._mount = mount
        self._outside = outside
        self._rng = rng
        self._announce = announce
        self._number = 0
        self._saved: dict[str, dict[str, bytes]] = {}
        self._attached: dict[str, dict[str, bytes]] = {}

    def begin(self, known: Mapping[str, Sequence[Value]] | None = None) -> None:
        """Go on with what is known to be there, by path."""
        self._saved, self._attached = {}, {}
        for path, [value] in (known or {}).items():
            top, _, name = path.rpartition("/")
            if value is not None and top.startswith("keys/main/"):
                self._saved.setdefault(top.removeprefix("keys/main/"), {})[name] = value
            elif value is not None and top.startswith("work/attached"):
                self._attached.setdefault(top.removeprefix("work/"), {})[name] = value

    def step(self) -> None:
        """Do something, in a connection of its own."""
        with Client.connect(self._home, timeout_s=20) as client:
            self._number += 1
            doing = self._rng.choice((self.save, self.save_live, self.attach, self.remove, self.forget))
            if len(self._saved) > MOST_TREES:
                doing = self.forget
            elif len(self._attached) > MOST_TREES:
                doing = self.remove
            doing(client)

    def save(self, client: Client) -> None:
        """A tree from beside the mount: this process writes the packs."""
        tree = self._outside / f"tree{self._number}"
        self._keep(client, tree)
        shutil.rmtree(tree)

    def save_live(self, client: Client) -> None:
        """A tree from below the mount: the owner seals it."""
        self._keep(client, self._mount / "work" / f"live{self._number}")

    def _keep(self, client: Client, tree: Path) -> None:
        files = {f"{number}": self._rng.randbytes(self._rng.choice((50, 9_000, 200_000))) for number in range(4)}
        tree.mkdir()
        for name, content in files.items():
            (tree / name).write_bytes(content)
        key = f"k{self._number}"
        self._say(False, f"keys/main/{key}", files)
        client.call(m.SaveEntry("main", key, "saved", take_snapshot(client, tree, list(files))), timeout_s=60)
        self._say(True, f"keys/main/{key}", files)
        self._saved[key] = files

    def attach(self, client: Client) -> None:
        """A saved tree again, and one of its files written."""
        if not self._saved:
            return
        key = self._rng.choice(sorted(self._saved))
        name = f"attached{self._number}"
        snapshot = client.call(m.GetEntry("main", key)).entry
        assert snapshot is not None
        assert snapshot.snapshot is not None
        tree, target = MountedTree.of(client), self._mount / "work" / name
        assert tree is not None
        files = dict(self._saved[key])
        self._say(False, f"work/{name}", files)
        tree.attach(snapshot.snapshot, target)
        sync_directory(target.parent)
        self._say(True, f"work/{name}", files)
        self._attached[name] = files

    def remove(self, client: Client) -> None:
        if not self._attached:
            return
        name = self._rng.choice(sorted(self._attached))
        tree = MountedTree.of(client)
        assert tree is not None
        gone: dict[str, Value] = dict.fromkeys(self._attached.pop(name))
        self._say(False, f"work/{name}", gone)
        tree.remove(self._mount / "work" / name)
        sync_directory(self._mount / "work")
        self._say(True, f"work/{name}", gone)

    def forget(self, client: Client) -> None:
        """Let go of an entry."""
        if len(self._saved) < 3:
            return
        key = self._rng.choice(sorted(self._saved))
        gone: dict[str, Value] = dict.fromkeys(self._saved.pop(key))
        self._say(False, f"keys/main/{key}", gone)
        client.call(m.RemoveEntry("main", key))
        self._say(True, f"keys/main/{key}", gone)

    def _say(self, promised: bool, place: str, files: dict[str, bytes] | dict[str, Value]) -> None:
        self._announce(Line(promised, {f"{place}/{name}": value for name, value in files.items()}))


def sync_directory(path: Path) -> None:
    """Return when the names in a directory survive a power loss."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, content: bytes, offset: int = 0) -> None:
    """Write all of it at an offset."""
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
