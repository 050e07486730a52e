"""Appends to one pack after another: what a store that owns its packs writes through."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from tvfs.digest import ChunkId
from tvfs.packs.location import Location
from tvfs.packs.pack_directory import PackDirectory
from tvfs.packs.pack_writer import PackSyncFailed, PackWriter
from tvfs.packs.record import RECORD_HEADER_BYTES
from tvfs.plugin_api.buffer import Buffer


class PackAppender:
    """Threads: every method may be called from any thread; appending goes on while another thread syncs.

    `_lock` guards which writers there are; it is taken before any lock of a writer, and is not held while syncing.
    """

    def __init__(self, packs: PackDirectory, *, next_pack: Callable[[], int], pack_max_bytes: int) -> None:
        """`next_pack` issues a number that was never used; it is called from the thread that appends."""
        self._packs = packs
        self._next_pack = next_pack
        self._pack_max_bytes = pack_max_bytes
        self._lock = threading.Lock()
        self._current: PackWriter | None = None
        self._full: list[PackWriter] = []
        self._lost: dict[int, PackSyncFailed] = {}

    def append(self, chunk_id: ChunkId, raw_bytes: int, codec: int, payload: Buffer) -> Location:
        """Add a record and return its place, which `loss` may revoke until it was synced.

        Raises `PackWriteFailed` (`DiskFull`), also if a pack cannot be created.
        """
        with self._lock:
            try:
                return self._writer_for(len(payload)).append(chunk_id, raw_bytes, codec, payload)
            except PackSyncFailed as failure:
                self._abandon(failure)
            return self._writer_for(len(payload)).append(chunk_id, raw_bytes, codec, payload)

    def buffered(self, location: Location) -> bytes | None:
        """Return the payload of a record that was appended and cannot be read from its pack yet, else None."""
        with self._lock:
            writers = self._writers()
        for writer in writers:
            if writer.number == location.pack:
                return writer.buffered(location)
        return None

    def numbers(self) -> set[int]:
        """Return the packs that are open.  Takes no lock, as `loss` does not: both lists are replaced or grow."""
        current = self._current
        return {writer.number for writer in [*self._full, *([current] if current else [])]}

    def sync(self) -> None:
        """Make everything appended before survive a power loss.

        Raises `PackSyncFailed` for a pack that is lost beyond what was synced before: no new record goes there, and
        the next call no longer includes it.  Raises `PackWriteFailed` if a pack cannot be written now: try again.
        """
        with self._lock:
            writers = self._writers()
        for writer in writers:
            try:
                writer.sync()
            except PackSyncFailed as failure:
                with self._lock:
                    self._abandon(failure)
                raise
            self._packs.refresh(writer.number)
        with self._lock:
            for writer in [full for full in self._full if full.synced_bytes == full.size]:
                self._full.remove(writer)
                writer.close()

    def loss(self, location: Location) -> PackSyncFailed | None:
        """Return the failed sync that took this record, so that it must be written again; None if there was none.

        Takes no lock: `append` may hold it while it waits for the thread that asks.
        """
        failure = self._lost.get(location.pack)
        return failure if failure is not None and location.offset >= failure.synced_bytes else None

    def close(self) -> None:
        """Close the packs; what was not synced may be lost."""
        with self._lock:
            for writer in self._writers():
                writer.close()
            self._current = None
            self._full.clear()

    def _writers(self) -> list[PackWriter]:
        return [*self._full, *([self._current] if self._current else [])]

    def _writer_for(self, stored_bytes: int) -> PackWriter:
        current = self._current
        if current is not None and current.size + RECORD_HEADER_BYTES + stored_bytes > self._pack_max_bytes:
            self._full.append(current)
            current = self._current = None
        if current is None:
            number = self._next_pack()
            current = self._current = PackWriter(self._packs.create(number), number, self._packs.vault_uuid)
        return current

    def _abandon(self, failure: PackSyncFailed) -> None:
        self._lost[failure.number] = failure
        for writer in self._writers():
            if writer.number == failure.number:
                with contextlib.suppress(OSError):
                    writer.close()
        self._full = [full for full in self._full if full.number != failure.number]
        if self._current is not None and self._current.number == failure.number:
            self._current = None
