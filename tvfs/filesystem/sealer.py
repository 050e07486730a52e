"""Turns staged files into chunks once nobody writes to them any more.

A file is read while others may write to it; the result counts only if nobody did, which is decided in the synchronous
block that writes the batch.  Chunks of a result that does not count are garbage, and harmless.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from tvfs import failpoints
from tvfs.catalog.catalog import Family
from tvfs.clock import Clock
from tvfs.content.reader import ContentReader
from tvfs.content.reference import Content
from tvfs.errors import TaskVaultError
from tvfs.filesystem.change import Change
from tvfs.filesystem.nodes import Nodes
from tvfs.filesystem.owner_port import OwnerPort
from tvfs.filesystem.posix_error import IoFailed
from tvfs.filesystem.recent import Recent
from tvfs.filesystem.settings import FilesystemSettings
from tvfs.filesystem.staged_file import StagedFile
from tvfs.filesystem.staging import Staging
from tvfs.ingest.ingest import Ingest

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Job:
    """A state of a staged file that is to be sealed."""

    file: StagedFile
    writes: int
    """`StagedFile.writes` when the job was made; another number later means that what was read is torn."""
    size: int
    pieces: list[tuple[bool, int, int]]
    content: bytes | None = None
    """All of it, where that was read before: of a file that is in its row and may go meanwhile."""


class Sealer:
    """Knows which staged files wait, and until when."""

    def __init__(  # noqa: PLR0913 - what sealing touches
        self,
        *,
        nodes: Nodes,
        staging: Staging,
        reader: ContentReader,
        port: OwnerPort,
        clock: Clock,
        settings: FilesystemSettings,
        start_change: Callable[[], Change],
        has_writer: Callable[[int], bool],
    ) -> None:
        self._nodes = nodes
        self._staging = staging
        self._reader = reader
        self._port = port
        self._clock = clock
        self._settings = settings
        self._start_change = start_change
        self._has_writer = has_writer
        self._due: dict[int, float] = {}
        self._rewritten: Recent[tuple[float, int]] = Recent(4096)
        self._failures = 0
        self._not_before_s = 0.0
        self._sealing = trio.Lock()
        self._threads = trio.CapacityLimiter(1)

    def note(self, ino: int) -> None:
        """Nobody writes to the file now: seal it when it has rested."""
        if ino in self._staging.files:
            self._due[ino] = self._clock.monotonic_s() + self._delay_s(ino)

    async def seal_due(self) -> int:
        """Seal what has rested long enough; return how many files were sealed."""
        now_s = self._clock.monotonic_s()
        if now_s < self._not_before_s:
            return 0
        due = [ino for ino, due_s in self._due.items() if due_s <= now_s]
        try:
            sealed = await self.seal(due)
        except (TaskVaultError, OSError) as exc:
            self._failed(exc)
            return 0
        self._failures = 0
        return sealed

    async def seal(self, inos: Sequence[int]) -> int:
        """Seal these files, those that somebody writes to excepted; raise what went wrong, then they stay staged."""
        sealed = 0
        waiting = list(inos)
        while waiting:
            async with self._sealing:
                jobs, waiting = self._take(waiting)
                if jobs:
                    # Until the staging files have gone, their bytes count twice.
                    with self._staging.returning_room():
                        sealed += await self._seal_batch(jobs)
                        await self._staging.reap()
            await trio.lowlevel.checkpoint()
        await self._staging.reap()
        return sealed

    async def seal_all(self) -> int:
        """Seal every file that nobody writes to."""
        return await self.seal(list(self._staging.files))

    async def content_of_open(self, file: StagedFile, hold: Callable[[bytes], None]) -> Content:
        """Store the state that a file has now, and leave it staged: for a file that is being written to.

        Writers wait meanwhile, so it is a state that the file really had.  `hold` is called with what the content must
        be held by, before anybody lets go of it.
        """
        if file.sync_failed:
            raise IoFailed("A file could not be synced, so that nobody knows what the disk has of it; write it anew.")
        async with file.inode_lock(), self._sealing:
            content = self._staging.rows.content(file) if file.in_row else None
            job = _Job(file, file.writes, file.size, file.pieces(0, file.size), content)
            self._port.hold(file.base)
            try:
                contents = await trio.to_thread.run_sync(self._ingest, [job], limiter=self._threads)
                stored = contents[0]
                assert stored is not None, "nobody can remove the staging file of a locked inode"
                hold(stored.hash)
            finally:
                self._port.end_batch()
        return stored

    async def store(self, blobs: Sequence[bytes], rows: Sequence[tuple[Family, bytes, bytes]]) -> None:
        """Make blobs durable, and then content-addressed rows that lead to them."""
        async with self._sealing:
            try:
                await trio.to_thread.run_sync(self._store, blobs, rows, limiter=self._threads)
            finally:
                self._port.end_batch()

    def _store(self, blobs: Sequence[bytes], rows: Sequence[tuple[Family, bytes, bytes]]) -> None:
        self._port.expected_bytes = sum(map(len, blobs))
        with Ingest(self._port, self._port.settings) as ingest:
            for blob in blobs:
                ingest.add_bytes(blob)
            for row in rows:
                ingest.add_row(*row)
            ingest.finish()

    def _take(self, inos: list[int]) -> tuple[list[_Job], list[int]]:
        jobs: list[_Job] = []
        total_bytes = 0
        room_bytes = self._staging.room.for_sealing()
        # No more than one fresh pack a batch: there is always one kept for it, whoever writes meanwhile.
        batch_bytes = min(self._settings.seal_batch_bytes, self._staging.room.pack_bytes)
        for position, ino in enumerate(inos):
            file = self._staging.files.get(ino)
            if file is None or self._has_writer(ino) or self._nodes.get(ino).nlink == 0:
                self._due.pop(ino, None)
                continue
            if file.busy or file.locked or file.sync_failed or file.size > self._settings.seal_max_bytes:
                continue
            if total_bytes + file.size > room_bytes:
                continue  # it is on the disk once already; what is smaller may make room
            if jobs and (len(jobs) >= self._settings.seal_batch_files or total_bytes + file.size > batch_bytes):
                return jobs, inos[position:]
            jobs.append(_Job(file, file.writes, file.size, file.pieces(0, file.size)))
            total_bytes += file.size
        return jobs, []

    async def _seal_batch(self, jobs: list[_Job]) -> int:
        # A file that is removed meanwhile lets go of its base, which is being read.
        self._port.hold(*(job.file.base for job in jobs))
        try:
            contents = await trio.to_thread.run_sync(self._ingest, jobs, limiter=self._threads)
            failpoints.reach("seal.after_commit")
            sealed = self._write_results(jobs, contents)
            failpoints.reach("seal.after_batch")
        finally:
            self._port.end_batch()
        return sealed

    def _ingest(self, jobs: list[_Job]) -> list[Content | None]:
        """Read, cut, hash, compress, append and commit; in a thread."""
        self._port.expected_bytes = sum(job.size for job in jobs)
        with Ingest(self._port, self._port.settings) as ingest:
            contents = [self._add(ingest, job) for job in jobs]
            ingest.finish()
        return contents

    def _add(self, ingest: Ingest, job: _Job) -> Content | None:
        failpoints.reach("seal.append")
        if not job.size:
            return ingest.add_bytes(b"")
        if job.file.in_row:
            content = job.content or self._staging.rows.find(job.file)
            # Moved to a file or removed since: as below.
            return None if content is None else ingest.add_bytes(content)
        try:
            descriptor = os.open(job.file.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None  # emptied or removed since; what replaced it waits for its own turn
        try:
            return ingest.add_stream(_Reading(descriptor, job, self._reader).read, job.size)
        finally:
            os.close(descriptor)

    def _write_results(self, jobs: list[_Job], contents: list[Content | None]) -> int:
        change = self._start_change()
        sealed: list[int] = []
        for job, content in zip(jobs, contents, strict=True):
            file = job.file
            untouched = self._staging.files.get(file.ino) is file and file.writes == job.writes
            if content is None or not untouched or file.busy or file.locked:
                continue
            inode = change.inode(file.ino)
            if inode.nlink:
                change.put(file.ino, inode.with_content(content))
                self._staging.unstage(change, file.ino)
                sealed.append(file.ino)
        change.commit()
        now_s = self._clock.monotonic_s()
        for ino in sealed:
            self._due.pop(ino, None)
            self._rewritten.put(ino, (now_s, self._rewrites(ino) + 1))
        return len(sealed)

    def _rewrites(self, ino: int) -> int:
        """How often the file was sealed in vain of late."""
        before = self._rewritten.get(ino)
        if before is None or self._clock.monotonic_s() - before[0] > 2 * self._settings.seal_backoff_s:
            return 0
        return before[1]

    def _delay_s(self, ino: int) -> float:
        wait_s: float = self._settings.seal_idle_s * 2 ** min(self._rewrites(ino), 16)
        return min(wait_s, self._settings.seal_backoff_s)

    def _failed(self, exc: Exception) -> None:
        if self._failures == 0:
            _log.warning("files stay staged for now, and sealing is tried again: %s", exc)
        wait_s = min(self._settings.seal_retry_s * 2 ** min(self._failures, 16), self._settings.seal_backoff_s)
        self._failures += 1
        self._not_before_s = self._clock.monotonic_s() + wait_s


class _Reading:
    """Reads a staged file from start to end in a thread; what is still in its base comes through the owner."""

    def __init__(self, descriptor: int, job: _Job, reader: ContentReader) -> None:
        self._descriptor = descriptor
        self._base = job.file.base
        self._pieces = iter(job.pieces)
        self._reader = reader
        self._from_base, self._at, self._end = False, 0, 0

    def read(self, length: int) -> bytes:
        """Return the next bytes, at most `length`; none at the end."""
        while self._at == self._end:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._from_base, self._at, self._end = piece
        wanted = min(length, self._end - self._at)
        if self._from_base:
            assert self._base is not None
            found = bytes(trio.from_thread.run(self._reader.read, self._base, self._at, wanted))
        else:
            found = os.pread(self._descriptor, wanted, self._at)
        if not found:
            # Truncated meanwhile: the result will not count, but must not be waited for either.
            found = bytes(wanted)
        self._at += len(found)
        return found
