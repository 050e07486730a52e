"""What each command prints with `--json`, as types: the schemas in docs/reference/schemas are made from them.

A field may be added, none is renamed or changes its meaning.  Sizes are bytes, `_ns` nanoseconds, `_s` seconds; digests
are `FUNCTION:HASH-SIZE`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import UNSET, UnsetType

from taskvault.cli.answer import Answer
from taskvault.cli.checking_answers import AuditChecked as AuditChecked
from taskvault.cli.checking_answers import AuditEntry as AuditEntry
from taskvault.cli.checking_answers import ContentVerified as ContentVerified
from taskvault.cli.checking_answers import RunAudited as RunAudited
from taskvault.cli.checking_answers import RunsAudited as RunsAudited
from taskvault.cli.checking_answers import VaultChecked as VaultChecked
from taskvault.cli.checking_answers import VaultFinding as VaultFinding

if TYPE_CHECKING:
    from taskvault.protocol.messages import RunRecord


# --- the vault and its daemon ----------------------------------------------------------------------------------------


class Made(Answer, frozen=True, kw_only=True):
    """A vault was made."""

    home: str


class Up(Answer, frozen=True, kw_only=True):
    """The daemon is up."""

    home: str
    mount: str | None
    """Null without a mount."""
    started: bool
    """False if it was up before."""
    pid: int | UnsetType = UNSET
    """Only if it was started."""


class Down(Answer, frozen=True, kw_only=True):
    """The daemon is down."""

    home: str
    stopped: bool
    """False if it was down before."""


class State(Answer, frozen=True, kw_only=True):
    """State of the daemon."""

    version: str
    pid: int
    vault_uuid: str
    home: str
    mount: str | None
    uptime_s: float
    capacity_bytes: int
    used_bytes: int
    entries: int
    staged_files: int
    healthy: bool
    trouble: str
    """Why it is not healthy, a sentence."""


Figures = dict[str, int | float]
"""Figure by name; docs/reference/statistics.md says what each means."""


# --- keys ------------------------------------------------------------------------------------------------------------


class CacheEntry(Answer, frozen=True, kw_only=True):
    """What a key finds."""

    scope: str
    key: str
    kind: str
    """`saved` or `run`."""
    files: int
    bytes: int
    """Sum of the lengths of its files."""
    tree: str | None
    """Digest of its tree."""
    created: str
    """Local date and time."""
    used: str
    """Local date and time."""
    uses: int
    pinned: bool
    """It is never evicted."""
    expires: str | None
    """Local date and time from which on it is not found any more; null if it does not expire."""


class CacheHit(CacheEntry, frozen=True, kw_only=True):
    """What a key found, and where it was put."""

    hit: bool
    """False if a fallback was taken."""
    attached: bool
    """False if it was copied."""
    to: str


class KeysRemoved(Answer, frozen=True, kw_only=True):
    """Keys that were forgotten."""

    scope: str
    removed: list[str]


class KeysPinned(Answer, frozen=True, kw_only=True):
    """Keys that are never evicted from now on, or may be again."""

    scope: str
    keys: list[str]
    pinned: bool


# --- trees -----------------------------------------------------------------------------------------------------------


class SnapshotTaken(Answer, frozen=True, kw_only=True):
    """A directory was kept."""

    tree: str
    name: str | None
    files: int
    bytes: int


SnapshotsRemoved = list[str]
"""Names or digests of snapshots that were forgotten."""


class Attached(Answer, frozen=True, kw_only=True):
    """A path has the content of a snapshot."""

    tree: str
    path: str
    attached: bool
    """False if it was copied."""


class PathsRemoved(Answer, frozen=True, kw_only=True):
    """Paths that were removed."""

    removed: list[str]


Digests = dict[str, str]
"""Digest by path."""


class PathSize(Answer, frozen=True, kw_only=True):
    """What a path under the mount takes."""

    path: str
    files: int
    """A file with several names counts once."""
    directories: int
    logical_bytes: int
    """Sum of the lengths of its files."""
    stored_bytes: int
    """What its chunks take in packs, each once, and what is staged."""
    exclusive_bytes: int
    """What of that nothing else needs: removing the path gives this back."""
    staged_bytes: int
    """What was written and is not sealed yet."""


class VaultSize(Answer, frozen=True, kw_only=True):
    """What the vault takes of its disk."""

    capacity_bytes: int
    used_bytes: int
    """The sum of the next four."""
    packs_bytes: int
    staging_bytes: int
    meta_bytes: int
    """The catalog."""
    rest_bytes: int
    """Directories, the log, the configuration."""
    live_bytes: int
    """Of the packs: chunks that something refers to."""
    dead_bytes: int
    """Of the packs: what compaction would give back."""
    logical_bytes: int
    """Sum of the lengths of all files in all entries: what they would take unshared and uncompressed."""


class PathState(Answer, frozen=True, kw_only=True):
    """Everything about one path under the mount."""

    path: str
    ino: int
    kind: str
    """`file`, `directory`, `symlink` or `special`."""
    state: str
    """`sealed`, `staged` or `empty`; of a directory `attached` (it has a base tree) or `plain`."""
    digest: str | None
    """Of sealed content, or of the tree that a directory was attached from and has not been changed since."""
    logical_bytes: int
    stored_bytes: int
    chunks: int
    shared_chunks: int
    """Chunks that something else refers to as well."""
    codecs: dict[str, int]
    """Chunks by the name of the codec that compressed them; `raw` for none."""
    kept_by: list[str]
    """What keeps the content: `name PATH`, `entry SCOPE/KEY`, `snapshot NAME`, `open`, `lease` …"""
    evictable: bool
    open_for_writing: bool


# --- runs ------------------------------------------------------------------------------------------------------------


class Run(Answer, frozen=True, kw_only=True):
    """One run."""

    run: str
    """Its number."""
    started_ns: int
    duration_ns: int
    command: list[str]
    root: str
    workdir: str
    scope: str
    key: str
    outcome: Literal["hit", "stored", "not stored", "failed"]
    reason: str
    """Why it was not stored."""
    exit_code: int
    saved_ns: int
    user: int
    """Number of the user who ran it; -1 for runs of before that was recorded."""


def run_answer(record: RunRecord) -> Run:
    """Return a record of the history as it is shown: without what makes it long."""
    return msgspec.convert(record, Run, from_attributes=True)


class Change(Answer, frozen=True, kw_only=True):
    """One thing that differs from the nearest known run."""

    kind: Literal[
        "root", "input", "environment", "program", "platform", "working directory", "inputs", "outputs", "argument"
    ]  # fmt: skip
    name: str
    before: str | None
    """Null where it was not there."""
    now: str | None


class Why(Answer, frozen=True, kw_only=True):
    """Why a run hit, missed or was not stored."""

    run: Run
    nearest: str | None
    """Number of the nearest known run."""
    changes: list[Change]
    unsteady: str | None = None
    """Why the result under its key is not used any more: it did not make the same when it was audited."""


# --- operating -------------------------------------------------------------------------------------------------------


class Finding(Answer, frozen=True, kw_only=True):
    """One thing that `tv doctor` looked at."""

    name: str
    state: Literal["ok", "warning", "failed"]
    fact: str
    remedy: str = ""
    """What to do about it; may say something also where all is well."""


class Plugin(Answer, frozen=True, kw_only=True):
    """One installed plugin."""

    kind: str
    """`hash`, `compression`, `chunking` or `eviction`."""
    name: str
    distribution: str | None
    """The package that it comes with; the first one if more have it."""
    version: str | None
    """Of the distribution."""
    state: str
    """`ok`, `broken`, `incompatible` or `ambiguous`."""
    reason: str
    """Why it is not ok, a sentence."""
    needed: bool | None
    """Whether the vault uses it; null if no daemon answers."""
    needed_because: str


class OperationRate(Answer, frozen=True, kw_only=True):
    """One kind of filesystem or control request, over the interval."""

    name: str
    per_s: float
    mean_s: float
    slowest_s: float
    """Slowest of the last minute."""


class LiveRequest(Answer, frozen=True, kw_only=True):
    """A request that was being served when the sample was taken."""

    name: str
    subject: str
    age_s: float


class Sample(Answer, frozen=True, kw_only=True):
    """What the daemon did in one interval."""

    interval_s: float
    operations: list[OperationRate]
    """Those that happened, most frequent first."""
    slowest: list[OperationRate]
    """Slowest of the last minute, at most ten."""
    live: list[LiveRequest]
    """Oldest first."""
    hits: int
    """Look-ups of keys since the start that found something."""
    misses: int
    hit_rate: float | None
    """Of the interval; of the whole life of the daemon if nothing was looked up in it; null if nothing ever was."""
    read_bytes_per_s: float
    """Through the mount."""
    written_bytes_per_s: float
    dirty_bytes: int
    """Staged and not sealed."""
    open_files: int
    connections: int


class Setting(Answer, frozen=True, kw_only=True):
    """One setting of the daemon, and where its value comes from."""

    section: str
    key: str
    value: bool | int | float | str | dict[str, int | str] | None
    default: bool | int | float | str | dict[str, int | str] | None
    source: Literal["default", "file", "environment"]
    file: str | None
    """If the file says it."""
    line: int | None
    """Where in the file, from 1."""
    variable: str | None
    """If a variable of the environment says it."""


class ConfigError(Answer, frozen=True, kw_only=True):
    """One thing that is wrong with the configuration."""

    source: str
    """The file, or the variable of the environment."""
    line: int | None
    key: str
    message: str
    """A sentence: what is wrong, and what is allowed."""


class ConfigChecked(Answer, frozen=True, kw_only=True):
    """What is wrong with a configuration."""

    file: str
    exists: bool
    errors: list[ConfigError]


class Completion(Answer, frozen=True, kw_only=True):
    """A script that makes a shell complete our command lines."""

    shell: Literal["bash", "zsh", "fish"]
    script: str


class Shims(Answer, frozen=True, kw_only=True):
    """Shims that were made."""

    directory: str
    """To be put first in PATH."""
    tools: list[str]
    """Names of the tools."""


class GarbageCollected(Answer, frozen=True, kw_only=True):
    """What a collection did."""

    expired: int
    """Entries past their time to live."""
    evicted: int
    """Entries and evictable files that gave way."""
    objects: int
    """Chunks, manifests and trees let go."""
    freed_bytes: int
    """By how much the packs take less of the disk."""
    moved_bytes: int
    """Copied by compaction."""
    findings: list[str]
    """With --check: each difference between counts and references, a sentence; none is as it should be."""


class Adopted(Answer, frozen=True, kw_only=True):
    """A directory was moved under the mount, or back."""

    directory: str
    place: str
    """Where its files lie, or lay, under the mount."""
    files: int
    bytes: int
    undone: bool


ANSWERS: dict[str, object] = {
    "init": Made,
    "up": Up,
    "down": Down,
    "status": State,
    "stats": Figures,
    "gc": GarbageCollected,
    "verify": ContentVerified,
    "fsck": VaultChecked,
    "audit": list[AuditEntry],
    "audit verify": AuditChecked,
    "audit runs": RunsAudited,
    "top": Sample,
    "du": list[PathSize] | VaultSize,
    "show": PathState,
    "run": Run,
    "shim": Shims,
    "why": Why,
    "runs": list[Run],
    "cache save": CacheEntry,
    "cache get": CacheHit,
    "cache ls": list[CacheEntry],
    "cache show": CacheEntry,
    "cache rm": KeysRemoved,
    "cache pin": KeysPinned,
    "cache unpin": KeysPinned,
    "snapshot": SnapshotTaken | SnapshotsRemoved,
    "attach": Attached,
    "rm": PathsRemoved,
    "adopt": Adopted,
    "hash": Digests,
    "config show": list[Setting],
    "config check": ConfigChecked,
    "plugins": list[Plugin],
    "doctor": list[Finding],
    "completion": Completion,
}
"""What each command prints; a command with `--json` that is not here fails a test."""
