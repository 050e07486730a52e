"""The contract of a catalog: sorted rows in families, atomic batches, one durability barrier."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import msgspec


class Family(StrEnum):
    """Column families; keys and values are documented in docs/design/on-disk-format.md §3."""

    SYS = "sys"
    CHUNK = "chunk"
    PACK = "pack"
    BLOB = "blob"
    PAGE = "page"
    TREE = "tree"
    TREEPAGE = "treepage"
    ENTRY = "entry"
    INODE = "inode"
    DIRENT = "dirent"
    RANGE = "range"
    XATTR = "xattr"
    STAGING = "staging"
    ORPHAN = "orphan"
    RUN = "run"
    REF = "ref"
    DOOMED = "doomed"
    USAGE = "usage"
    AUDIT = "audit"


class Put(msgspec.Struct, frozen=True, gc=False):
    """Set one row."""

    family: Family
    key: bytes
    value: bytes


class Delete(msgspec.Struct, frozen=True, gc=False):
    """Remove one row, if it is there."""

    family: Family
    key: bytes


class DeleteRange(msgspec.Struct, frozen=True, gc=False):
    """Remove all rows with `start <= key < end`."""

    family: Family
    start: bytes
    end: bytes


@dataclass(slots=True)
class Batch:
    """Changes that happen together or not at all, in the order in which they were added."""

    changes: list[Put | Delete | DeleteRange] = field(default_factory=list)

    def put(self, family: Family, key: bytes, value: bytes) -> None:
        """Set one row."""
        self.changes.append(Put(family, key, value))

    def delete(self, family: Family, key: bytes) -> None:
        """Remove one row, if it is there."""
        self.changes.append(Delete(family, key))

    def delete_range(self, family: Family, start: bytes, end: bytes) -> None:
        """Remove all rows with `start <= key < end`."""
        self.changes.append(DeleteRange(family, start, end))

    def __len__(self) -> int:
        return len(self.changes)


@dataclass(frozen=True, slots=True)
class DiskUse:
    """What a catalog takes of the disk, in bytes, as `du` counts it."""

    used_bytes: int
    """Now: directory and files."""
    peak_bytes: int
    """At most while it writes its files anew in the background, if no more rows come; never less than `used_bytes`."""


class Catalog(Protocol):
    """Threads: `get` and `get_many` may be called from any thread; everything else from the owner's only."""

    def get(self, family: Family, key: bytes) -> bytes | None:
        """Return the row's value, or None."""
        ...

    def get_many(self, family: Family, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of several rows, in the order of the keys."""
        ...

    def scan(self, family: Family, start: bytes = b"", end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yield the rows with `start <= key < end` in key order, as they were when the scan began.

        Do not await while one is open in the owner: what it yields may be out of date by then.
        """
        ...

    def last(self, family: Family, end: bytes) -> tuple[bytes, bytes] | None:
        """Return the row with the greatest key that is `<= end`, or None."""
        ...

    def write(self, batch: Batch) -> None:
        """Apply a batch atomically.  It survives the death of this process, not yet a power loss."""
        ...

    async def flush(self) -> None:
        """Return when everything written before the call survives a power loss.

        Callers at the same time share one fsync.
        """
        ...

    @property
    def failure(self) -> str | None:
        """Why nothing more is accepted, since the disk has refused to keep something; None while all is well."""
        ...

    def fail(self, reason: str) -> None:
        """Accept nothing more, until the catalog is opened anew."""
        ...

    def disk_bytes(self) -> int:
        """What the catalog takes on the disk now, in bytes: directory and files, as `du` counts them."""
        ...

    def drop_deleted(self) -> None:
        """Let rows that were removed give back their room soon, in the background; at once, and cheap to ask for."""
        ...

    def disk_use(self) -> DiskUse:
        """What the catalog takes on the disk now, and for a moment at most."""
        ...

    @property
    def written_bytes(self) -> int:
        """Bytes of rows written since the catalog was opened: by how much it may have grown since one last looked."""
        ...

    def close(self) -> None:
        """Release everything.  Nothing may be called afterwards."""
        ...


def prefix_end(prefix: bytes) -> bytes | None:
    """Return the smallest key greater than every key with this prefix; None if there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None
