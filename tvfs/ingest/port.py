"""What an ingest needs of a vault: the few questions that whoever chunks asks whoever owns the catalog."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tvfs.digest import ChunkId
from tvfs.ingest.commit import IngestCommit
from tvfs.packs.pack_writer import PackWriter
from tvfs.plugin_api import Chunker, Codec, HashFunction


@dataclass(frozen=True, slots=True)
class IngestSettings:
    """The vault's fixed choices, and how hard to work."""

    hash_function: HashFunction
    chunker: Chunker
    codec: Codec
    pack_max_bytes: int
    """A record that would make a pack longer goes into the next one."""
    threads: int = 2
    """Workers beside the caller; 1 or less: everything happens in the caller."""


class IngestPort(Protocol):
    """Threads: called from several, never by two at the same time."""

    def find_missing(self, chunk_ids: Sequence[ChunkId]) -> set[ChunkId]:
        """Return which chunks must be sent; the others stay in the vault at least until this port is given up."""
        ...

    def open_pack(self) -> PackWriter:
        """Return a fresh pack, the ingest's alone until it closes it."""
        ...

    def commit(self, commit: IngestCommit) -> list[bytes]:
        """Make all of it durable and return []; or nothing of it, and return the ids in `uses` that are gone."""
        ...


class NullPort:
    """A vault that claims to have everything and keeps nothing: for computing digests only."""

    def find_missing(self, chunk_ids: Sequence[ChunkId]) -> set[ChunkId]:
        """Nothing needs sending."""
        return set()

    def open_pack(self) -> PackWriter:
        """Never reached: nothing is ever missing."""
        raise AssertionError("nothing is missing, so nothing is written")

    def commit(self, commit: IngestCommit) -> list[bytes]:
        """Forget it."""
        return []
