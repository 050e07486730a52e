"""What those who share a vault are not shown of each other, and what only its owner is: values of variables, what was
captured of a run, and the keys that lead to it.

Who knows a run's key has seen everything that the run looked at, and may have its result.  So keys of runs are told to
nobody who did not make them.  It is a matter of what is told, not of what could be had: packs are read by all who share
a vault.
"""

from __future__ import annotations

from msgspec.structs import replace

from taskvault.protocol.runs import NOT_SHOWN, RunRecord
from tvd.control.vault_session import VaultSession
from tvd.entry_views import PATHS, RUN
from tvfs.errors import TaskVaultError
from tvfs.filesystem.filesystem import MAX_PATH_BYTES
from tvfs.filesystem.posix_error import NameTooLong
from tvfs.vault.stored_entry import StoredEntry

SHARED_TREE = "work"
"""Of the mount; everything else there is shown by key, run or digest, and is its owner's."""


class OwnersOnly(TaskVaultError):
    """A user who shares a vault asked for what is its owner's."""

    def __init__(self, session: VaultSession, what: str) -> None:
        super().__init__(f"Only the owner of this vault may see {what}, and you are user {session.peer.uid}; ask them.")
        self.what = what


class OthersDirectory(TaskVaultError):
    """A user who shares a vault wanted to let files go that are not theirs."""

    def __init__(self, session: VaultSession, path: str, uid: int) -> None:
        super().__init__(
            f"{path!r} belongs to user {uid}, and you are user {session.peer.uid}: what is in it is not yours to have"
            " evicted; ask them to mark it."
        )
        self.path = path


def check_owner(session: VaultSession, what: str) -> None:
    """Raise `OwnersOnly` unless the vault is the client's."""
    if not session.is_owner:
        raise OwnersOnly(session, what)


def check_path(session: VaultSession, path: str) -> None:
    """Raise `OwnersOnly` for a path below the mount that is not for all who share the vault; `NameTooLong`."""
    if len(path) > MAX_PATH_BYTES:
        raise NameTooLong(f"A path has at most {MAX_PATH_BYTES} bytes, this has {len(path)} characters.")
    names = [name for name in path.split("/") if name]
    if names[:1] != [SHARED_TREE] or ".." in names:
        check_owner(session, f"what is in {path or '.'!r}")


def may_read(session: VaultSession, mode: int, uid: int, gid: int) -> bool:
    """Whether permissions let a client read a file, as the kernel has them."""
    peer = session.peer
    if peer.uid == 0:
        return True
    if peer.uid == uid:
        return bool(mode & 0o400)
    return bool(mode & (0o040 if gid == peer.gid or gid in peer.groups else 0o004))


def record_for(session: VaultSession, record: RunRecord) -> RunRecord:
    """Return a record of the history as a client may see it."""
    if session.is_owner or record.user == session.peer.uid:
        return record
    return replace(record, key="", environment=dict.fromkeys(record.environment, NOT_SHOWN))


def keepers_for(session: VaultSession, kept_by: list[str]) -> list[str]:
    """Return what keeps a content as a client may see it: without entries, some of which are runs."""
    return [keeper for keeper in kept_by if session.is_owner or not keeper.startswith("entry ")]


def is_listed(session: VaultSession, entry: StoredEntry) -> bool:
    """Whether a client may see that there is an entry without naming its key."""
    return session.is_owner or entry.kind not in (RUN, PATHS)
