"""Subdirectories that wait to be visited, in 41 bytes and the name each: a directory may have a million."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import cast

from tvfs.content.directory_message import TreeDirectory, TreeNode
from tvfs.digest import HASH_BYTES, Digest

_HEAD = struct.Struct(f">{HASH_BYTES}sQB")


class PendingChildren:
    """Taken in the order in which they were added."""

    def __init__(self) -> None:
        self._packed = bytearray()
        self._position = 0
        self._function = ""

    @property
    def size_bytes(self) -> int:
        """What was added takes so much memory until the object goes."""
        return len(self._packed)

    def add(self, nodes: Iterable[TreeNode], function: str) -> int:
        """Append subdirectories, whose digests are under `function`; return how many bytes that took."""
        before = len(self._packed)
        self._function = function
        for node in cast("Iterable[TreeDirectory]", nodes):
            self._packed += _HEAD.pack(node.hash, node.size, len(node.name)) + node.name
        return len(self._packed) - before

    def take(self) -> tuple[bytes, Digest] | None:
        """Return the next name and digest, or None."""
        if self._position >= len(self._packed):
            return None
        hash_, size, length = _HEAD.unpack_from(self._packed, self._position)
        start = self._position + _HEAD.size
        self._position = start + length
        return bytes(self._packed[start : self._position]), Digest(self._function, hash_, size)
