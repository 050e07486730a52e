"""What a client that does not own the vault is shown."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from msgspec.structs import replace

from taskvault.protocol.messages import (
    FindRuns,
    GetActivity,
    ListEntries,
    MarkEvictable,
    NameHolders,
    ReadAudit,
    RecordRun,
    RunRecord,
    SnapshotLive,
)
from taskvault.protocol.runs import NOT_SHOWN
from tvd.activity import ActivityRecorder, Live
from tvd.control.activity_requests import ActivityRequests
from tvd.control.checking_requests import CheckingRequests
from tvd.control.entries_requests import EntriesRequests
from tvd.control.live_requests import LiveRequests
from tvd.control.path_requests import PathRequests
from tvd.control.peer import Peer
from tvd.control.privacy import OthersDirectory, OwnersOnly, may_read
from tvd.control.runs_requests import RunsRequests
from tvd.control.snapshots import Snapshots
from tvd.control.vault_session import VaultSession
from tvd.entry_views import EntryViews
from tvfs.clock import SystemClock
from tvfs.filesystem.filesystem import Filesystem
from tvfs.filesystem.lookups import LookupCounts
from tvfs.filesystem.model import WORK, Caller
from tvfs.filesystem.settings import FilesystemSettings
from tvfs.plugin_api import PluginRegistry
from tvfs.vault.create import create_vault
from tvfs.vault.entries import StoredEntry
from tvfs.vault.superblock import VaultSettings
from tvfs.vault.vault import Vault, open_vault

OWNER, MEMBER = 1001, 1002

RECORD = RunRecord(
    run="", started_ns=0, duration_ns=1, command=["make"], root="/p", workdir="", scope="main", key="k" * 64,
    outcome="hit", reason="", exit_code=0, environment={"SETTING": "private"}, user=MEMBER,
)  # fmt: skip


class Served:
    """A vault, and who talks to it."""

    def __init__(self, vault: Vault, filesystem: Filesystem) -> None:
        self.vault, self.filesystem = vault, filesystem
        self.views = EntryViews(vault.catalog, filesystem, vault.entries)
        self.snapshots = Snapshots(vault, self.views)
        self.runs = RunsRequests(vault, self.views)
        self.owner, self.member = (self.session(uid) for uid in (OWNER, MEMBER))

    def session(self, uid: int) -> VaultSession:
        return VaultSession(Peer(1, uid, uid), self.vault, self.filesystem, is_owner=uid == OWNER)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    registry = PluginRegistry()
    create_vault(tmp_path / "home", settings=VaultSettings(capacity_bytes=64 << 20), registry=registry)
    async with open_vault(tmp_path / "home", registry) as vault:
        filesystem = Filesystem(vault, clock=SystemClock(), settings=FilesystemSettings(), lookups=LookupCounts())
        filesystem.start()
        yield Served(vault, filesystem)
        await filesystem.aclose()


async def test_history_says_who_ran_what_and_values_and_keys_only_to_them_and_the_owner(served: Served) -> None:
    for session in (served.owner, served.member):
        told = await served.runs.record(session, RecordRun(RECORD))
        assert (told.record.user, told.record.key) == (session.peer.uid, RECORD.key)
    owns, shares = [(await served.runs.find(session, FindRuns())).runs for session in (served.owner, served.member)]
    whole = [replace(RECORD, run="2"), replace(RECORD, run="1", user=OWNER)]
    assert owns == whole
    assert shares == [whole[0], replace(whole[1], key="", environment={"SETTING": NOT_SHOWN})]


async def test_keys_of_runs_are_listed_to_the_owner_only(served: Served) -> None:
    for key, kind in (("a", "saved"), ("b", "run"), ("c", "paths")):
        await served.vault.entries.put(StoredEntry("main", key, kind, created_ns=1, used_ns=1), who="x")
    entries = EntriesRequests(served.vault, served.views, served.snapshots)
    listed = [
        [each.key for each in (await entries.list_entries(session, ListEntries())).entries]
        for session in (served.owner, served.member)
    ]
    assert listed == [["a", "b", "c"], ["a"]]


async def test_the_audit_log_what_keeps_content_and_shown_runs_are_the_owners(served: Served) -> None:
    checking = CheckingRequests(served.vault, served.filesystem)
    live = LiveRequests(served.filesystem, served.snapshots, mounted=True)
    await checking.read_audit(served.owner, ReadAudit())
    with pytest.raises(OwnersOnly, match="Only the owner of this vault may see its audit log, and you are user 1002"):
        await checking.read_audit(served.member, ReadAudit())
    with pytest.raises(OwnersOnly):
        await checking.name_holders(served.member, NameHolders([]))
    for path in ("runs", "/runs/1", "keys/main", "", ".", "work/../runs"):
        with pytest.raises(OwnersOnly):
            await live.snapshot_live(served.member, SnapshotLive(path))
    await live.snapshot_live(served.member, SnapshotLive("work"))
    await served.member.close()


async def test_what_requests_under_way_are_about_is_the_owners(served: Served) -> None:
    activity = ActivityRecorder()
    asked = ActivityRequests(activity, served.vault, served.filesystem, connections=lambda: 1)
    activity.live |= {Live("GetEntry", f"{RECORD.key} (process 7)", 0), Live("fs.read", 9, 0)}
    owns, shares = [
        sorted(each.subject for each in (await asked.get_activity(session, GetActivity())).live)
        for session in (served.owner, served.member)
    ]
    assert owns == ["handle 9", f"{RECORD.key} (process 7)"]
    assert shares == ["handle 9", "process 7"]


async def test_nobody_has_files_evicted_that_are_anothers(served: Served) -> None:
    for name, uid in ((b"owns", OWNER), (b"shares", MEMBER)):
        served.filesystem.mkdir(WORK, name, 0o777, Caller(uid, uid))
    paths = PathRequests(served.vault, served.filesystem)
    with pytest.raises(OthersDirectory, match="'work/owns' belongs to user 1001, and you are user 1002"):
        await paths.mark_evictable(served.member, MarkEvictable("work/owns", True))
    await paths.mark_evictable(served.member, MarkEvictable("work/shares", True))
    for path in ("work/owns", "work/shares"):
        await paths.mark_evictable(served.owner, MarkEvictable(path, True))


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "may"),
    [
        (0o400, MEMBER, 1, True),
        (0o077, MEMBER, MEMBER, False),
        (0o040, 1, MEMBER, True),
        (0o040, 1, 50, True),
        (0o404, 1, 50, False),
        (0o004, 1, 1, True),
        (0o440, 1, 1, False),
    ],
)
def test_a_hash_is_told_of_what_permissions_let_a_member_read(mode: int, uid: int, gid: int, may: bool) -> None:
    member = SimpleNamespace(peer=Peer(1, MEMBER, MEMBER, frozenset({50})), is_owner=False)
    assert may_read(cast(VaultSession, member), 0o100000 | mode, uid, gid) == may
    root = SimpleNamespace(peer=Peer(1, 0, 0), is_owner=True)
    assert may_read(cast(VaultSession, root), 0o100000, uid, gid)
