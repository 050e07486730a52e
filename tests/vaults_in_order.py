"""fsck of every vault that a test leaves behind: what tests did to it must leave nothing to be found."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tvfs.fsck.run import FsckReport, fsck
from tvfs.plugin_api import PluginRegistry, PluginUnknown
from tvfs.vault.lock import VaultInUse

DEPTH = 3
"""How far below a test's directory its vaults are."""


@dataclass
class Cost:
    """What checking took, all vaults together."""

    vaults: int = 0
    total_s: float = 0.0
    slowest_s: float = 0.0
    slowest: str = ""
    cpu_s: float = 0.0

    def add(self, home: Path, took_s: float, cpu_s: float) -> None:
        self.vaults += 1
        self.cpu_s += cpu_s
        self.total_s += took_s
        if took_s > self.slowest_s:
            self.slowest_s, self.slowest = took_s, str(home)


COST = Cost()
REGISTRY = PluginRegistry()
MEMORY = Path("/dev/shm")
"""Where copies of catalogs are put: they need not last, and a busy disk would have every test wait."""


def vaults_below(directory: Path) -> Iterator[Path]:
    """Yield the homes of vaults, on this filesystem only: what is mounted is not looked into."""
    waiting = [(directory, 0)]
    while waiting:
        place, depth = waiting.pop()
        try:
            found = [entry for entry in os.scandir(place) if entry.is_dir(follow_symlinks=False)]
        except OSError:  # a dead mount, or gone
            continue
        names = {entry.name for entry in found}
        if {"meta", "packs"} <= names and (place / "format").exists():
            yield place
            continue
        if depth < DEPTH:
            waiting += [(Path(entry.path), depth + 1) for entry in found if not _is_mount(entry.path)]


def check(home: Path, *, dry: bool = True) -> FsckReport | None:
    """Check a vault that nobody uses any more; None if somebody does, or if its plugins are not installed here."""
    began_s, cpu_s = time.perf_counter(), time.process_time()
    try:
        return fsck(home, REGISTRY, dry=dry, scratch=MEMORY if MEMORY.is_dir() else None)
    except (VaultInUse, PluginUnknown):
        return None
    finally:
        COST.add(home, time.perf_counter() - began_s, time.process_time() - cpu_s)


def assert_in_order(home: Path) -> None:
    """Fail if fsck finds anything that neither a start would put right nor an unclean stop leaves."""
    report = check(home)
    assert report is None or not wrong(report), f"fsck of {home}:\n" + "\n".join(wrong(report))


def assert_repairable(home: Path) -> None:
    """Repair a vault that was damaged on purpose; fail unless a second run finds nothing that can be repaired."""
    if check(home, dry=False) is not None:
        again = check(home)
        assert again is None or not [each for each in again.findings if each.repairable], wrong(again)


def wrong(report: FsckReport) -> list[str]:
    """Return the findings as lines."""
    return [f"{f.check}: {f.where}: {f.what} → {f.remedy}" for f in report.findings if not f.after_stop]


def _is_mount(path: str) -> bool:
    try:
        return os.path.ismount(path)
    except OSError:
        return True
