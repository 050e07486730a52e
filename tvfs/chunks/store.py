"""The narrow waist: what every store of chunks does, and every wrapper around one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from tvfs.digest import ChunkId
from tvfs.errors import TaskVaultError
from tvfs.plugin_api.buffer import Buffer


class ChunkMissing(TaskVaultError):
    """The store does not have the chunk."""

    def __init__(self, chunk_id: ChunkId) -> None:
        super().__init__(f"Chunk {chunk_id.hex()} is not in the vault; what refers to it must be made again.")
        self.chunk_id = chunk_id


class ChunkDamaged(TaskVaultError):
    """The store had the chunk, and what it has now is something else."""

    def __init__(self, chunk_id: ChunkId, reason: str) -> None:
        super().__init__(f"Chunk {chunk_id.hex()} is damaged ({reason}); what refers to it must be made again.")
        self.chunk_id = chunk_id
        self.reason = reason


class ChunkStore(Protocol):
    """Chunks by the hash of their bytes.

    A chunk never changes: reads and writes of one id may overlap, and a lost race wastes a copy, never data.
    Bytes that come out have the hash that was asked for, always.  Called from one trio thread.
    """

    async def get(self, chunk_id: ChunkId, /) -> bytes:
        """Return the chunk; raise `ChunkMissing` or `ChunkDamaged`."""
        ...

    async def get_many(self, chunk_ids: Sequence[ChunkId], /) -> list[bytes]:
        """Return the chunks in the order asked for, in fewer steps than one by one; raise as `get` for any of them."""
        ...

    def get_nowait(self, chunk_id: ChunkId, /) -> bytes | None:
        """Return the chunk if that takes well under a millisecond, else None; raise `ChunkMissing`.

        None promises nothing: `get` may still raise.
        """
        ...

    def get_kept(self, chunk_id: ChunkId, /) -> bytes | None:
        """Return the chunk if it is in memory, decoded and verified, else None; raise nothing."""
        ...

    async def put(self, raw: Buffer, /) -> ChunkId:
        """Keep a chunk and return its id.  Every call sees it from now on; it lasts only after `flush`.

        `raw` must not be changed before the call has returned.  Chunks that are there already are not kept twice.
        """
        ...

    def has(self, chunk_id: ChunkId, /) -> bool:
        """Say whether the chunk is there, as far as is known without reading it."""
        ...

    async def delete(self, chunk_id: ChunkId, /) -> None:
        """Let go of a chunk, if it is there; it may come back after a power loss before the next `flush`."""
        ...

    def scan(self) -> Iterator[ChunkId]:
        """Yield the ids of the chunks that are there, each once, in no order; do not await while it is open."""
        ...

    async def flush(self) -> None:
        """Return when everything put before the call survives a power loss."""
        ...
