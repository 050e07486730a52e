"""A catalog that does not open or cannot be read: copies of it, and RocksDB's own repair of a copy.

RocksDB never changes a table file once it is written, so a copy shares them; everything else in the directory is
copied byte for byte.  Whatever is done to a copy leaves the original as it was.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from rocksdict import Options, Rdict

from tvfs.catalog.catalog import Catalog, Family
from tvfs.catalog.rocks import CatalogFailed

_TABLE = ".sst"
_NOT_COPIED = ("LOCK", "LOG")
_LOST = "lost"
"""Where RocksDB's repair puts tables that it can make nothing of."""


def copy_catalog(source: Path, target: Path, *, lasting: bool) -> None:
    """Copy the files of a catalog that nobody has open to a new directory.

    Tables become hard links, or symbolic ones if the copy need not last: then it may lie on another disk.
    """
    target.mkdir(mode=0o700)
    with os.scandir(source) as files:
        for file in files:
            place = target / file.name
            if not file.is_file() or file.name.startswith(_NOT_COPIED):
                continue
            if not file.name.endswith(_TABLE):
                shutil.copyfile(file.path, place)
            elif lasting:
                _link(file.path, place)
            else:
                place.symlink_to(Path(file.path).absolute())


def read_everything(catalog: Catalog) -> int:
    """Read every row and return how many there are; raise what the catalog raises at one that cannot be read."""
    return sum(1 for family in Family for _ in catalog.scan(family))


def repair_files(path: Path) -> list[str]:
    """Let RocksDB make what it can of the files of a catalog that nobody has open.

    Returns the names of the tables that it gave up, whose rows are gone.  Raises `CatalogFailed`.
    """
    try:
        Rdict.repair(str(path), Options(raw_mode=True))
    except Exception as exc:  # rocksdict raises nothing narrower
        raise CatalogFailed(path, str(exc)) from exc
    lost = path / _LOST
    return sorted(name for name in os.listdir(lost) if name.endswith(_TABLE)) if lost.is_dir() else []


def _link(source: str, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a filesystem without hard links
        shutil.copyfile(source, target)
