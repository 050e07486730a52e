"""Requests about the live tree and snapshots of it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from taskvault.protocol.messages import (
    Discard,
    Done,
    FindSnapshot,
    NameSnapshot,
    PrepareAttach,
    Prepared,
    PrepareTrash,
    RemoveSnapshot,
    SnapshotLive,
    SnapshotReply,
)
from tvd.control.answer import Table
from tvd.control.privacy import check_path
from tvd.control.snapshots import SnapshotMissing, Snapshots
from tvd.control.vault_session import PREPARED_DIRECTORY, VaultSession
from tvd.control.wire import Rejected, ref_of, snapshot_from
from tvfs.errors import TaskVaultError
from tvfs.filesystem.filesystem import MAX_PATH_BYTES, Filesystem
from tvfs.filesystem.model import PREPARED

MOST_NOTED_BYTES = 64 << 20
"""A hundred thousand paths of eight names and 80 bytes."""


class NotMounted(TaskVaultError):
    """What was asked for happens through the mount, and there is none."""

    def __init__(self) -> None:
        super().__init__("The daemon serves without a mount; copy instead (`--to DIR`), or start it with a mount.")


class LiveRequests:
    """Answers them from one filesystem."""

    def __init__(self, filesystem: Filesystem, snapshots: Snapshots, *, mounted: bool) -> None:
        self._filesystem = filesystem
        self._snapshots = snapshots
        self._mounted = mounted

    def table(self) -> Table[VaultSession]:
        """Handlers by request."""
        return {
            PrepareAttach: self.prepare_attach,
            PrepareTrash: self.prepare_trash,
            Discard: self.discard,
            SnapshotLive: self.snapshot_live,
            NameSnapshot: self.name_snapshot,
            FindSnapshot: self.find_snapshot,
            RemoveSnapshot: self.remove_snapshot,
        }

    async def prepare_attach(self, session: VaultSession, request: PrepareAttach) -> Prepared:
        """The client publishes it by rename, or it goes with the connection."""
        self._check_mounted()
        _check_paths([request.subpath])
        snapshot = snapshot_from(request.snapshot)
        self._snapshots.check(snapshot)
        name = session.fresh_name()
        self._filesystem.attach(
            PREPARED,
            name.encode(),
            snapshot,
            owner=session.owner_override,
            read_only=False,
            subpath=request.subpath,
        )
        return Prepared(f"{PREPARED_DIRECTORY}/{name}")

    async def prepare_trash(self, session: VaultSession, request: PrepareTrash) -> Prepared:
        """Nothing is there yet; the client renames something to it."""
        self._check_mounted()
        return Prepared(f"{PREPARED_DIRECTORY}/{session.fresh_name()}")

    async def discard(self, session: VaultSession, request: Discard) -> Done:
        """Constant time; the sweeper does the rest."""
        name = session.take_back(request.path)
        self._filesystem.discard(PREPARED, name)
        return Done()

    async def snapshot_live(self, session: VaultSession, request: SnapshotLive) -> SnapshotReply:
        """Seals what is not sealed yet."""
        _check_paths([*request.paths, *request.excluded])
        check_path(session, request.path)
        ino = self._filesystem.resolve(os.fsencode(request.path))
        outcome = await self._filesystem.snapshot(
            ino,
            paths=[os.fsencode(path) for path in request.paths] or None,
            excluded=[os.fsencode(pattern) for pattern in request.excluded],
            allow_open=request.allow_open,
            holder=session,
        )
        being_written = [os.fsdecode(path) for path in outcome.open_for_writing]
        return SnapshotReply(ref_of(outcome.snapshot), being_written)

    async def name_snapshot(self, session: VaultSession, request: NameSnapshot) -> Done:
        """Durable when answered."""
        snapshot = snapshot_from(request.snapshot)
        await self._snapshots.name(request.name, snapshot, who=session.who, replace=request.replace)
        return Done()

    async def find_snapshot(self, session: VaultSession, request: FindSnapshot) -> SnapshotReply:
        """By name, or by tree digest."""
        found = await self._snapshots.find(request.name, holder=session)
        if not session.keep(found.index):  # let go while it was looked for
            raise SnapshotMissing(request.name)
        return SnapshotReply(ref_of(found))

    async def remove_snapshot(self, session: VaultSession, request: RemoveSnapshot) -> Done:
        """Durable when answered; the content stays until it is swept."""
        await self._snapshots.remove(request.name, who=session.who)
        return Done()

    def _check_mounted(self) -> None:
        if not self._mounted:
            raise NotMounted


def _check_paths(paths: Sequence[str]) -> None:
    """Raise `Rejected` for paths that would take much room to tell apart: every directory on the way is noted."""
    noted_bytes = 0
    for path in paths:
        noted_bytes += (path.count("/") + 1) * len(path)
        if len(path) > MAX_PATH_BYTES or noted_bytes > MOST_NOTED_BYTES:
            raise Rejected("its paths are too long or too many; name a directory instead of what is in it")
