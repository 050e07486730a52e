"""What the commands that check a vault print with `--json`: see `taskvault.cli.answers`."""

from __future__ import annotations

from typing import Literal

from taskvault.cli.answer import Answer


class ContentVerified(Answer, frozen=True, kw_only=True):
    """What reading everything found."""

    chunks: int
    read_bytes: int
    took_s: float
    bad: list[str]
    """Ids of chunks that are not what was stored, in hexadecimal; they are in quarantine."""
    holders: list[str]
    """Whose content they are: `entry SCOPE/KEY: PATH`, `snapshot NAME: PATH`, or a path under the mount."""


class VaultFinding(Answer, frozen=True, kw_only=True):
    """One thing that was not as it should be."""

    check: str
    where: str
    what: str
    remedy: str
    """What was done about it, or would be."""
    after_stop: bool
    """An unclean stop leaves it behind, and the next start puts it right as well."""
    repairable: bool
    """False for what is only reported."""


class VaultChecked(Answer, frozen=True, kw_only=True):
    """What `tv fsck` found."""

    home: str
    dry_run: bool
    count: int
    findings: list[VaultFinding]


class AuditEntry(Answer, frozen=True, kw_only=True):
    """One record of the audit log."""

    seq: int
    time_ns: int
    action: str
    scope: str
    key: str
    who: str
    detail: str


class RunAudited(Answer, frozen=True, kw_only=True):
    """A stored run that was to be repeated."""

    run: str
    """Its number."""
    command: list[str]
    root: str
    scope: str
    key: str
    verdict: Literal["same", "differs", "unknown"]
    """`unknown`: it was skipped, or could not be compared."""
    how: str
    """What differs, or why that is not known; empty for `same`."""


class RunsAudited(Answer, frozen=True, kw_only=True):
    """What an audit of stored runs found."""

    repeated: list[RunAudited]
    """Those that differ are not used any more."""
    skipped: list[RunAudited]
    over: bool
    """Whether the time ended before the sample was complete."""


class AuditChecked(Answer, frozen=True, kw_only=True):
    """Whether the audit log is what was written."""

    records: int
    """Those that are as they were written, from the first."""
    broken_at: int | None
    """The first that is not; null if all are."""
    reason: str
