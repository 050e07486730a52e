"""Write one file of a snapshot under a name that is nobody else's: without what makes others see it complete."""

from __future__ import annotations

import os

from tvfs.content.attributes import OwnAttributes
from tvfs.content.tree_index import REGULAR, IndexEntry
from tvfs.ingest.local_target import CREATE_FILE, set_attributes, write_all
from tvfs.ingest.snapshot_source import SnapshotSource


def write_one(source: SnapshotSource, entry: IndexEntry, target: str, *, mtime_ns: int) -> bool:
    """Write a regular file with its attributes, but for the time, to a path where nothing is; False if it is none.

    The caller renames it, and removes it if that fails or this does.  Owners are restored for root only.  Raises
    `OSError`, `ContentDamaged`, and what the source raises.
    """
    if entry.kind != REGULAR:
        return False
    descriptor = os.open(target, CREATE_FILE, 0o600)
    try:
        write_content(descriptor, source, entry)
        own = OwnAttributes(entry.mode, entry.uid, entry.gid, mtime_ns, entry.xattrs)
        set_attributes(descriptor, own, owner=os.geteuid() == 0)
    finally:
        os.close(descriptor)
    return True


def write_content(descriptor: int, source: SnapshotSource, entry: IndexEntry) -> None:
    """Write what a file holds to an empty one; raise `OSError`, `ContentDamaged`, and what the source raises."""
    end = 0
    for offset, part in source.read(entry.content):
        write_all(descriptor, part, offset)
        end = offset + len(part)
    if end < entry.size:
        # A hole at the end has no bytes to write.
        os.ftruncate(descriptor, entry.size)
