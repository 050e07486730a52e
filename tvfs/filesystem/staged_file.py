"""One staged file: what the `staging` row says, and what the owner remembers beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import trio

from tvfs.content.reference import Content, ContentKind
from tvfs.errors import RowDamaged, TaskVaultError

BLOCK_BYTES = 128 << 10
"""Unit in which an overwritten sealed file is copied up; part of the format of the `.map` sidecar."""
BLOCK_OF_DISK = 4096
"""What a file grows by on the disk."""
NO_PATH = Path()
"""Of a file whose bytes are in its row; it gets one with its staging file."""
VERSION = 2
"""Of a row that has the bytes itself; an older TaskVault must not take it for one whose file is lost."""
FILE_VERSION = 1
"""Of a row whose bytes are in a staging file."""


class StagingTooNew(TaskVaultError):
    """A staging row was written by a later version."""

    def __init__(self, version: int) -> None:
        super().__init__(f"A staged file has format {version}, this TaskVault knows {VERSION}; use a newer TaskVault.")


class StagedRow(msgspec.Struct, frozen=True, array_like=True):
    """Value of family `staging`."""

    version: int
    generation: int
    """Unique for ever; part of the names of the staging file and its map."""
    base_kind: int = 0
    base_hash: bytes = b""
    base_size: int = 0
    """The content that was sealed before; empty for a file that began empty."""
    base_limit: int = 0
    """Bytes of the base that still count: it was truncated to this at its shortest."""
    synced_blocks: int = 0
    """How many entries of the map are known to be on the disk together with their blocks."""
    boot: str = ""
    """Boot of the machine in which the map was last written: after another, unsynced entries prove nothing."""
    content: bytes = b""
    """All bytes of a short file; then there is no staging file, and no base.  Never empty in version 2."""


class StagedFile:
    """The owner's only.  `size` is the logical size and the length of the staging file."""

    __slots__ = (
        "allocated_bytes",
        "base",
        "base_limit",
        "blocks",
        "busy",
        "directory_synced",
        "generation",
        "in_row",
        "ino",
        "lock",
        "path",
        "promised",
        "rewrites",
        "size",
        "sync_failed",
        "synced_blocks",
        "writes",
        "written_s",
    )  # fmt: skip

    def __init__(self, ino: int, generation: int, path: Path, base: Content | None, base_limit: int, size: int) -> None:
        self.ino = ino
        self.generation = generation
        self.path = path
        self.base = base
        self.base_limit = base_limit
        self.size = size
        self.blocks: dict[int, None] | None = {} if base is not None else None
        """Blocks that are in staging, in the order of the map; None where there is no base."""
        self.allocated_bytes = 0
        self.writes = 0
        """Counts every change; whoever read the file and finds another number now has read something torn."""
        self.busy = 0
        """Changes that are under way in threads."""
        self.written_s = 0.0
        self.lock: trio.Lock | None = None
        self.directory_synced = False
        self.sync_failed = False
        """Whether the kernel may have dropped bytes that it could not write: it says so once only."""
        self.synced_blocks = 0
        self.in_row = False
        """Whether the bytes are in the row and there is no staging file yet; once False it stays so."""
        self.rewrites = 0
        """How often the row was written with other bytes."""
        self.promised = False
        """Whether an fsync was answered while the bytes were in the row."""

    def inode_lock(self) -> trio.Lock:
        """The lock under which changes that wait are made."""
        if self.lock is None:
            self.lock = trio.Lock()
        return self.lock

    @property
    def locked(self) -> bool:
        """Whether a change that waits is under way, so that one that does not must wait too."""
        return self.lock is not None and self.lock.locked()

    @property
    def occupied_bytes(self) -> int:
        """How much is not a hole: what is in staging, and what is still read from the base.

        Never nothing for a file that has a size: archivers take that to mean that all of it is a hole.
        """
        if self.in_row:
            return self.size
        copied_bytes = len(self.blocks) * BLOCK_BYTES if self.blocks else 0
        occupied_bytes = self.allocated_bytes + max(0, self.base_limit - copied_bytes)
        return min(self.size, max(1, occupied_bytes))

    def row(self, boot: str) -> bytes:
        """Return the value of the `staging` row where there is a staging file."""
        base = self.base
        if base is None:
            return msgspec.msgpack.encode(StagedRow(FILE_VERSION, self.generation))
        return msgspec.msgpack.encode(
            StagedRow(
                FILE_VERSION,
                self.generation,
                int(base.kind),
                base.hash,
                base.size,
                self.base_limit,
                self.synced_blocks,
                boot,
            )
        )

    def row_with(self, content: bytes) -> bytes:
        """Return the value of the `staging` row that has the bytes itself."""
        return msgspec.msgpack.encode(StagedRow(VERSION, self.generation, content=content))

    def missing_blocks(self, offset: int, end: int) -> list[int]:
        """Return the blocks that a write would touch and whose base bytes are not in staging yet."""
        blocks = self.blocks
        if blocks is None or offset >= self.base_limit:
            return []
        last = (min(end, self.base_limit) - 1) // BLOCK_BYTES
        return [block for block in range(offset // BLOCK_BYTES, last + 1) if block not in blocks]

    def pieces(self, offset: int, end: int) -> list[tuple[bool, int, int]]:
        """Return what to read as `(from the base, start, end)`, in order; what is not in the base is in staging.

        Staging has zeros where nothing was written.  Its bytes of a block that is not in the map do not count, and
        there are none: a hole.
        """
        if self.blocks is None:
            return [(False, offset, end)]
        found: list[tuple[bool, int, int]] = []
        while offset < end:
            block = offset // BLOCK_BYTES
            stop = min(end, (block + 1) * BLOCK_BYTES)
            from_base = offset < self.base_limit and block not in self.blocks
            if from_base:
                stop = min(stop, self.base_limit)
            if found and found[-1][0] == from_base:
                found[-1] = (from_base, found[-1][1], stop)
            else:
                found.append((from_base, offset, stop))
            offset = stop
        return found


_decoder = msgspec.msgpack.Decoder(StagedRow)
_CONTENT_KINDS = frozenset(map(int, ContentKind))


def decode_row(row: bytes) -> tuple[StagedRow, Content | None]:
    """Return a `staging` row and the base content it names; raise `StagingTooNew` or `RowDamaged`."""
    try:
        decoded = _decoder.decode(row)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise RowDamaged("A staged file's row in the catalog") from exc
    if decoded.version > VERSION:
        raise StagingTooNew(decoded.version)
    if bool(decoded.content) is not (decoded.version == VERSION) or (decoded.content and decoded.base_hash):
        raise RowDamaged("A staged file's row in the catalog")
    if not decoded.base_hash:
        return decoded, None
    if decoded.base_kind not in _CONTENT_KINDS:
        raise RowDamaged("A staged file's row in the catalog")
    return decoded, Content(ContentKind(decoded.base_kind), decoded.base_hash, decoded.base_size)


def growth(file: StagedFile, missing: list[int], offset: int, end: int) -> int:
    """Return how much more of the disk the file takes at most after a write, in bytes."""
    if file.in_row:
        # The whole file is made.
        return -(-max(file.size, end) // BLOCK_OF_DISK) * BLOCK_OF_DISK
    sparse = file.allocated_bytes + BLOCK_OF_DISK < file.size
    grown_bytes = end - offset if sparse else max(0, end - max(offset, file.size))
    grown_bytes += sum(stop - start for start, stop in uncovered(file, missing, offset, end))
    return -(-grown_bytes // BLOCK_OF_DISK) * BLOCK_OF_DISK


def uncovered(file: StagedFile, missing: list[int], offset: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of the base that must be copied up with these blocks: what the write does not cover itself."""
    for block in missing:
        start = block * BLOCK_BYTES
        stop = min(start + BLOCK_BYTES, file.base_limit)
        if start < offset:
            yield start, min(offset, stop)
        if end < stop:
            yield end, stop
