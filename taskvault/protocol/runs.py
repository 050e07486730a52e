"""What a client and the owner say to each other about the history of runs."""

from __future__ import annotations

import msgspec

from taskvault.protocol.message import Message

NOT_SHOWN = "(not shown: another user's)"
"""Stands for a value of a variable."""


class RunRecord(msgspec.Struct, frozen=True):
    """One run as history and `tv why` keep it."""

    run: str
    """Id: decimal sequence number; empty until stored."""
    started_ns: int
    duration_ns: int
    command: list[str]
    root: str
    workdir: str
    scope: str
    key: str
    """The action digest in hexadecimal: the entry's key."""
    outcome: str
    """`hit`, `stored`, `not stored`, `failed`."""
    reason: str
    exit_code: int
    saved_ns: int = 0
    inputs: dict[str, str] = {}
    """Path to digest (or symlink target), for saying what differs."""
    environment: dict[str, str] = {}
    """Variable to value, only those that count."""
    facts: dict[str, str] = {}
    """Everything else in the key: toolchain digest, platform, patterns."""
    user: int = -1
    """Number of the user who ran it; the owner of the vault says it, and not the client."""


class RecordRun(Message, frozen=True, tag=True):
    """Add a run to the history; answered with `RunReply`."""

    record: RunRecord


class NoteRun(Message, frozen=True, tag=True):
    """The same, and nobody waits: it is not answered, not even if it is refused."""

    record: RunRecord


class UnsteadyKey(msgspec.Struct, frozen=True):
    """A key whose run did not make the same when it was repeated: nothing is found under it, or stored."""

    key: str
    run: str
    """Whose result was compared."""
    how: str
    """What differed, as part of a sentence."""
    marked_ns: int

    @property
    def text(self) -> str:
        """Why nothing is found."""
        return f"run {self.run} did not make the same when it was audited: {self.how}"


class MarkUnsteady(Message, frozen=True, tag=True):
    """Mark a key like that and forget its entry; answered with `Done`.

    If another entry than the one of `created_ns` is there by now, nothing is changed.
    """

    scope: str
    key: str
    run: str
    how: str
    created_ns: int


class FindRuns(Message, frozen=True, tag=True):
    """Latest runs first; `run` picks one by id, `command` and `root` filter exactly."""

    run: str | None = None
    root: str | None = None
    command: list[str] | None = None
    limit: int = 100
    brief: bool = False
    """Leave out inputs, environment and facts, which may be long."""


class Runs(Message, frozen=True, tag=True):
    """Runs, latest first."""

    runs: list[RunRecord]


class GetRunSums(Message, frozen=True, tag=True):
    """What all runs came to, those that the history has forgotten included; answered with `RunSums`."""


class RunSum(msgspec.Struct, frozen=True):
    """All runs of one command."""

    runs: int
    hits: int
    stored: int
    failed: int
    """Those whose command failed."""
    duration_ns: int
    """What they took, replays included."""
    saved_ns: int
    """What replays saved."""


class RunSums(Message, frozen=True, tag=True):
    """By the name of the program, without its directory; `others` are those beyond 500 names."""

    sums: dict[str, RunSum]


class RunReply(Message, frozen=True, tag=True):
    """The record as stored, with its id."""

    record: RunRecord


class MountedFile(msgspec.Struct, frozen=True, array_like=True):
    """A file as `lstat` showed it; one of another file system, or one that has changed since, is unknown."""

    device: int
    ino: int
    mode: int
    size: int
    mtime_ns: int
    ctime_ns: int


class FindDigests(Message, frozen=True, tag=True):
    """What do files under the mount hold that nobody writes to?  Answered with `DigestsFound`."""

    files: list[MountedFile]


class DigestsFound(Message, frozen=True, tag=True):
    """The hash of each under the vault's function, in order; empty where it must be read to know."""

    hashes: list[bytes]
