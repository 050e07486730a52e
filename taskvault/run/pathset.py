"""What a traced run looked at: the paths, how each was looked at, and so what must be the same for its result to hold.

A pathset says where to look; the states that are found there make the strong key (`taskvault.run.states`).  Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntFlag
from functools import lru_cache

import msgspec

from tvfs.errors import TaskVaultError
from tvfs.plugin_api import HashFunction

PATHSET_FORMAT = 1

MOST_PATHSETS = 16
"""Candidates kept for one weak key, the most recent first."""

_SHORT = 256
"""Bytes of a state that is remembered with its length: of files, as most are, and not of long listings."""

MOST_CANDIDATE_BYTES = 1 << 20
"""Of all of them together, compressed: they lie in one row."""


class Look(IntFlag):
    """How a path was looked at; the values are stored."""

    STATE = 1
    """What is there: kind, permissions, owner, the content of a file.  Times do not count."""
    REPLACED = 2
    """As it was before the run replaced it without having read it: kind, permissions, owner, size."""
    NAMES = 4
    """The names in a directory, and their kinds."""
    ABSENCE = 8
    """Whether anything is there, and of which kind."""
    TARGET = 16
    """Where a symlink leads to."""
    TIMES = 32
    """When it was changed, and to whom it belongs."""
    REFUSAL = 64
    """Why it was refused: kind, permissions and owner of it and of its directory."""
    ROOM = 128
    """Whether a file can be made there: nothing, a file or a symlink is in the way."""
    ALIKE = 256
    """Names beside it that begin like it: what else may be taken for a crate's files (`taskvault.run.crates`)."""


class Item(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One path."""

    path: bytes
    """Relative to the root (empty for the root itself), or absolute."""
    look: int


class Order(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Files that one process looked at, and may have compared by when they were changed; numbers of items."""

    made: list[int]
    """Which may have been made by earlier runs: how each compares with all others counts."""
    sources: list[int]
    """Which lie in version control: how they compare with each other says only how they were checked out."""


class Pathset(msgspec.Struct, frozen=True, array_like=True):
    """Everything that one run looked at."""

    version: int
    items: list[Item]
    """By path."""
    upward: list[bytes]
    """Names that were looked for in every directory above the root, and found in none."""
    orders: list[Order]
    bound_to_parent: bool
    """Whether something beside the root was looked at: the result holds where the root's parent is the same."""


class PathsetsUnusable(TaskVaultError):
    """Stored pathsets cannot be read."""


def encode(pathset: Pathset) -> bytes:
    """Return the one form of a pathset that is hashed and stored."""
    return msgspec.msgpack.encode(pathset)


def pack(encoded: Sequence[bytes]) -> bytes:
    """Return the row of a weak key: as many of its pathsets, the first ones, as there is room for."""
    import zstandard

    kept = list(encoded[:MOST_PATHSETS])
    while True:
        row = zstandard.compress(msgspec.msgpack.encode(kept), 3)
        if len(row) <= MOST_CANDIDATE_BYTES or not kept:
            return row
        kept.pop()


def unpack(row: bytes) -> list[bytes]:
    """Return the encoded pathsets of a row; raise `PathsetsUnusable`."""
    import zstandard

    if not row:
        return []
    try:
        content = zstandard.ZstdDecompressor().decompress(row, max_output_size=64 * MOST_CANDIDATE_BYTES)
        return msgspec.msgpack.decode(content, type=list[bytes])
    except (zstandard.ZstdError, msgspec.MsgspecError) as exc:
        raise PathsetsUnusable(f"The stored pathsets cannot be read: {exc}.") from exc


def decode(encoded: bytes) -> Pathset:
    """Return a pathset; raise `PathsetsUnusable`, also for one of another version."""
    try:
        pathset = msgspec.msgpack.decode(encoded, type=Pathset)
    except msgspec.MsgspecError as exc:
        raise PathsetsUnusable(f"A stored pathset cannot be read: {exc}.") from exc
    if pathset.version != PATHSET_FORMAT:
        raise PathsetsUnusable(f"A stored pathset has version {pathset.version}, and {PATHSET_FORMAT} is known.")
    return pathset


def strong_key(weak: bytes, encoded: bytes, states: Sequence[bytes], hash_function: HashFunction) -> bytes:
    """Return the hash that finds the result of a run whose pathset has these states."""
    return strong_keys(weak, encoded, states, [()], hash_function)[0]


def strong_keys(
    weak: bytes, encoded: bytes, states: Sequence[bytes], more: Iterable[Sequence[bytes]], hash_function: HashFunction
) -> list[bytes]:
    """Return the keys of the same states with each of `more` behind them."""
    start = weak + hash_function.digest(encoded) + _joined(states)
    return [hash_function.digest(start + _joined(each)) for each in more]


def _joined(states: Sequence[bytes]) -> bytes:
    return b"".join([_known(state) if len(state) <= _SHORT else _with_length(state) for state in states])


def _with_length(state: bytes) -> bytes:
    return len(state).to_bytes(4, "little") + state


_known = lru_cache(16_384)(_with_length)
