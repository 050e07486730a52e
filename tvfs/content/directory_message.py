"""Reads REAPI v2 `Directory` messages of any size from anywhere, believing nothing.

A message is cut where its top-level fields meet, so that a directory of a million entries is parsed a piece at a time:
each piece is a `Directory` of its own.  What the REAPI asks of a message that is named by its digest is asked here:
fields in the order of their numbers, none that is unknown, names sorted and different.
"""

from __future__ import annotations

import heapq
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from tvfs.content import reapi
from tvfs.content.names import NameInvalid, unescape
from tvfs.content.tree_index import MAX_NAME_BYTES, MAX_SIZE
from tvfs.content.tree_index import MAX_TARGET_BYTES as MAX_TARGET_BYTES
from tvfs.digest import HASH_BYTES
from tvfs.errors import TaskVaultError

Encoded = bytes | mmap.mmap
"""A message in memory, or in a file."""

PIECE_BYTES = 128 << 10
PIECE_NODES = 512
"""What is parsed at a time: less than a millisecond."""
MAX_NODE_BYTES = 1 << 20
"""One entry with all its properties; a name and a target of the longest, escaped, take 16 KiB."""
_HEX_CHARACTERS = HASH_BYTES * 2
_FIELDS = {0x0A: "files", 0x12: "directories", 0x1A: "symlinks", 0x2A: "node_properties"}
"""By the first byte of a field: number and wire type."""
_ESCAPED = "\x01"


class TreeInvalid(TaskVaultError):
    """A `Directory` message breaks a rule of its format; nothing of it is used."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The directory is not a valid tree: {reason}; upload it again from a correct source.")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class TreeLimits:
    """What a foreign directory may be at most, so that reading it is bounded."""

    max_bytes: int = 256 << 20
    """A million entries take 85 MiB with names of 20 bytes."""
    max_entries: int = 2_000_000
    """Twice the million that must work; each takes about 20 µs in a thread."""
    max_escaped: int = 65_536
    """Names that are not UTF-8 are sorted in memory; all others are taken as they come."""


class TreeFile(NamedTuple):
    """A file of a directory."""

    name: bytes
    hash: bytes
    size: int
    executable: bool


class TreeDirectory(NamedTuple):
    """A subdirectory: the digest of its canonical form."""

    name: bytes
    hash: bytes
    size: int


class TreeSymlink(NamedTuple):
    """A symlink; the target is any bytes but NUL."""

    name: bytes
    target: bytes


TreeNode = TreeFile | TreeDirectory | TreeSymlink


@dataclass(frozen=True, slots=True)
class _Section:
    """Where in a message the nodes of one kind are."""

    field: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Survey:
    """What is known of a message whose every node was checked; a name that two kinds share is found by `merged`."""

    sections: list[_Section]
    entries: int
    directories: int


def survey(encoded: Encoded, limits: TreeLimits | None = None) -> Iterator[list[TreeNode] | Survey]:
    """Check a message piece by piece; yield the nodes of each piece, and last the `Survey`.  Raise `TreeInvalid`."""
    limits = limits or TreeLimits()
    if len(encoded) > limits.max_bytes:
        raise TreeInvalid(f"it has {len(encoded)} bytes, and {limits.max_bytes} are allowed")
    sections: list[_Section] = []
    count = directories = escaped = 0
    before = ""
    for section in _pieces(encoded, 0, len(encoded)):
        message = _parsed(encoded, section)
        if section.field == "node_properties":
            continue
        nodes = getattr(message, section.field)
        count += len(nodes)
        if count > limits.max_entries:
            raise TreeInvalid(f"it has {count} entries or more, and {limits.max_entries} are allowed")
        if sections and sections[-1].field == section.field:
            sections[-1] = _Section(section.field, sections[-1].start, section.end)
        else:
            sections.append(section)
            before = ""
        checked, before = _checked_nodes(section.field, nodes, before)
        escaped += sum(node.name.startswith(_ESCAPED) for node in nodes)
        if escaped > limits.max_escaped:
            raise TreeInvalid(f"more than {limits.max_escaped} of its names are not UTF-8")
        if section.field == "directories":
            directories += len(checked)
        yield checked
    yield Survey(sections, count, directories)


def surveyed(encoded: Encoded, limits: TreeLimits | None = None) -> tuple[list[TreeNode], Survey]:
    """Check a message and return its nodes in its order; raise `TreeInvalid`."""
    nodes: list[TreeNode] = []
    for piece in survey(encoded, limits):
        if isinstance(piece, Survey):
            return nodes, piece
        nodes += piece
    raise AssertionError("a survey ends with itself")


def merged(encoded: Encoded, found: Survey) -> Iterator[TreeNode]:
    """Yield the nodes of a surveyed message in the order of their raw names; raise `TreeInvalid` if one occurs twice.

    Texts of names that are UTF-8 sort as their bytes do; the escaped ones come first in a section and are sorted here.
    """
    runs: list[Iterator[TreeNode]] = []
    for section in found.sections:
        escaped: list[TreeNode] = []
        plain = _nodes(encoded, section, escaped)
        first = next(plain, None)
        if escaped:
            runs.append(iter(sorted(escaped, key=attrgetter("name"))))
        if first is not None:
            runs.append(_and_then(first, plain))
    before = b""
    for node in runs[0] if len(runs) == 1 else heapq.merge(*runs, key=attrgetter("name")):
        if node.name == before:
            raise TreeInvalid(f"the name {node.name!r} occurs twice")
        before = node.name
        yield node


def _and_then(first: TreeNode, rest: Iterator[TreeNode]) -> Iterator[TreeNode]:
    yield first
    yield from rest


def _nodes(encoded: Encoded, section: _Section, escaped: list[TreeNode]) -> Iterator[TreeNode]:
    """Yield the nodes of a section whose names are UTF-8, and put the others, which come before them, aside."""
    before = ""
    for piece in _pieces(encoded, section.start, section.end):
        nodes = getattr(_parsed(encoded, piece), piece.field)
        checked, before = _checked_nodes(piece.field, nodes, before)
        for node, made in zip(nodes, checked, strict=True):
            if node.name.startswith(_ESCAPED):
                escaped.append(made)
            else:
                yield made


def _pieces(encoded: Encoded, position: int, end: int) -> Iterator[_Section]:
    """Yield runs of fields of one number; raise `TreeInvalid` where the bytes are no message, or out of order."""
    start, nodes, current = position, 0, 0
    while position < end:
        tag = encoded[position]
        if tag not in _FIELDS:
            raise TreeInvalid("its bytes are not a Directory message")
        if tag < current:
            raise TreeInvalid("its fields are not in the order of their numbers")
        length, following = _varint(encoded, position + 1, end)
        if length > end - following:
            raise TreeInvalid("its bytes are not a Directory message: they end too early")
        if length > MAX_NODE_BYTES:
            raise TreeInvalid(f"an entry has {length} bytes, and {MAX_NODE_BYTES} are allowed")
        if nodes and (tag != current or nodes >= PIECE_NODES or following + length - start > PIECE_BYTES):
            yield _Section(_FIELDS[current], start, position)
            start, nodes = position, 0
        current = tag
        nodes += 1
        position = following + length
    if nodes:
        yield _Section(_FIELDS[current], start, position)


def _varint(encoded: Encoded, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    # Five bytes tell lengths up to 2^35, more than any message may have.
    for at in range(position, min(position + 5, end)):
        byte = encoded[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + 1
        shift += 7
    raise TreeInvalid("its bytes are not a Directory message: a length cannot be read")


def _parsed(encoded: Encoded, piece: _Section) -> Any:
    part = encoded[piece.start : piece.end]
    message = reapi.Directory()
    try:
        message.ParseFromString(part)
    except DecodeError as exc:
        raise TreeInvalid("its bytes are not a Directory message") from exc
    message.DiscardUnknownFields()
    if reapi.serialise(message) != part:
        raise TreeInvalid("it has unknown fields, or is not written the one way that its digest needs")
    return message


def _checked_nodes(field: str, nodes: Any, before: str) -> tuple[list[TreeNode], str]:
    checked: list[TreeNode] = []
    for node in nodes:
        text = node.name
        name = _checked_name(text)
        if text <= before:
            if text == before:
                raise TreeInvalid(f"the name {text!r} occurs twice")
            raise TreeInvalid(f"its {field} are not sorted: {text!r} comes after {before!r}")
        before = text
        if field == "files":
            hash_, size = _checked_digest(node, name)
            checked.append(TreeFile(name, hash_, size, node.is_executable))
        elif field == "directories":
            checked.append(TreeDirectory(name, *_checked_digest(node, name)))
        else:
            checked.append(TreeSymlink(name, _checked_target(node, name)))
    return checked, before


def _checked_name(text: str) -> bytes:
    try:
        name = unescape(text)
    except NameInvalid as exc:
        raise TreeInvalid(f"the name {text[:80]!r} is not properly escaped") from exc
    if not name:
        raise TreeInvalid("a name is empty")
    if name in (b".", b".."):
        raise TreeInvalid(f"{text!r} cannot be the name of an entry")
    if len(name) > MAX_NAME_BYTES:
        raise TreeInvalid(f"the name {text[:40]!r}… has {len(name)} bytes, and {MAX_NAME_BYTES} are allowed")
    if b"/" in name or b"\0" in name:
        raise TreeInvalid(f"the name {text!r} holds a slash or a NUL byte")
    return name


def _checked_digest(node: Any, name: bytes) -> tuple[bytes, int]:
    digest = node.digest
    text, size = digest.hash, digest.size_bytes
    try:
        hash_ = bytes.fromhex(text)
    except ValueError:
        hash_ = b""
    if len(text) != _HEX_CHARACTERS or hash_.hex() != text:
        raise TreeInvalid(f"the digest of {name!r} is not {_HEX_CHARACTERS} lower-case hexadecimal digits")
    if not 0 <= size <= MAX_SIZE:
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
