"""Makes a vault, whole or not at all.

`format` is what makes a directory a vault, and it is put in place last, by a rename.  Until then it is `format.new`, so
that an interrupted creation is recognised and simply done again.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from uuid import uuid4

from tvfs.catalog.catalog import Batch, Family
from tvfs.catalog.rocks import RocksCatalog, RocksSettings
from tvfs.clock import Clock, SystemClock
from tvfs.errors import FormatTooNew, TaskVaultError
from tvfs.plugin_api.compression import FIRST_FOREIGN_ID
from tvfs.plugin_api.registry import PluginRegistry
from tvfs.vault.layout import Layout
from tvfs.vault.lock import VaultLock
from tvfs.vault.plugin_use import VaultPlugins
from tvfs.vault.superblock import FORMAT, KEY, Chunking, Superblock, VaultSettings, encode_superblock

_MAY_BE_THERE = frozenset({"lock", "config.toml", "mnt"})
"""What a directory may hold in which a vault is made: an operator may make these first."""


class VaultExists(TaskVaultError):
    """There is a vault already."""

    def __init__(self, home: Path) -> None:
        super().__init__(f"There is a vault in {home} already; start it with `tv up`, or choose another directory.")
        self.home = home


class VaultMissing(TaskVaultError):
    """The directory holds no vault."""

    def __init__(self, home: Path, *, interrupted: bool) -> None:
        state = "The making of a vault was interrupted" if interrupted else "There is no vault"
        super().__init__(f"{state} in {home}; make one with `tv init`.")
        self.home = home


class DirectoryNotEmpty(TaskVaultError):
    """A vault is made in an empty directory only."""

    def __init__(self, home: Path, found: str) -> None:
        super().__init__(
            f"{home} is not empty (it holds {found!r}) and is no vault;"
            " choose a directory that is empty or does not exist."
        )
        self.home = home


class VaultNotMade(TaskVaultError):
    """The system refused."""

    def __init__(self, home: Path, reason: str) -> None:
        super().__init__(f"No vault could be made in {home} ({reason}); choose a directory that you may write to.")
        self.home = home


def create_vault(
    home: Path, *, settings: VaultSettings, registry: PluginRegistry, clock: Clock | None = None
) -> Superblock:
    """Make a vault; durable when this returns.  Blocks; it is for the time before an event loop runs.

    Raises `SettingsInvalid`, `PluginUnknown`, `PluginAmbiguous`, `PluginBroken`, `VaultExists`, `DirectoryNotEmpty`,
    `VaultInUse` or `VaultNotMade`.  If the process dies in the middle, the same call makes the vault.
    """
    superblock = _superblock(settings, registry, clock or SystemClock())
    layout = Layout(home)
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_may_be_made(layout)
        lock = VaultLock(layout.lock)
        try:
            _check_may_be_made(layout)  # again: another process may have made it before we had the lock
            _make(layout, superblock, registry)
        finally:
            lock.release()
    except OSError as exc:
        raise VaultNotMade(home, exc.strerror or str(exc)) from exc
    return superblock


def check_format(layout: Layout) -> None:
    """Raise `VaultMissing` or `FormatTooNew`, without changing a byte: opening the catalog would."""
    try:
        text = layout.format.read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        raise VaultMissing(layout.home, interrupted=layout.format_being_made.exists()) from None
    # Python refuses to read thousands of digits; so many are newer than anything.
    digits = text[:1000].strip()
    found = int(digits) if digits.isdigit() else 0
    if found > FORMAT:
        raise FormatTooNew("The vault", found, FORMAT)


def _superblock(settings: VaultSettings, registry: PluginRegistry, clock: Clock) -> Superblock:
    settings.check()
    # Tried now, because a vault whose plugins do not work could be made but never opened.
    registry.hash_function(settings.hash)
    codec = registry.codec(settings.compression, settings.compression_parameters)
    if codec.codec_id >= FIRST_FOREIGN_ID:
        registry.codecs().get(codec.codec_id)  # raises if another codec has the same number
    chunker = registry.chunker(settings.chunking, settings.chunking_parameters)
    return Superblock(
        format=FORMAT,
        uuid=uuid4().bytes,
        hash=settings.hash,
        # What the plugin makes of them, not what was given: a later version may have other defaults.
        chunking=Chunking(settings.chunking, dict(chunker.parameters)),
        compression=settings.compression,
        compression_parameters=settings.compression_parameters,
        capacity_bytes=settings.capacity_bytes,
        created_ns=clock.now_ns(),
    )


def _check_may_be_made(layout: Layout) -> None:
    found = {entry.name for entry in os.scandir(layout.home)}
    if layout.format.name in found:
        raise VaultExists(layout.home)
    if layout.format_being_made.name in found:
        return  # everything here is ours: the directory was checked before this file was written
    unknown = sorted(found - _MAY_BE_THERE)
    if unknown:
        raise DirectoryNotEmpty(layout.home, unknown[0])


def _make(layout: Layout, superblock: Superblock, registry: PluginRegistry) -> None:
    with open(layout.format_being_made, "w", encoding="ascii") as mark:
        mark.write(f"{superblock.format}\n")
        mark.flush()
        os.fsync(mark.fileno())
    _sync_directory(layout.home)
    for directory in (layout.meta, layout.packs, layout.staging):
        shutil.rmtree(directory, ignore_errors=True)  # the remains of an interrupted creation
    for directory in (layout.meta, layout.packs, layout.staging):
        directory.mkdir(mode=0o700)
    _write_superblock(layout.meta, superblock, registry)
    with open(layout.superblock, "wb") as copy:
        copy.write(encode_superblock(superblock))
        copy.flush()
        os.fsync(copy.fileno())
    os.rename(layout.format_being_made, layout.format)
    _sync_directory(layout.home)
    _sync_directory(layout.home.parent)


def _write_superblock(meta: Path, superblock: Superblock, registry: PluginRegistry) -> None:
    catalog = RocksCatalog(meta, settings=RocksSettings(max_wal_bytes=superblock.max_wal_bytes))
    batch = Batch()
    batch.put(Family.SYS, KEY, encode_superblock(superblock))
    try:
        VaultPlugins(catalog, registry, superblock).note(batch)
        catalog.write(batch)
        catalog.flush_blocking()
    finally:
        catalog.close()


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
