"""A vault in memory to ingest into, and local trees to compare."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

from tvplugins.chunking.fastcdc import make as fastcdc
from tvplugins.compression.zstd import make as zstd
from tvplugins.hash.blake3 import make as blake3

from tvfs.content.snapshot import Snapshot
from tvfs.ingest.ingest import Ingest
from tvfs.ingest.materialise import materialise
from tvfs.ingest.port import IngestSettings
from tvfs.ingest.snapshot_source import SnapshotSource
from tvfs.ingest.tree_walk import save_paths
from tvfs.testing.memory_port import MemoryPort

SETTINGS = IngestSettings(blake3({}), fastcdc({}), zstd({}), 64 << 20, threads=1)


class Bench:
    """A vault in memory and what is done with it."""

    def __init__(self, **changes: object) -> None:
        self.settings = settings = replace(SETTINGS, **changes)  # type: ignore[arg-type]
        self.port = MemoryPort([settings.codec])
        self.source = SnapshotSource(self.port.rows, self.port.chunks, settings.hash_function)

    def ingest(self) -> Ingest:
        return Ingest(self.port, self.settings)

    def save(self, base: Path | bytes, *paths: str | bytes, **options: object) -> Snapshot:
        with self.ingest() as ingest:
            return save_paths(ingest, os.fspath(base), paths or ["."], **options)  # type: ignore[arg-type]

    def restore(self, snapshot: Snapshot, target: Path, subpath: str | bytes = b"") -> int:
        return materialise(self.source, snapshot, os.fspath(target), subpath=subpath)


def describe(root: Path | bytes) -> dict[bytes, tuple[object, ...]]:
    """Everything about a tree that a snapshot must bring back, by path; the root itself is `b"."`."""
    top = os.fsencode(root)
    found: dict[bytes, tuple[object, ...]] = {b".": _describe_one(top)}
    inodes: dict[int, bytes] = {}
    for directory, subdirectories, files in os.walk(top):
        for name in sorted([*subdirectories, *files]):
            path = os.path.join(directory, name)
            relative = os.path.relpath(path, top)
            status = os.lstat(path)
            same_as = b""
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                same_as = inodes.setdefault(status.st_ino, relative)
                same_as = min(same_as, relative)
            found[relative] = (*_describe_one(path), same_as)
    return found


def _describe_one(path: bytes) -> tuple[object, ...]:
    status = os.lstat(path)
    content: object = None
    xattrs: object = ()
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            content = file.read()
    if stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    elif stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
        xattrs = sorted((name, os.getxattr(path, name)) for name in os.listxattr(path) if name.startswith("user."))
    return status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_rdev, content, xattrs
