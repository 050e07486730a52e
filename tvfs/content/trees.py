"""The canonical form of one directory: a REAPI v2 `Directory`, built in one way only and believed only after a check.

Only this form is in keys, results and on the wire: names, content digests, executable bits, symlinks; no times, no
owners (those are in `tvfs.content.attributes`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from google.protobuf.message import DecodeError

from tvfs.content import reapi
from tvfs.content.names import NameInvalid, escape, unescape
from tvfs.content.tree_index import MAX_NAME_BYTES
from tvfs.digest import HASH_BYTES
from tvfs.errors import TaskVaultError

MAX_TARGET_BYTES = 4095
"""Longest symlink target; the kernel's limit."""
_MAX_SIZE = (1 << 63) - 1
_HEX_CHARACTERS = HASH_BYTES * 2


class TreeInvalid(TaskVaultError):
    """A `Directory` message breaks a rule of its format; nothing of it is used."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The directory is not a valid tree: {reason}; upload it again from a correct source.")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class TreeFile:
    """A file of a directory."""

    name: bytes
    hash: bytes
    size: int
    executable: bool


@dataclass(frozen=True, slots=True)
class TreeDirectory:
    """A subdirectory: the digest of its canonical form."""

    name: bytes
    hash: bytes
    size: int


@dataclass(frozen=True, slots=True)
class TreeSymlink:
    """A symlink; the target is any bytes but NUL."""

    name: bytes
    target: bytes


@dataclass(frozen=True, slots=True)
class TreeListing:
    """What one directory holds, each list in the order of the message."""

    files: list[TreeFile]
    directories: list[TreeDirectory]
    symlinks: list[TreeSymlink]


@dataclass(frozen=True, slots=True)
class TreeLimits:
    """What a foreign directory may be at most, so that reading it is bounded."""

    max_bytes: int = 64 << 20
    max_entries: int = 1_000_000


def build_directory_message(
    files: Iterable[tuple[bytes, bytes, int, bool]],
    directories: Iterable[tuple[bytes, bytes, int]],
    symlinks: Iterable[tuple[bytes, bytes]],
) -> bytes:
    """Return the canonical bytes; the order in which entries come does not matter.

    Files are `(name, hash, size, executable)`, directories `(name, hash, size)`, symlinks `(name, target)`.  Names are
    trusted to be valid and different: they come from a file system.
    """
    message = reapi.Directory()
    digest, add_file = reapi.Digest, message.files.add
    by_name = itemgetter(0)
    # Sorted by the escaped name: code point order and UTF-8 byte order are the same.
    for name, hash_, size, executable in sorted(((escape(raw), h, s, x) for raw, h, s, x in files), key=by_name):
        add_file(name=name, digest=digest(hash=hash_.hex(), size_bytes=size), is_executable=executable)
    for name, hash_, size in sorted(((escape(raw), h, s) for raw, h, s in directories), key=by_name):
        message.directories.add(name=name, digest=digest(hash=hash_.hex(), size_bytes=size))
    for name, target in sorted(((escape(raw), t) for raw, t in symlinks), key=by_name):
        message.symlinks.add(name=name, target=escape(target))
    return reapi.serialise(message)


def parse_directory(encoded: bytes, limits: TreeLimits | None = None) -> TreeListing:
    """Check a `Directory` message from anywhere and return what it holds; raise `TreeInvalid`.

    Node properties are allowed and left out: they are no part of the canonical form.
    """
    limits = limits or TreeLimits()
    if len(encoded) > limits.max_bytes:
        raise TreeInvalid(f"it has {len(encoded)} bytes, and {limits.max_bytes} are allowed")
    message = reapi.Directory()
    try:
        message.ParseFromString(encoded)
    except DecodeError as exc:
        raise TreeInvalid("its bytes are not a Directory message") from exc
    count = len(message.files) + len(message.directories) + len(message.symlinks)
    if count > limits.max_entries:
        raise TreeInvalid(f"it has {count} entries, and {limits.max_entries} are allowed")
    return _checked(message)


def _checked(message: Any) -> TreeListing:
    seen: set[bytes] = set()
    file_names = _checked_names(message.files, "files", seen)
    directory_names = _checked_names(message.directories, "directories", seen)
    symlink_names = _checked_names(message.symlinks, "symlinks", seen)
    return TreeListing(
        [
            TreeFile(name, *_checked_digest(node, name), node.is_executable)
            for name, node in zip(file_names, message.files, strict=True)
        ],
        [
            TreeDirectory(name, *_checked_digest(node, name))
            for name, node in zip(directory_names, message.directories, strict=True)
        ],
        [
            TreeSymlink(name, _checked_target(node, name))
            for name, node in zip(symlink_names, message.symlinks, strict=True)
        ],
    )


def _checked_names(nodes: Any, kind: str, seen: set[bytes]) -> list[bytes]:
    names = []
    before = ""
    for node in nodes:
        text = node.name
        name = _checked_name(text)
        if name in seen:
            raise TreeInvalid(f"the name {text!r} occurs twice")
        if text < before:
            raise TreeInvalid(f"its {kind} are not sorted: {text!r} comes after {before!r}")
        seen.add(name)
        names.append(name)
        before = text
    return names


def _checked_name(text: str) -> bytes:
    try:
        name = unescape(text)
    except NameInvalid as exc:
        raise TreeInvalid(f"the name {text!r} is not properly escaped") from exc
    if not name:
        raise TreeInvalid("a name is empty")
    if name in (b".", b".."):
        raise TreeInvalid(f"{text!r} cannot be the name of an entry")
    if b"/" in name or b"\0" in name:
        raise TreeInvalid(f"the name {text!r} holds a slash or a NUL byte")
    if len(name) > MAX_NAME_BYTES:
        raise TreeInvalid(f"the name {text[:40]!r}… has {len(name)} bytes, and {MAX_NAME_BYTES} are allowed")
    return name


def _checked_digest(node: Any, name: bytes) -> tuple[bytes, int]:
    text, size = node.digest.hash, node.digest.size_bytes
    try:
        hash_ = bytes.fromhex(text)
    except ValueError:
        hash_ = b""
    if len(text) != _HEX_CHARACTERS or hash_.hex() != text:
        raise TreeInvalid(f"the digest of {name!r} is not {_HEX_CHARACTERS} lower-case hexadecimal digits")
    if not 0 <= size <= _MAX_SIZE:
        raise TreeInvalid(f"the size of {name!r} is {size}")
    return hash_, size


def _checked_target(node: Any, name: bytes) -> bytes:
    try:
        target = unescape(node.target)
    except NameInvalid as exc:
        raise TreeInvalid(f"the target of the symlink {name!r} is not properly escaped") from exc
    if not target or b"\0" in target or len(target) > MAX_TARGET_BYTES:
        raise TreeInvalid(f"the target of the symlink {name!r} is empty, too long, or holds a NUL byte")
    return target
