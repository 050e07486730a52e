"""What a start puts in order: the fixed directories, orphans, staging files.  O(dirty)."""

from __future__ import annotations

import os
from pathlib import Path

from tvfs.catalog.catalog import Batch, Catalog, Family
from tvfs.filesystem.directories import Directories
from tvfs.filesystem.inode import STAGED
from tvfs.filesystem.model import ROOT
from tvfs.filesystem.namespace import Namespace
from tvfs.filesystem.nodes import Nodes
from tvfs.filesystem.settings import FilesystemSettings
from tvfs.filesystem.staged_file import NO_PATH, StagedFile, decode_row
from tvfs.filesystem.staging import Staging
from tvfs.filesystem.staging_files import map_of
from tvfs.filesystem.views import let_publish, make_fixed
from tvfs.vault.counters import Counters
from tvfs.vault.layout import Layout
from tvfs.vault.usage import VaultUsage


def put_in_order(  # noqa: PLR0913 - everything that a stop may have left half done
    *,
    catalog: Catalog,
    counters: Counters,
    layout: Layout,
    usage: VaultUsage,
    nodes: Nodes,
    directories: Directories,
    namespace: Namespace,
    staging: Staging,
    settings: FilesystemSettings,
) -> None:
    """Bring rows and staging files in line; the same again changes nothing."""
    if nodes.find(ROOT) is None:
        change = namespace.change()
        make_fixed(change, directories, counters, settings)
        change.commit()
    change = namespace.change()
    let_publish(change, nodes, settings)
    change.commit()
    kept = adopt_staged(catalog, layout, nodes, staging)
    for key, _ in list(catalog.scan(Family.ORPHAN)):
        ino = int.from_bytes(key, "big")
        change = namespace.change()
        if nodes.find(ino) is None:
            change.batch.delete(Family.ORPHAN, key)
        elif not namespace.in_use(ino):
            namespace.purge(change, ino)
        change.commit()
    usage.staging_changed(-_remove_strays(layout.staging, kept))


def adopt_staged(catalog: Catalog, layout: Layout, nodes: Nodes, staging: Staging) -> set[str]:
    """Take in every staged file that an inode leads to, at its staging file's length; return the files' names."""
    kept: set[str] = set()
    changes = Batch()
    for key, row in list(catalog.scan(Family.STAGING)):
        ino = int.from_bytes(key, "big")
        inode = nodes.find(ino)
        if inode is None or inode.state != STAGED:
            changes.delete(Family.STAGING, key)
            continue
        file = _adopted(layout, staging, ino, row)
        staging.adopt(file)
        if file.in_row:
            continue
        anew = file.row(staging.boot)
        if anew != row:
            # The map is cut by now: what is added to it in this boot must outlast a kill.
            changes.put(Family.STAGING, key, anew)
        kept |= {file.path.name, map_of(file.path).name}
    catalog.write(changes)
    return kept


def _adopted(layout: Layout, staging: Staging, ino: int, row: bytes) -> StagedFile:
    decoded, base = decode_row(row)
    if decoded.content:
        file = StagedFile(ino, decoded.generation, NO_PATH, None, 0, len(decoded.content))
        # Perhaps by the last daemon.
        file.in_row = file.promised = True
        return file
    path = layout.staged_file(ino, decoded.generation)
    try:
        found = os.stat(path)
        size, allocated_bytes = found.st_size, found.st_blocks * 512
    except FileNotFoundError:
        # The disk lost it with the power, before anything of it was synced: what was sealed before is what is left.
        size, allocated_bytes = decoded.base_limit, 0
        path.parent.mkdir(exist_ok=True)
        path.touch(0o600)
        os.truncate(path, size)
    # A kill between shortening the file and noting it leaves a limit beyond the end.
    file = StagedFile(ino, decoded.generation, path, base, min(decoded.base_limit, size), size)
    file.allocated_bytes = allocated_bytes
    if file.blocks is not None:
        trusted = None if decoded.boot == staging.boot else decoded.synced_blocks
        file.blocks.update(dict.fromkeys(read_map(path, trusted)))
        file.synced_blocks = min(decoded.synced_blocks, len(file.blocks))
        if file.blocks:
            file.allocated_bytes += 4096
    return file


def read_map(path: Path, trusted: int | None) -> list[int]:
    """Return the blocks of a map; those past `trusted` are cut off: the power went before they were synced."""
    sidecar = map_of(path)
    try:
        entries = sidecar.read_bytes()
    except FileNotFoundError:
        return []
    whole = len(entries) // 8 if trusted is None else min(len(entries) // 8, trusted)
    if whole * 8 != len(entries):
        os.truncate(sidecar, whole * 8)
    # What is in staging of the other blocks does not count: a copy-up overwrites it, and nothing else reads it.
    return [int.from_bytes(entries[at * 8 : at * 8 + 8], "big") for at in range(whole)]


def _remove_strays(directory: Path, kept: set[str]) -> int:
    """Remove what no row leads to; return how much of the disk that gives back."""
    freed_bytes = 0
    if directory.exists():
        for parent, _, names in os.walk(directory):
            for path in (os.path.join(parent, name) for name in names if name not in kept):
                freed_bytes += os.lstat(path).st_blocks * 512
                os.unlink(path)
    return freed_bytes
