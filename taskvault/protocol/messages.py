"""Everything that clients and the owner say to each other over the vault's unix socket.

A client sends one `Request` and reads one `Reply` (or `Failed`) at a time on a connection; several connections may be
open.  What a connection was promised (leases, reservations, packs) ends with it.  Each message is a msgpack map with a
`type` tag, framed by `taskvault.protocol.framing`.  A field may be added with a default; nothing is ever renamed.
"""

from __future__ import annotations

import msgspec

from taskvault.protocol.live_trees import SnapshotLive as SnapshotLive
from taskvault.protocol.maintenance import Activity as Activity
from taskvault.protocol.maintenance import AuditRecords as AuditRecords
from taskvault.protocol.maintenance import AuditVerified as AuditVerified
from taskvault.protocol.maintenance import Collected as Collected
from taskvault.protocol.maintenance import CollectGarbage as CollectGarbage
from taskvault.protocol.maintenance import DescribePath as DescribePath
from taskvault.protocol.maintenance import FindNewest as FindNewest
from taskvault.protocol.maintenance import GetActivity as GetActivity
from taskvault.protocol.maintenance import GetPluginUse as GetPluginUse
from taskvault.protocol.maintenance import HoldersNamed as HoldersNamed
from taskvault.protocol.maintenance import MarkEvictable as MarkEvictable
from taskvault.protocol.maintenance import MeasurePath as MeasurePath
from taskvault.protocol.maintenance import NameHolders as NameHolders
from taskvault.protocol.maintenance import PathDescribed as PathDescribed
from taskvault.protocol.maintenance import PathMeasured as PathMeasured
from taskvault.protocol.maintenance import PluginUse as PluginUse
from taskvault.protocol.maintenance import ReadAudit as ReadAudit
from taskvault.protocol.maintenance import RemoveSnapshot as RemoveSnapshot
from taskvault.protocol.maintenance import SetPin as SetPin
from taskvault.protocol.maintenance import Verified as Verified
from taskvault.protocol.maintenance import VerifyAudit as VerifyAudit
from taskvault.protocol.maintenance import VerifySome as VerifySome
from taskvault.protocol.message import Message
from taskvault.protocol.message import SnapshotRef as SnapshotRef
from taskvault.protocol.runs import DigestsFound as DigestsFound
from taskvault.protocol.runs import FindDigests as FindDigests
from taskvault.protocol.runs import FindRuns as FindRuns
from taskvault.protocol.runs import GetRunSums as GetRunSums
from taskvault.protocol.runs import MarkUnsteady as MarkUnsteady
from taskvault.protocol.runs import MountedFile as MountedFile
from taskvault.protocol.runs import NoteRun as NoteRun
from taskvault.protocol.runs import RecordRun as RecordRun
from taskvault.protocol.runs import RunRecord as RunRecord
from taskvault.protocol.runs import RunReply as RunReply
from taskvault.protocol.runs import Runs as Runs
from taskvault.protocol.runs import RunSum as RunSum
from taskvault.protocol.runs import RunSums as RunSums
from taskvault.protocol.runs import UnsteadyKey as UnsteadyKey
from tvfs.ingest.commit import IngestCommit

PROTOCOL_VERSION = 2


# --- session ---------------------------------------------------------------------------------------------------------


class Hello(Message, frozen=True, tag=True):
    """First message of every connection."""

    version: int = PROTOCOL_VERSION


class Welcome(Message, frozen=True, tag=True):
    """The vault's fixed choices, which whoever hashes or chunks must follow."""

    version: int
    vault_uuid: str
    hash: str
    chunking: str
    chunking_parameters: dict[str, int | str]
    compression: str
    pack_max_bytes: int
    mount: str | None
    """Absolute path of the mount, or None with `--no-mount`."""
    compression_parameters: dict[str, int | str] = {}
    plugin_call_timeout_s: float = 10.0
    """What a call of a plugin that is not built in may take, beside the time that its bytes need."""


class Failed(Message, frozen=True, tag=True):
    """The request was refused; nothing was changed."""

    kind: str
    """Class name of the error, for programs: `KeyExists`, `KeyMissing`, `VaultFull`, `Rejected`, `Internal` …"""
    message: str
    """One sentence for people: what happened and what to do."""


class Done(Message, frozen=True, tag=True):
    """The request was carried out and needs no other answer."""


class GetStatus(Message, frozen=True, tag=True):
    """Ask for `Status`."""


class Status(Message, frozen=True, tag=True):
    """State of the owner, cheap to make."""

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
    healthy: bool = True
    trouble: str = ""


class GetStatistics(Message, frozen=True, tag=True):
    """Ask for `Statistics`."""


class Statistics(Message, frozen=True, tag=True):
    """Figures by name; names are stable and documented in docs/reference/statistics.md."""

    figures: dict[str, int | float]


class Shutdown(Message, frozen=True, tag=True):
    """Flush, unmount and stop; answered with `Done` when shutdown has begun.

    `Failed(MountHeld)` if processes use the mount, and the daemon goes on; with `force` it does not wait for them.
    With `hand_over` the mount stays, for the daemon that is started next; `Failed(HandOverImpossible)` if nobody keeps
    it.
    """

    force: bool = False
    hand_over: bool = False


# --- ingest: chunks, packs, commits ----------------------------------------------------------------------------------


class FindMissing(Message, frozen=True, tag=True):
    """Which of these chunks are not in the vault?

    Those that are stay leased to this connection until it commits or ends.
    """

    chunk_ids: list[bytes]


class Missing(Message, frozen=True, tag=True):
    """Chunks that must be sent."""

    chunk_ids: list[bytes]


class OpenPack(Message, frozen=True, tag=True):
    """Ask for a new pack to write; `reserve_bytes` of the vault are set aside for it."""

    reserve_bytes: int


class PackOpened(Message, frozen=True, tag=True):
    """The pack's descriptor (read-write, header written) travels with this frame."""

    number: int
    max_bytes: int


class EndPack(Message, frozen=True, tag=True):
    """Give a pack back: what was not committed in it is cut off, and what was reserved is free.  Answered with `Done`.

    Packs that were not given back end with the connection.
    """

    number: int


class Commit(Message, frozen=True, tag=True):
    """Make an ingest durable; answered with `Missing`: empty means done, otherwise nothing was committed."""

    commit: IngestCommit


class Locate(Message, frozen=True, tag=True):
    """Where are these chunks?  For reading packs directly; leased to this connection.

    Answered with `Located`; descriptors of the packs in `packs` (in that order) travel with the frame.  At most 16
    packs an answer: chunks in further packs come back in `later` and are asked for again.
    """

    chunk_ids: list[bytes]


class ChunkLocation(msgspec.Struct, frozen=True, array_like=True):
    """One chunk's record."""

    chunk_id: bytes
    pack: int
    offset: int
    stored_bytes: int
    raw_bytes: int
    codec: int


class Located(Message, frozen=True, tag=True):
    """Answer to `Locate`."""

    locations: list[ChunkLocation]
    packs: list[int]
    later: list[bytes]
    missing: list[bytes]


class CheckChunks(Message, frozen=True, tag=True):
    """Read these chunks from the disk and verify them; answered with `Missing`: those that are not good.

    What is bad is quarantined, so that the same bytes are stored anew when they come again.
    """

    chunk_ids: list[bytes]


class GetRows(Message, frozen=True, tag=True):
    """Read content-addressed rows: `(family, key)` with family blob, page, tree or treepage."""

    keys: list[tuple[str, bytes]]


class Rows(Message, frozen=True, tag=True):
    """Values in the order asked for; None where there is none."""

    values: list[bytes | None]


# --- entries ---------------------------------------------------------------------------------------------------------


class Entry(msgspec.Struct, frozen=True):
    """Something a key finds."""

    scope: str
    key: str
    kind: str
    """`saved` (a set of paths), `run` (an action result) or `paths` (what runs of one command looked at)."""
    created_ns: int
    used_ns: int
    snapshot: SnapshotRef | None = None
    """For `saved`: a directory that holds the saved paths.  For `run`: one with `outputs`, `stdout`, `stderr`."""
    result: bytes = b""
    """For `run`: the serialised REAPI `ActionResult`.  For `paths`: see `taskvault.run.pathset`."""
    cost_ns: int = 0
    """What it took to make: wall time of the command."""
    observed: str = "declared"
    """How the inputs of a run are known: `declared`, or by the name of the tracer that saw them."""
    uses: int = 0
    pinned: bool = False
    expires_ns: int = 0
    """When its time to live ends; 0: never."""


class SaveEntry(Message, frozen=True, tag=True):
    """Bind a key to content that is already committed; answered with `EntryReply` or `Failed(KeyExists)`."""

    scope: str
    key: str
    kind: str
    snapshot: SnapshotRef
    replace: bool = False
    result: bytes = b""
    cost_ns: int = 0
    ttl_s: float | None = None
    """From now; None: it does not expire."""
    pinned: bool = False
    observed: str = "declared"
    despite_mark: bool = False
    """Take the mark of a key that did not reproduce away; without, `Failed(KeyUnsteady)`."""


class GetEntry(Message, frozen=True, tag=True):
    """Find an entry; `count_use` marks it as used.  Answered with `EntryReply`."""

    scope: str
    key: str
    count_use: bool = False
    or_else: list[str] = []
    """Keys that are tried in turn where the ones before find nothing."""


class EntryReply(Message, frozen=True, tag=True):
    """The entry, or None."""

    entry: Entry | None
    unsteady: UnsteadyKey | None = None
    """Why there is none, if the key is marked."""


class ListEntries(Message, frozen=True, tag=True):
    """List entries in key order; `after` is `(scope, key)` of the last one already seen."""

    scope: str | None = None
    after: tuple[str, str] | None = None
    limit: int = 1000


class Entries(Message, frozen=True, tag=True):
    """A page of entries; fewer than the limit means the end."""

    entries: list[Entry]
    damage: list[str] = []
    """A sentence for each entry of the page that cannot be read."""


class RemoveEntry(Message, frozen=True, tag=True):
    """Forget an entry; `Failed(KeyMissing)` if there is none."""

    scope: str
    key: str


# --- the live tree ---------------------------------------------------------------------------------------------------


class PrepareAttach(Message, frozen=True, tag=True):
    """Attach a snapshot under a fresh name in the hidden directory; answered with `Prepared`.

    `subpath` picks a file or directory inside the snapshot.  The client publishes it by rename through the mount.  What
    is not published goes to the trash with the connection.
    """

    snapshot: SnapshotRef
    subpath: str = ""


class Prepared(Message, frozen=True, tag=True):
    """Path of what was prepared, relative to the mount."""

    path: str


class PrepareTrash(Message, frozen=True, tag=True):
    """Ask for a fresh name in the hidden directory to rename something to; answered with `Prepared`.

    `Discard` then removes it in the background.
    """


class Discard(Message, frozen=True, tag=True):
    """Move a name in the hidden directory (as answered by `Prepared`) to the trash."""

    path: str


class SnapshotReply(Message, frozen=True, tag=True):
    """The snapshot; `open_for_writing` names files that somebody had open for writing."""

    snapshot: SnapshotRef
    open_for_writing: list[str] = []


class NameSnapshot(Message, frozen=True, tag=True):
    """Show a snapshot as `snapshots/<name>`; `Failed(NameExists)` unless replace.

    If the name is the digest of its tree, it is kept for 7 days (less if room is needed) and not shown.
    """

    name: str
    snapshot: SnapshotRef
    replace: bool = False


class FindSnapshot(Message, frozen=True, tag=True):
    """Find a snapshot by name or by tree digest; answered with `SnapshotReply` or `Failed(SnapshotMissing)`."""

    name: str


Request = (
    Hello
    | GetStatus
    | GetStatistics
    | Shutdown
    | FindMissing
    | OpenPack
    | EndPack
    | Commit
    | Locate
    | CheckChunks
    | GetRows
    | SaveEntry
    | GetEntry
    | ListEntries
    | RemoveEntry
    | PrepareAttach
    | PrepareTrash
    | Discard
    | SnapshotLive
    | NameSnapshot
    | FindSnapshot
    | RecordRun
    | NoteRun
    | FindRuns
    | GetRunSums
    | MarkUnsteady
    | CollectGarbage
    | SetPin
    | FindNewest
    | RemoveSnapshot
    | MarkEvictable
    | VerifySome
    | NameHolders
    | ReadAudit
    | VerifyAudit
    | MeasurePath
    | DescribePath
    | FindDigests
    | GetActivity
    | GetPluginUse
)
Reply = (
    Welcome
    | Failed
    | Done
    | Status
    | Statistics
    | Missing
    | PackOpened
    | Located
    | Rows
    | EntryReply
    | Entries
    | Prepared
    | SnapshotReply
    | Runs
    | RunSums
    | RunReply
    | Collected
    | Verified
    | HoldersNamed
    | AuditRecords
    | AuditVerified
    | PathMeasured
    | PathDescribed
    | DigestsFound
    | Activity
    | PluginUse
)

ANSWERS: dict[type[Message], type[Message]] = {
    Hello: Welcome,
    GetStatus: Status,
    GetStatistics: Statistics,
    Shutdown: Done,
    FindMissing: Missing,
    OpenPack: PackOpened,
    EndPack: Done,
    Commit: Missing,
    Locate: Located,
    CheckChunks: Missing,
    GetRows: Rows,
    SaveEntry: EntryReply,
    GetEntry: EntryReply,
    ListEntries: Entries,
    RemoveEntry: Done,
    PrepareAttach: Prepared,
    PrepareTrash: Prepared,
    Discard: Done,
    SnapshotLive: SnapshotReply,
    NameSnapshot: Done,
    FindSnapshot: SnapshotReply,
    RecordRun: RunReply,
    FindRuns: Runs,
    GetRunSums: RunSums,
    MarkUnsteady: Done,
    CollectGarbage: Collected,
    SetPin: EntryReply,
    FindNewest: EntryReply,
    RemoveSnapshot: Done,
    MarkEvictable: Done,
    VerifySome: Verified,
    NameHolders: HoldersNamed,
    ReadAudit: AuditRecords,
    VerifyAudit: AuditVerified,
    MeasurePath: PathMeasured,
    DescribePath: PathDescribed,
    FindDigests: DigestsFound,
    GetActivity: Activity,
    GetPluginUse: PluginUse,
}
"""What answers each request, unless it is `Failed`."""

UNANSWERED: frozenset[type[Message]] = frozenset({NoteRun})
"""Requests that have no reply."""
