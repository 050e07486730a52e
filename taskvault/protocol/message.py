"""What every message is, and the values that several of them carry."""

from __future__ import annotations

import msgspec


class Message(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True):
    """Base of every message; the class name is the tag."""


class SnapshotRef(msgspec.Struct, frozen=True):
    """A snapshot on the wire: digests as `str(Digest)` writes them."""

    tree: str
    attributes: str | None
    index: bytes
    files: int
    size: int
