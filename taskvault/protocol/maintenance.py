"""What an operator and the owner say to each other: reclaiming, checking, the audit log, figures."""

from __future__ import annotations

import msgspec

from taskvault.protocol.message import Message

# --- reclaiming ------------------------------------------------------------------------------------------------------


class CollectGarbage(Message, frozen=True, tag=True):
    """Remove what has expired and what nothing wants, and compact packs; answered with `Collected` when it is done.

    `evict_bytes` asks for that much more to be evicted by rank.  `check` has counts compared with what is reachable.
    """

    evict_bytes: int = 0
    check: bool = False


class Collected(Message, frozen=True, tag=True):
    """What a collection did."""

    expired: int
    """Entries past their time to live."""
    evicted: int
    """Entries and evictable files that gave way."""
    objects: int
    """Chunks, blobs, pages and trees let go."""
    freed_bytes: int
    """By how much the packs take less of the disk now."""
    moved_bytes: int
    """Copied by compaction."""
    findings: list[str] = []
    """With `check`: each difference between counts and reachability, a sentence; none is as it should be."""


class SetPin(Message, frozen=True, tag=True):
    """Never evict an entry, or again; answered with `EntryReply`, or `Failed(KeyMissing)`.

    A time to live ends all the same.
    """

    scope: str
    key: str
    pinned: bool


class FindNewest(Message, frozen=True, tag=True):
    """Find the newest saved entry of a scope whose key begins with `prefix`; answered with `EntryReply`.

    One look-up if the prefix ends with a character that is no letter and no digit, among its first four of those.
    """

    scope: str
    prefix: str
    count_use: bool = False


class RemoveSnapshot(Message, frozen=True, tag=True):
    """Forget a snapshot by its name, or by the digest of its tree; `Done`, or `Failed(SnapshotMissing)`."""

    name: str


class MarkEvictable(Message, frozen=True, tag=True):
    """Let the files below a directory under the mount be evicted one by one, or no longer; answered with `Done`.

    `path` is relative to the mount, below `work/`.
    """

    path: str
    evictable: bool


# --- checking --------------------------------------------------------------------------------------------------------


class VerifySome(Message, frozen=True, tag=True):
    """Read and verify chunks that come after `after`, about `most_bytes` of them; answered with `Verified`.

    The asker sets the pace by when it asks for more.
    """

    after: bytes = b""
    most_bytes: int = 8 << 20


class Verified(Message, frozen=True, tag=True):
    """What was read; the bad ones are in quarantine."""

    after: bytes | None
    """Where to go on; None at the end."""
    chunks: int
    read_bytes: int
    bad: list[bytes] = []


class NameHolders(Message, frozen=True, tag=True):
    """Whose content are these chunks?  Looks through the whole catalog; answered with `HoldersNamed`."""

    chunk_ids: list[bytes]


class HoldersNamed(Message, frozen=True, tag=True):
    """At most 1,000: `entry SCOPE/KEY: PATH`, `snapshot NAME: PATH`, or the path of a file under the mount."""

    holders: list[str]


class ReadAudit(Message, frozen=True, tag=True):
    """Records of the audit log, latest first, from before record `before`; answered with `AuditRecords`."""

    before: int | None = None
    limit: int = 100


class AuditLine(msgspec.Struct, frozen=True):
    """One record."""

    seq: int
    time_ns: int
    action: str
    scope: str
    key: str
    who: str
    detail: str


class AuditRecords(Message, frozen=True, tag=True):
    """Fewer than asked for means that there are no older ones."""

    records: list[AuditLine]


class VerifyAudit(Message, frozen=True, tag=True):
    """Check the whole chain; answered with `AuditVerified`."""


class AuditVerified(Message, frozen=True, tag=True):
    """The state of the chain."""

    records: int
    broken_at: int | None = None
    """The first record that is not what was written; None if all are."""
    reason: str = ""


# --- figures ---------------------------------------------------------------------------------------------------------


class MeasurePath(Message, frozen=True, tag=True):
    """What does a path under the mount (relative to it) take?  Answered with `PathMeasured`."""

    path: str


class PathMeasured(Message, frozen=True, tag=True):
    """Sizes of a file, or of a directory with everything below it, in bytes."""

    files: int
    directories: int
    logical_bytes: int
    """Sum of the lengths of its files."""
    stored_bytes: int
    """What its chunks take in packs, each chunk once, and what is staged."""
    exclusive_bytes: int
    """What of that nothing else refers to: removing the path gives this back."""
    staged_bytes: int


class DescribePath(Message, frozen=True, tag=True):
    """What is a path under the mount (relative to it)?  Answered with `PathDescribed`."""

    path: str


class PathDescribed(Message, frozen=True, tag=True):
    """Everything about one inode."""

    ino: int
    kind: str
    """`file`, `directory`, `symlink`, `special`."""
    state: str
    """`sealed`, `staged`, `empty`, `attached` (a directory with a base tree), `plain`."""
    digest: str | None
    """Of sealed content, or of the tree a directory was attached from and has not changed since."""
    logical_bytes: int
    stored_bytes: int
    chunks: int
    shared_chunks: int
    """Chunks that something else refers to as well."""
    codecs: dict[str, int]
    """Chunks by the name of the codec that compressed them; `raw` for none."""
    kept_by: list[str]
    """What keeps the content: `name work/a/b`, `entry main/deps`, `snapshot x`, `open`, `lease`, at most 100."""
    evictable: bool
    open_for_writing: bool


class GetActivity(Message, frozen=True, tag=True):
    """What is the owner doing?  Answered with `Activity`; ask again and subtract for rates."""


class Operation(msgspec.Struct, frozen=True):
    """One kind of filesystem or control request since the start."""

    name: str
    count: int
    total_s: float
    slowest_s: float
    """Slowest of the last minute."""


class LiveOperation(msgspec.Struct, frozen=True):
    """A request that is being served now."""

    name: str
    subject: str
    """Which inode, key or client."""
    age_s: float


class Activity(Message, frozen=True, tag=True):
    """A moment of the owner's life; counters only grow."""

    time_s: float
    """On the owner's monotonic clock."""
    operations: list[Operation]
    live: list[LiveOperation]
    hits: int
    misses: int
    """Of look-ups of keys that counted as uses."""
    read_bytes: int
    written_bytes: int
    """Through the mount."""
    dirty_bytes: int
    """Staged and not sealed."""
    open_files: int
    connections: int


class GetPluginUse(Message, frozen=True, tag=True):
    """Which plugins does the vault's data need?  Answered with `PluginUse`."""


class PluginUse(Message, frozen=True, tag=True):
    """By kind and name: why it is needed, a sentence; plugins that are not needed are not there."""

    needed: dict[str, dict[str, str]]
