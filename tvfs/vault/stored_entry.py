"""What a row of family `entry` holds.  Key `scope, 0x00, key`; value: version byte 1, then a msgpack map."""

from __future__ import annotations

import msgspec

from tvfs.errors import TaskVaultError
from tvfs.vault.names import check_key, check_scope

VERSION = b"\x01"
"""First byte of every row; the rest is a msgpack `StoredEntry`."""

SAVED, RUN, SNAPSHOT, PATHS = "saved", "run", "snapshot", "paths"
KINDS = frozenset({SAVED, RUN, SNAPSHOT, PATHS})
"""Kinds of entries."""


class EntryInvalid(TaskVaultError):
    """A stored entry cannot be read."""

    def __init__(self, scope: str, key: str, reason: str) -> None:
        super().__init__(
            f"The entry {key!r} in scope {scope!r} is damaged ({reason});"
            " remove it with `tv cache rm` and save it again."
        )


class StoredSnapshot(msgspec.Struct, frozen=True):
    """A snapshot in a row: digests as `str(Digest)` writes them."""

    tree: str
    attributes: str | None
    index: bytes
    files: int
    size: int


class StoredEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something a key finds.  A field may be added with a default: rows without it stay readable."""

    scope: str
    key: str
    kind: str
    """`saved` (a set of paths), `run` (an action result), `snapshot`, or `paths` (what runs looked at)."""
    created_ns: int
    used_ns: int
    snapshot: StoredSnapshot | None = None
    result: bytes = b""
    """For `run`: the serialised REAPI `ActionResult`.  For `paths`: pathsets, as clients pack them."""
    cost_ns: int = 0
    """What it took to make: wall time of the command."""
    observed: str = "declared"
    """How the inputs of a run are known: `declared`, or by the name of the tracer that saw them."""
    uses: int = 0
    pinned: bool = False
    """Never evicted; a time to live ends all the same."""
    expires_ns: int = 0
    """When its time to live ends; 0: never.  From that instant on it is not found."""
    rank: float | None = None
    """Where it stands among those that may be evicted; None: it is not among them, or was never ranked."""
    ranked_by_use: bool = False
    """The policy failed when it was ranked, and `rank` is `used_ns`."""
    spared_uses: int = 0
    """`uses` when it was last given a second chance."""

    @property
    def is_evictable(self) -> bool:
        """Whether it may be evicted: it is not pinned, and no named snapshot; one without a name has an end."""
        return not self.pinned and (self.kind != SNAPSHOT or self.expires_ns != 0)

    def has_expired(self, now_ns: int) -> bool:
        """Whether its time to live has ended."""
        return 0 < self.expires_ns <= now_ns

    @property
    def size_bytes(self) -> int:
        """Sum of the lengths of its files; one without a snapshot has its result."""
        return self.snapshot.size if self.snapshot else len(self.result)


def entry_row_key(scope: str, key: str) -> bytes:
    """Return the key of its row; raise `NameInvalid`."""
    return check_scope(scope).encode() + b"\0" + check_key(key).encode()


def names_of_row(row_key: bytes) -> tuple[str, str]:
    """Return scope and key of a row."""
    scope, _, key = row_key.decode(errors="replace").partition("\0")
    return scope, key


def encode_entry(entry: StoredEntry) -> bytes:
    """Return the row's value."""
    return VERSION + _encoder.encode(entry)


def decode_entry(row_key: bytes, row: bytes) -> StoredEntry:
    """Return the entry; raise `EntryInvalid`."""
    if row[:1] != VERSION:
        raise EntryInvalid(*names_of_row(row_key), f"format version {row[0] if row else 'none'}")
    try:
        entry = _decoder.decode(memoryview(row)[1:])
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise EntryInvalid(*names_of_row(row_key), str(exc)) from exc
    if entry.scope.encode() + b"\0" + entry.key.encode() != row_key:
        raise EntryInvalid(*names_of_row(row_key), "it is another key's")
    return entry


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(StoredEntry)
