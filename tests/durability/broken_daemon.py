"""A daemon in which one sync does nothing, named by `TASKVAULT_BROKEN`: who loses power on purpose must notice each."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from tvd import __main__ as daemon
from tvfs.catalog import rocks
from tvfs.filesystem import staging_files
from tvfs.packs import pack_directory, pack_writer


class _OsWithout:
    """The module `os` of one module, some of whose calls do nothing."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def __getattr__(self, name: str) -> object:
        return (lambda *_: None) if name in self._names else getattr(os, name)


def _no_pack_sync() -> None:
    pack_writer.os = _OsWithout("fdatasync")  # type: ignore[attr-defined]


def _no_pack_name_sync() -> None:
    pack_directory.os = _OsWithout("fsync")  # type: ignore[attr-defined]


def _no_wal_sync() -> None:
    rocks.RocksCatalog._sync_wal = lambda self: self._db.flush_wal(False)  # type: ignore[method-assign]


def _no_staging_sync() -> None:
    staging_files.os = _OsWithout("fdatasync")  # type: ignore[attr-defined]


def _no_map_or_name_sync() -> None:
    staging_files.os = _OsWithout("fsync")  # type: ignore[attr-defined]


BREAKERS: dict[str, Callable[[], None]] = {
    "pack": _no_pack_sync,
    "pack name": _no_pack_name_sync,
    "wal": _no_wal_sync,
    "staging": _no_staging_sync,
    "map and names of staging": _no_map_or_name_sync,
}
"""Each must be noticed."""

if __name__ == "__main__":
    BREAKERS[os.environ.pop("TASKVAULT_BROKEN")]()
    sys.exit(daemon.main())
