"""How much of its disk a vault takes: what `du -x --block-size=1` says of HOME, without the mount point."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tvfs.catalog.catalog import Catalog
from tvfs.clock import Clock
from tvfs.packs.pack_directory import PackDirectory
from tvfs.vault.layout import Layout

MEASURED_FOR_S = 0.25
"""How long the size of the catalog and of the directories is believed; they grow slowly, and looking costs 0.5 ms."""

_BLOCK_BYTES = 512
"""Unit of `st_blocks`."""


@dataclass(frozen=True, slots=True)
class UsageReport:
    """Bytes on the disk, by kind; allocated, not logical."""

    packs: int
    staging: int
    meta: int
    rest: int
    """Directories, the log, the configuration."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.packs + self.staging + self.meta + self.rest


class VaultUsage:
    """Running totals, so that every reservation can ask; the owner's only, synchronous."""

    def __init__(self, layout: Layout, packs: PackDirectory, catalog: Catalog, clock: Clock) -> None:
        self._layout = layout
        self._packs = packs
        self._catalog = catalog
        self._clock = clock
        self._staging_bytes = _files_bytes(layout.staging)
        self._meta_bytes = 0
        self._rest_bytes = 0
        self._measured_s = float("-inf")

    def used_bytes(self) -> int:
        """What the vault takes: packs and staging as of now, the rest as of at most `MEASURED_FOR_S` ago."""
        return self.report().total

    def report(self) -> UsageReport:
        """The running totals by kind."""
        now_s = self._clock.monotonic_s()
        if now_s - self._measured_s > MEASURED_FOR_S:
            self._measure_rest()
            self._measured_s = now_s
        return UsageReport(self._packs.allocated_bytes(), self._staging_bytes, self._meta_bytes, self._rest_bytes)

    def staging_changed(self, delta_bytes: int) -> None:
        """Note that staging files now take `delta_bytes` more of the disk (or less): `st_blocks * 512`."""
        self._staging_bytes += delta_bytes

    def measure(self) -> UsageReport:
        """Look at every file, set the running totals right and return them.  Slow: a system call a file."""
        for number in self._packs.numbers():
            self._packs.refresh(number)
        self._staging_bytes = _files_bytes(self._layout.staging)
        self._measured_s = float("-inf")
        return self.report()

    def _measure_rest(self) -> None:
        layout = self._layout
        self._meta_bytes = self._catalog.disk_bytes()
        rest = _allocated(layout.home) + _allocated(layout.packs) + _allocated(layout.staging)
        with os.scandir(layout.staging) as found:
            rest += sum(_allocated(entry.path) for entry in found if entry.is_dir(follow_symlinks=False))
        elsewhere = {layout.meta.name, layout.packs.name, layout.staging.name, layout.mount.name}
        with os.scandir(layout.home) as found:
            rest += sum(_tree_bytes(Path(entry.path)) for entry in found if entry.name not in elsewhere)
        self._rest_bytes = rest


def _allocated(path: str | Path) -> int:
    try:
        return os.lstat(path).st_blocks * _BLOCK_BYTES
    except FileNotFoundError:  # a log was rotated, a socket closed
        return 0


def _files_bytes(directory: Path) -> int:
    """Return what the files below take, the directories themselves not counted."""
    return sum(_allocated(os.path.join(parent, name)) for parent, _, names in os.walk(directory) for name in names)


def _tree_bytes(path: Path) -> int:
    if not path.is_dir() or path.is_symlink():
        return _allocated(path)
    return sum(_allocated(parent) for parent, _, _ in os.walk(path)) + _files_bytes(path)
