"""A vault whose catalog is in memory, and a filesystem on it that is driven as the kernel would: for tests.

Packs and staging files are real files below a directory, because a kill leaves them as they are.
"""

from __future__ import annotations

import os
import stat
from functools import cache
from pathlib import Path

from tvfs.catalog.catalog import Batch, Family
from tvfs.catalog.memory import MemoryCatalog
from tvfs.clock import ManualClock
from tvfs.filesystem.filesystem import Filesystem
from tvfs.filesystem.lookups import LookupCounts
from tvfs.filesystem.model import ROOT, WORK, Absent, Caller, FileAttributes, Handle, Ino
from tvfs.filesystem.posix_error import NotADirectory, NotFound
from tvfs.filesystem.settings import FilesystemSettings
from tvfs.plugin_api.registry import PluginRegistry
from tvfs.vault.layout import Layout
from tvfs.vault.superblock import FORMAT, KEY, Chunking, Superblock, encode_superblock
from tvfs.vault.vault import OpenSettings, Vault

CALLER = Caller(1000, 1000)


def memory_vault(home: Path, catalog: MemoryCatalog, clock: ManualClock, *, capacity_bytes: int = 1 << 30) -> Vault:
    """Open a vault on this catalog, after making it if the catalog is empty."""
    layout = Layout(home)
    for directory in (layout.packs, layout.staging):
        directory.mkdir(parents=True, exist_ok=True)
    if catalog.get(Family.SYS, KEY) is None:
        batch = Batch()
        superblock = Superblock(FORMAT, bytes(range(16)), "blake3", Chunking("fastcdc"), "zstd", capacity_bytes, 0)
        batch.put(Family.SYS, KEY, encode_superblock(superblock))
        catalog.write(batch)
    return Vault(
        layout, catalog, _registry(), settings=OpenSettings(background_pauses=False), clock=clock, on_damage=None
    )


@cache
def _registry() -> PluginRegistry:
    # Looking for plugins takes longer than everything else that opening a vault in memory does.
    return PluginRegistry()


class MemoryWorld:
    """A filesystem and everything below it; `kill` ends it without a word and starts the next one."""

    def __init__(
        self,
        home: Path,
        *,
        settings: FilesystemSettings | None = None,
        capacity_bytes: int = 1 << 30,
        clock: ManualClock | None = None,
    ) -> None:
        self.home = home
        self.clock = clock or ManualClock()
        self.settings = settings or FilesystemSettings()
        self.catalog = MemoryCatalog()
        self.boot = "boot 1"
        self._capacity_bytes = capacity_bytes
        self._open()

    def kill(self) -> None:
        """End the process as kill -9 does, and start again: what the kernel was given is there."""
        self._abandon()
        self.catalog = self.catalog.crash_copy(durable_only=False)
        self._open()

    async def restart(self) -> None:
        """Stop in order and start again."""
        await self.filesystem.aclose()
        await self.vault.aclose()
        self.catalog = self.catalog.crash_copy(durable_only=True)
        self._open()

    def power_loss(self) -> None:
        """Lose what was never flushed of the catalog, and start again in another boot.

        Files keep what was written to them: the worst case, since their rows may be gone.
        """
        self._abandon()
        self.catalog = self.catalog.crash_copy(durable_only=True)
        self.boot += "'"
        self._open()

    async def aclose(self) -> None:
        """Stop in order."""
        await self.filesystem.aclose()
        await self.vault.aclose()

    # What programs do.

    def stat(self, path: bytes) -> FileAttributes:
        """Return the attributes of a path below `work/`."""
        return self.filesystem.getattr(self.ino(path))

    def ino(self, path: bytes) -> Ino:
        """Return the inode at a path below `work/`; '' is `work/` itself."""
        return self.filesystem.resolve(path, WORK)

    def exists(self, path: bytes) -> bool:
        """Whether a path below `work/` is there."""
        try:
            self.ino(path)
        except NotFound:
            return False
        return True

    async def write(self, path: bytes, content: bytes, *, offset: int = 0, flags: int = 0) -> None:
        """Write into a file, after making it if need be; `flags` may be `os.O_TRUNC`."""
        parent, name = self.place(path)
        if isinstance(self.filesystem.lookup(parent, name), Absent):
            handle, _ = await self.filesystem.create(parent, name, 0o644, os.O_WRONLY, CALLER)
        else:
            handle = await self.filesystem.open(self.ino(path), os.O_WRONLY | flags, CALLER)
        try:
            for start in range(0, len(content), 1 << 20):
                await self.write_to(handle, offset + start, content[start : start + (1 << 20)])
        finally:
            self.filesystem.release(handle)

    async def write_to(self, handle: Handle, offset: int, content: bytes) -> None:
        """Write to an open file."""
        if self.filesystem.write_nowait(handle, offset, content) is None:
            await self.filesystem.write(handle, offset, content)

    async def read(self, path: bytes) -> bytes:
        """Return all of a file."""
        return await self.read_inode(self.ino(path))

    async def read_inode(self, ino: Ino) -> bytes:
        """Return all of a file by its number."""
        handle = await self.filesystem.open(ino, os.O_RDONLY, CALLER)
        try:
            found = b""
            while True:
                part = self.filesystem.read_nowait(handle, len(found), 1 << 20)
                if part is None:
                    part = await self.filesystem.read(handle, len(found), 1 << 20)
                if not len(part):
                    return found
                found += part
        finally:
            self.filesystem.release(handle)

    def mkdir(self, path: bytes) -> Ino:
        """Make a directory below `work/`."""
        return self.filesystem.mkdir(*self.place(path), 0o755, CALLER).attributes.ino

    def rename(self, old: bytes, new: bytes, flags: int = 0) -> None:
        """Move a path below `work/`."""
        self.filesystem.rename(*self.place(old), *self.place(new), flags)

    def unlink(self, path: bytes) -> None:
        """Remove a name below `work/`."""
        self.filesystem.unlink(*self.place(path))

    def names(self, path: bytes) -> list[bytes]:
        """List a directory below `work/`."""
        return [entry.name for entry in self.filesystem.readdir(self.ino(path), 0)]

    def staging_files(self) -> list[str]:
        """Return the names of the staging files that are on the disk."""
        return sorted(name for _, _, names in os.walk(self.vault.layout.staging) for name in names)

    def place(self, path: bytes) -> tuple[Ino, bytes]:
        """Return the directory that a path below `work/` is to be in, and the name; as the kernel resolves it."""
        above, _, name = path.rpartition(b"/")
        parent = self.ino(above)
        if not stat.S_ISDIR(self.filesystem.getattr(parent).mode):
            raise NotADirectory(f"{above!r} is no directory.")
        return parent, name

    def _open(self) -> None:
        self.vault = memory_vault(self.home, self.catalog, self.clock, capacity_bytes=self._capacity_bytes)
        self.lookups = LookupCounts()
        self.filesystem = Filesystem(
            self.vault, clock=self.clock, settings=self.settings, lookups=self.lookups, boot=self.boot
        )
        self.filesystem.start()
        assert self.filesystem.getattr(ROOT).ino == ROOT

    def _abandon(self) -> None:
        # Only descriptors: nothing is written that the dead process would not have written.
        self.filesystem.abandon()
        self.vault.packs.close()
