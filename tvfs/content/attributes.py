"""The attributes of one directory, beside its canonical form: what POSIX knows and a `Directory` message does not.

A separate object, so that two trees which differ in times or owners only still share the canonical tree: the same keys,
the same results.  See docs/design/on-disk-format.md §6.
"""

from __future__ import annotations

import msgspec

from tvfs.errors import FormatTooNew, TaskVaultError

VERSION = 1
UNKNOWN = -1
"""Stands for an owner (whoever attaches) and for a time (when it is attached)."""

Xattrs = tuple[tuple[bytes, bytes], ...]
"""Extended attributes as `(name, value)`, sorted by name."""


class AttributesInvalid(TaskVaultError):
    """A stored attributes object is not one."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The attributes of a directory cannot be used: {reason}; attach the tree without them.")
        self.reason = reason


class OwnAttributes(msgspec.Struct, frozen=True, array_like=True):
    """What a directory knows of itself."""

    mode: int
    """Permission bits only."""
    uid: int = UNKNOWN
    gid: int = UNKNOWN
    mtime_ns: int = UNKNOWN
    xattrs: Xattrs = ()


class EntryAttributes(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the directory knows of one entry that is no directory."""

    name: bytes
    kind: int
    """`stat.S_IFMT(mode) >> 12`; says what a special file is, which the canonical form leaves out."""
    mode: int
    """Permission bits only."""
    uid: int
    gid: int
    mtime_ns: int
    rdev: int = 0
    xattrs: Xattrs = ()


class SubdirectoryAttributes(msgspec.Struct, frozen=True, array_like=True):
    """Digest of the attributes object of a subdirectory."""

    name: bytes
    hash: bytes
    size: int


class Attributes(msgspec.Struct, frozen=True, array_like=True):
    """Beside one `Directory`.  Rows are sorted by name, bytewise."""

    version: int
    own: OwnAttributes
    entries: list[EntryAttributes]
    """Files, symlinks and special files."""
    directories: list[SubdirectoryAttributes]
    hard_links: list[list[bytes]] = []
    """At the root of a snapshot: groups of paths that are one file; paths are relative and sorted, groups too."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Attributes)


def encode_attributes(attributes: Attributes) -> bytes:
    """Return the bytes that are stored and hashed: the same for equal attributes."""
    return _encoder.encode(attributes)


def decode_attributes(encoded: bytes) -> Attributes:
    """Return what was encoded; raise `AttributesInvalid` or `FormatTooNew`."""
    try:
        attributes = _decoder.decode(encoded)
    except msgspec.MsgspecError as exc:
        raise AttributesInvalid(str(exc)) from exc
    if attributes.version > VERSION:
        raise FormatTooNew("The attributes of a directory", attributes.version, VERSION)
    return attributes
