"""A vault with one of everything in it, made once and copied for each test, and what can be read out of it."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tvd.entry_views import EntryViews
from tvfs.catalog.rocks import RocksCatalog
from tvfs.clock import ManualClock
from tvfs.content.snapshot import Snapshot
from tvfs.errors import TaskVaultError
from tvfs.filesystem.filesystem import Filesystem
from tvfs.filesystem.lookups import LookupCounts
from tvfs.filesystem.model import KEYS, RUNS, SNAPSHOTS, WORK, Caller, Ino
from tvfs.filesystem.settings import FilesystemSettings
from tvfs.fsck.finding import Finding
from tvfs.fsck.run import FsckReport, fsck
from tvfs.plugin_api import PluginRegistry
from tvfs.vault.create import create_vault
from tvfs.vault.entries import StoredEntry, StoredSnapshot
from tvfs.vault.superblock import VaultSettings
from tvfs.vault.vault import Vault, open_vault

REGISTRY = PluginRegistry()
CALLER = Caller(os.getuid(), os.getgid())
CHUNKING = {"min_bytes": 64, "avg_bytes": 256, "max_bytes": 1024}
"""So small that a file of half a megabyte has a paged manifest."""
ALL = frozenset({WORK, KEYS, RUNS, SNAPSHOTS})


@dataclass
class World:
    """An open vault, as a program would use it."""

    vault: Vault
    filesystem: Filesystem
    views: EntryViews

    async def write(self, parent: Ino, name: bytes, content: bytes, *, offset: int = 0) -> Ino:
        found = self.filesystem.lookup(parent, name)
        if hasattr(found, "attributes"):
            ino = found.attributes.ino
            handle = await self.filesystem.open(ino, os.O_WRONLY, CALLER)
        else:
            handle, made = await self.filesystem.create(parent, name, 0o644, os.O_WRONLY, CALLER)
            ino = made.attributes.ino
        for start in range(0, len(content), 100_000):
            await self.filesystem.write(handle, offset + start, content[start : start + 100_000])
        self.filesystem.release(handle)
        return ino

    async def seal(self) -> None:
        """Seal everything; a disk without room would leave files staged and say nothing, and the sample be another."""
        await self.filesystem.seal_all()
        assert not self.filesystem.staged_files(), "there is no room on this disk to seal the sample"

    def mkdir(self, parent: Ino, name: bytes) -> Ino:
        return self.filesystem.mkdir(parent, name, 0o755, CALLER).attributes.ino

    async def snapshot(self, ino: Ino) -> Snapshot:
        return (await self.filesystem.snapshot(ino)).snapshot

    async def save(self, scope: str, key: str, snapshot: Snapshot, *, kind: str = "saved", run: int = 0) -> None:
        attributes = None if snapshot.attributes is None else str(snapshot.attributes)
        stored = StoredSnapshot(str(snapshot.tree), attributes, snapshot.index, snapshot.files, snapshot.size)
        entry = StoredEntry(scope, key, kind, 1, 1, snapshot=stored)
        with self.views.changing(scope, key):
            self.views.hide(scope, key)
            self.views.show(entry)
            await self.vault.entries.put(entry, who="test", replace=True)
        if run:
            self.vault.runs.append(b"\x80")
            with self.views.changing(scope, key):
                self.views.show_run(entry, run)


@asynccontextmanager
async def opened(home: Path, *, sweep_slice: int = 256, clock: ManualClock | None = None) -> AsyncIterator[World]:
    clock = clock or ManualClock()
    async with open_vault(home, PluginRegistry(), clock=clock) as vault:
        settings = FilesystemSettings(owner_uid=os.getuid(), owner_gid=os.getgid(), sweep_slice=sweep_slice)
        filesystem = Filesystem(vault, clock=clock, settings=settings, lookups=LookupCounts(), boot="boot")
        filesystem.start()
        views = EntryViews(vault.catalog, filesystem, vault.entries)
        views.repair()
        try:
            yield World(vault, filesystem, views)
        finally:
            await filesystem.aclose()


async def make(home: Path) -> None:
    """Make the sample; the same bytes each time."""
    random = Random(7)
    settings = VaultSettings(capacity_bytes=256 << 20, chunking_parameters=dict(CHUNKING))
    create_vault(home, settings=settings, registry=PluginRegistry())
    async with opened(home) as world:
        fs = world.filesystem
        plain = world.mkdir(WORK, b"plain")
        await world.write(plain, b"empty", b"")
        await world.write(plain, b"small", b"small\n")
        await world.write(plain, b"large", random.randbytes(340_000))
        await world.write(plain, b"medium", random.randbytes(20_000))
        fs.symlink(plain, b"link", b"small", CALLER)
        fs.mknod(plain, b"pipe", stat.S_IFIFO | 0o644, 0, CALLER)
        linked = await world.write(plain, b"one", random.randbytes(3000))
        fs.link(linked, plain, b"other")
        deep = world.mkdir(world.mkdir(plain, b"sub"), b"deep")
        for number in range(280):
            await world.write(deep, b"file %d" % number, b"content %d" % number)
        tagged = await world.write(plain, b"tagged", b"tagged")
        fs.setxattr(tagged, b"user.name", b"value")
        await world.seal()
        whole, part = await world.snapshot(plain), await world.snapshot(deep)
        await world.save("main", "deps-linux-1", whole)
        await world.save("pr/7", "other", part)
        await world.save(".snapshots", "kept", whole, kind="snapshot")
        small = world.mkdir(WORK, b"result")
        await world.write(small, b"stdout", b"it said\n")
        await world.seal()
        await world.save("main", "run-1", await world.snapshot(small), kind="run", run=1)
        attached = fs.attach(WORK, b"attached", whole, owner=None, read_only=False)
        await world.write(attached, b"small", b"changed\n")
        fs.unlink(attached, b"medium")
        await world.write(attached, b"added", random.randbytes(5000))
        fs.rename(fs.resolve(b"sub", attached), b"deep", WORK, b"moved", 0)
        await world.seal()
        await world.write(WORK, b"staged", random.randbytes(7000))
        await world.write(plain, b"large", b"overwritten", offset=200_000)
        await fs.sweep()
        await world.vault.catalog.flush()


def copy(template: Path, target: Path) -> Path:
    shutil.copytree(template, target, symlinks=True)
    return target


Facts = dict[str, bytes | str]


async def read_everything(home: Path) -> Facts:
    """What programs see below the mount: contents by path, or what is said instead; and the entries."""
    facts: Facts = {}
    async with opened(home) as world:
        for top, name in ((WORK, "work"), (KEYS, "keys"), (RUNS, "runs"), (SNAPSHOTS, "snapshots")):
            await _read_below(world, top, name, facts)
        for entry in world.vault.entries.list_entries():
            facts[f"entry {entry.scope}/{entry.key}"] = str(entry.snapshot)
    return facts


async def _read_below(world: World, ino: Ino, path: str, facts: Facts) -> None:
    fs = world.filesystem
    for entry in list(fs.readdir(ino, 0)):
        attributes = entry.found.attributes
        place = f"{path}/{entry.name.decode()}"
        if stat.S_ISDIR(attributes.mode):
            await _read_below(world, attributes.ino, place, facts)
        elif stat.S_ISREG(attributes.mode):
            facts[place] = await _read(world, attributes.ino, attributes.size)
        elif stat.S_ISLNK(attributes.mode):
            facts[place] = fs.readlink(attributes.ino)
        else:
            facts[place] = "special"


async def _read(world: World, ino: Ino, size: int) -> bytes | str:
    handle = await world.filesystem.open(ino, os.O_RDONLY, CALLER)
    parts = b""
    try:
        while len(parts) < size:
            part = bytes(await world.filesystem.read(handle, len(parts), 1 << 20))
            assert part, "the file ends before its size"
            parts += part
    except TaskVaultError as exc:
        return type(exc).__name__
    finally:
        world.filesystem.release(handle)
    return parts


def bytes_of(home: Path) -> dict[str, bytes | str]:
    """Every byte of a vault."""
    return {
        str(path.relative_to(home)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(home.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


@dataclass
class Vandal:
    """Changes rows and files of a stopped vault."""

    home: Path
    catalog: RocksCatalog
    lost: set[str] = field(default_factory=set)


def check(home: Path, **options: object) -> FsckReport:
    memory = Path("/dev/shm")
    return fsck(home, REGISTRY, clock=ManualClock(), scratch=memory if memory.is_dir() else None, **options)  # type: ignore[arg-type]


def lines(report: FsckReport) -> list[str]:
    return [line(finding) for finding in report.findings]


def line(finding: Finding) -> str:
    return f"{finding.check}: {finding.where}: {finding.what} → {finding.remedy}"
