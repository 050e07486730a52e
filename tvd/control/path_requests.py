"""Requests about what paths under the mount take, and what they are."""

from __future__ import annotations

import os
from collections.abc import Callable

from taskvault.protocol.messages import (
    DescribePath,
    DigestsFound,
    Done,
    FindDigests,
    MarkEvictable,
    MeasurePath,
    MountedFile,
    PathDescribed,
    PathMeasured,
)
from tvd.control.answer import Table
from tvd.control.privacy import OthersDirectory, check_path, keepers_for, may_read
from tvd.control.vault_session import VaultSession
from tvd.control.wire import Rejected
from tvd.keepers import Keepers
from tvd.shown_entries import shown_by
from tvfs.filesystem.filesystem import Filesystem
from tvfs.vault.vault import Vault

MOST_FILES = 256
"""In one request for digests."""


def no_mount() -> None:
    """Return the number of the file system of a vault without a mount."""


class PathRequests:
    """Answers them from one filesystem."""

    def __init__(self, vault: Vault, filesystem: Filesystem, *, device: Callable[[], int | None] = no_mount) -> None:
        """`device` returns the number of the mounted file system, as `lstat` shows it; None without a mount."""
        self._device = device
        self._vault = vault
        self._filesystem = filesystem
        self._keepers = Keepers(vault, filesystem.inspection)

    def table(self) -> Table[VaultSession]:
        """Handlers by request."""
        return {
            MeasurePath: self.measure_path,
            DescribePath: self.describe_path,
            FindDigests: self.find_digests,
            MarkEvictable: self.mark_evictable,
        }

    async def measure_path(self, session: VaultSession, request: MeasurePath) -> PathMeasured:
        """In slices: a path of any size is in nobody's way."""
        ino = self._filesystem.resolve(os.fsencode(request.path))
        found, weight = await self._filesystem.inspection.measure(ino, await shown_by(self._vault, request.path))
        return PathMeasured(
            files=found.files,
            directories=found.directories,
            logical_bytes=found.logical_bytes,
            stored_bytes=weight.stored_bytes + found.staged_bytes,
            exclusive_bytes=weight.freed_bytes + found.staged_bytes,
            staged_bytes=found.staged_bytes,
        )

    async def describe_path(self, session: VaultSession, request: DescribePath) -> PathDescribed:
        """The same, and what keeps it: looks into every entry if something else refers to the content."""
        check_path(session, request.path)
        path = os.fsencode(request.path)
        ino, parent = self._filesystem.resolve(path), self._filesystem.resolve(os.path.dirname(path.rstrip(b"/")))
        described = await self._filesystem.inspection.describe(ino)
        return PathDescribed(
            ino=ino,
            kind=described.kind,
            state=described.state,
            digest=None if described.digest is None else str(described.digest),
            logical_bytes=described.found.logical_bytes,
            stored_bytes=described.weight.stored_bytes + described.found.staged_bytes,
            chunks=described.weight.chunks,
            shared_chunks=described.shared_chunks,
            codecs=described.codecs,
            kept_by=keepers_for(session, await self._keepers.of(request.path, described)),
            evictable=self._filesystem.evictables.is_evictable(ino, parent),
            open_for_writing=described.open_for_writing,
        )

    async def find_digests(self, session: VaultSession, request: FindDigests) -> DigestsFound:
        """Only of what a client has looked at, as it is now, and may read."""
        if len(request.files) > MOST_FILES:
            raise Rejected(f"{len(request.files)} files cannot be asked for at once, at most {MOST_FILES}")
        device = self._device()
        return DigestsFound([
            self._hash_of(session, file) if file.device == device else b"" for file in request.files
        ])  # fmt: skip

    def _hash_of(self, session: VaultSession, file: MountedFile) -> bytes:
        found = self._filesystem.inspection.settled(file.ino) if file.ino > 0 else None
        if found is None:
            return b""
        inode, hash_ = found
        same = (inode.mode, inode.size, inode.mtime_ns, inode.ctime_ns) == (
            file.mode,
            file.size,
            file.mtime_ns,
            file.ctime_ns,
        )
        return hash_ if same and may_read(session, inode.mode, inode.uid, inode.gid) else b""

    async def mark_evictable(self, session: VaultSession, request: MarkEvictable) -> Done:
        """Durable when answered; files that are there already are known to eviction a moment later."""
        ino = self._filesystem.resolve(os.fsencode(request.path))
        uid = self._filesystem.getattr(ino).uid
        if not session.is_owner and uid != session.peer.uid:
            raise OthersDirectory(session, request.path, uid)
        self._filesystem.evictables.mark(ino, request.evictable)
        await self._vault.catalog.flush()
        return Done()
