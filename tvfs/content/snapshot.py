"""A directory as content: the pair of the canonical tree and the attributes beside it."""

from __future__ import annotations

from dataclasses import dataclass

from tvfs.digest import Digest


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Two snapshots with equal digests are the same tree with the same attributes."""

    tree: Digest
    """The canonical `Directory` message: names, content, executable bits."""
    attributes: Digest | None
    """Modes, owners, times, special files; None for a tree that came without."""
    index: bytes
    """Id of the tree index that the pair is attached by."""
    files: int
    """Files below, at any depth."""
    size: int
    """Bytes of content below; what is shared counts each time."""
