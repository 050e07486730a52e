"""Opens the catalog of a stopped vault, whatever its state.

A catalog that does not open, or some row of which cannot be read, is copied; RocksDB repairs the copy, and if that does
not help either the copy is replaced by an empty one.  Then the two change places: the old one is kept as
`meta.broken-N`.  What takes its place has the mark `REBUILDING`, which stays until all is found again: a run that is
killed in between must not be the last that knew.  A dry run works on a copy in any case, so that not a byte of the
vault changes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from tvfs.catalog.catalog import Batch, Family
from tvfs.catalog.rocks import CatalogCorrupt, CatalogFailed, RocksCatalog, RocksSettings
from tvfs.catalog.salvage import copy_catalog, read_everything, repair_files
from tvfs.fsck.finding import Finding
from tvfs.vault.layout import Layout
from tvfs.vault.recovery import REBUILDING

CHECK = "catalog"
_CURRENT = "CURRENT"
_NOT_DAMAGE = ("Too many open files", "Permission denied", "Cannot allocate memory", "Read-only file system")
"""What RocksDB says of troubles that no repair helps against, and that leave the files as they are."""
_SETTINGS = RocksSettings(memtable_bytes=24 << 20, block_cache_bytes=32 << 20, max_wal_bytes=16 << 20)


@dataclass(slots=True)
class OpenedCatalog:
    """A catalog every row of which can be read."""

    catalog: RocksCatalog
    findings: list[Finding]


@contextmanager
def opened_catalog(layout: Layout, *, dry: bool, scratch: Path | None = None) -> Iterator[OpenedCatalog]:
    """Open the catalog, or with `dry` a copy in `scratch` (or where temporary files are).

    Raises `CatalogFull`, `CatalogFailed` or `CatalogLocked`.
    """
    if not dry:
        _finish_swap(layout)
        yield from _opened(layout.meta, dry=False)
        return
    with tempfile.TemporaryDirectory(prefix="taskvault-fsck-", dir=scratch) as directory:
        copy = Path(directory) / "meta"
        _copy(_source(layout), copy, lasting=False)
        yield from _opened(copy, dry=True)


def _opened(path: Path, *, dry: bool) -> Iterator[OpenedCatalog]:
    reason = _try(path)
    findings: list[Finding] = []
    if isinstance(reason, RocksCatalog):
        found = OpenedCatalog(reason, findings)
    else:
        lost = _replace(path, dry=dry)
        kept = "" if dry else f"; the old one is kept as {lost.kept.name}"
        findings.append(Finding(CHECK, "meta", f"the catalog cannot be read ({reason})", f"{lost.remedy}{kept}"))
        again = _try(path)
        if not isinstance(again, RocksCatalog):
            raise CatalogFailed(path, again)
        found = OpenedCatalog(again, findings)
    try:
        yield found
    finally:
        found.catalog.close()


def _try(path: Path) -> RocksCatalog | str:
    """Return the catalog, or why it cannot be used."""
    if not (path / _CURRENT).exists():
        return "it has no file CURRENT"
    try:
        catalog = RocksCatalog(path, settings=_SETTINGS)
    except (CatalogCorrupt, CatalogFailed) as exc:
        return _damage(exc)
    try:
        read_everything(catalog)
    except (CatalogCorrupt, CatalogFailed) as exc:
        catalog.close()
        return _damage(exc)
    return catalog


@dataclass(frozen=True, slots=True)
class _Replaced:
    remedy: str
    kept: Path


def _replace(path: Path, *, dry: bool) -> _Replaced:
    repaired = path.with_name("meta.repaired")
    shutil.rmtree(repaired, ignore_errors=True)  # of a run that was killed before it was complete
    remedy = _repair(path, repaired)
    kept = next(place for place in (path.with_name(f"meta.broken-{n}") for n in count(1)) if not place.exists())
    _sync(repaired)
    if path.exists():
        os.rename(path, kept)
    os.rename(repaired, path)
    _sync(path.parent)
    return _Replaced(remedy, kept)


def _repair(broken: Path, repaired: Path) -> str:
    """Make the best of a broken catalog in another place; return what that was."""
    try:
        _copy(broken, repaired, lasting=True)
        lost = repair_files(repaired)
    except CatalogFailed:
        lost = None
    opened = _try(repaired) if lost is not None else "it could not be repaired"
    if isinstance(opened, RocksCatalog):
        _mark(opened)
        if not lost:
            return "repaired; no table had to be given up, what was written last may be missing"
        return f"repaired; {len(lost)} tables had to be given up ({', '.join(lost)}), and the rows in them are lost"
    shutil.rmtree(repaired, ignore_errors=True)
    _mark(RocksCatalog(repaired, settings=_SETTINGS))
    return "an empty one takes its place: entries, names, manifests and history are lost, packs are indexed anew"


def _mark(catalog: RocksCatalog) -> None:
    batch = Batch()
    batch.put(Family.SYS, REBUILDING, b"")
    try:
        catalog.write(batch)
        catalog.flush_blocking()
    finally:
        catalog.close()


def _finish_swap(layout: Layout) -> None:
    """A run that was killed between the two renames of a swap left no `meta`; one killed before, half a copy."""
    if not layout.meta.exists() and _repaired(layout).exists():
        os.rename(_repaired(layout), layout.meta)
    shutil.rmtree(_repaired(layout), ignore_errors=True)


def _source(layout: Layout) -> Path:
    return layout.meta if layout.meta.exists() else _repaired(layout)


def _repaired(layout: Layout) -> Path:
    return layout.home / "meta.repaired"


def _copy(source: Path, target: Path, *, lasting: bool) -> None:
    if source.exists():
        copy_catalog(source, target, lasting=lasting)
    else:
        target.mkdir(mode=0o700)


def _damage(error: CatalogCorrupt | CatalogFailed) -> str:
    """Return what is wrong with the files; raise the error again if nothing is."""
    reason = str(error.__cause__ or error)
    if any(trouble in reason for trouble in _NOT_DAMAGE):
        raise error
    return reason.splitlines()[0].removesuffix(".")


def _sync(directory: Path) -> None:
    for path in [*directory.iterdir(), directory] if directory.is_dir() else []:
        if path.is_file() or path == directory:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
