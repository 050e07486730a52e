"""How much of its disk a vault takes: what `du -x --block-size=1` says of HOME, without the mount point."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tvfs.catalog.catalog import Catalog, DiskUse
from tvfs.clock import Clock
from tvfs.packs.pack_directory import PackDirectory
from tvfs.vault.layout import Layout
from tvfs.vault.reservations import size_text

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
    hot: int = 0
    """Copies of content that is read often."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.packs + self.staging + self.meta + self.rest + self.hot


_PENDING_TWICE = 2
"""A row that was written will be in a table, and once more while that is written anew."""


class VaultUsage:
    """Running totals, so that every reservation can ask; the owner's only, synchronous."""

    def __init__(self, layout: Layout, packs: PackDirectory, catalog: Catalog, clock: Clock) -> None:
        self._layout = layout
        self._packs = packs
        self._catalog = catalog
        self._clock = clock
        self._staging_bytes = _files_bytes(layout.staging)
        self._hot_bytes = _files_bytes(layout.hot)
        self._meta = DiskUse(0, 0)
        self._meta_mark = 0
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
        return UsageReport(
            self._packs.allocated_bytes(), self._staging_bytes, self._meta.used_bytes, self._rest_bytes, self._hot_bytes
        )

    def charged_bytes(self) -> int:
        """What must be left to what is there: what it takes now, and what the catalog takes at most for a moment."""
        used = self.report()
        pending_bytes = _PENDING_TWICE * (self._catalog.written_bytes - self._meta_mark)
        return used.total + self._meta.peak_bytes - self._meta.used_bytes + pending_bytes

    def filled_by(self) -> str:
        """Say what takes how much, for people."""
        used = self.report()
        parts = [
            ("stored content", used.packs),
            ("files not sealed yet", used.staging),
            ("names and indexes, with what it takes to write them anew", self._meta.peak_bytes),
            ("copies of what is read often", used.hot),
            ("logs and directories", used.rest),
        ]
        return "; ".join(f"{size_text(size_bytes)} {what}" for what, size_bytes in parts if size_bytes)

    def staging_changed(self, delta_bytes: int) -> None:
        """Note that staging files now take `delta_bytes` more of the disk (or less): `st_blocks * 512`."""
        self._staging_bytes += delta_bytes

    def hot_changed(self, delta_bytes: int) -> None:
        """Note that copies of content take so much more of the disk, or less."""
        self._hot_bytes += delta_bytes

    def measure(self) -> UsageReport:
        """Look at every file, set the running totals right and return them.  Slow: a system call a file."""
        for number in self._packs.numbers():
            self._packs.refresh(number)
        self._staging_bytes = _files_bytes(self._layout.staging)
        self._hot_bytes = _files_bytes(self._layout.hot)
        self._measured_s = float("-inf")
        return self.report()

    def _measure_rest(self) -> None:
        layout = self._layout
        self._meta_mark = self._catalog.written_bytes
        self._meta = self._catalog.disk_use()
        rest = sum(_allocated(each) for each in (layout.home, layout.packs, layout.staging, layout.hot))
        with os.scandir(layout.staging) as found:
            rest += sum(_allocated(entry.path) for entry in found if entry.is_dir(follow_symlinks=False))
        elsewhere = {layout.meta.name, layout.packs.name, layout.staging.name, layout.mount.name, layout.hot.name}
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
