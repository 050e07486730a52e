"""How rows refer to content: by hash, size and where to look."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class ContentKind(IntEnum):
    """Where the bytes of a content are found; the numbers are stored."""

    EMPTY = 0
    CHUNK = 1
    """The hash is the id of the only chunk."""
    MANIFEST = 2
    """Family `blob` has a manifest under the hash."""


@dataclass(frozen=True, slots=True)
class Content:
    """One immutable content in the vault, addressed under the vault's own hash function."""

    kind: ContentKind
    hash: bytes
    size: int


EMPTY = Content(ContentKind.EMPTY, bytes(32), 0)
"""The content of no bytes; its hash field is zeros because nothing is looked up by it."""
