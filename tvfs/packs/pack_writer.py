"""Appends records to one pack.

A pack has one writer, in whatever process; the descriptor may have come over a socket.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading

from tvfs import failpoints
from tvfs.digest import ChunkId
from tvfs.errors import TaskVaultError
from tvfs.packs.location import Location
from tvfs.packs.record import (
    PACK_HEADER_BYTES,
    RECORD_HEADER_BYTES,
    PackDamaged,
    PackHeader,
    RecordHeader,
    decode_pack_header,
    encode_record_header,
    payload_crc,
)
from tvfs.plugin_api.buffer import Buffer

BUFFER_BYTES = 1 << 20
"""Records are gathered up to here before they are written: fewer system calls, for at most this much memory a pack."""


class PackWriteFailed(TaskVaultError):
    """The disk did not take a write; the writer can be used again, and what was appended before is still buffered."""

    def __init__(self, number: int, error: OSError) -> None:
        super().__init__(f"Pack {number:016x} could not be written ({error.strerror}); look at the disk and try again.")
        self.number = number
        self.errno = error.errno


class DiskFull(PackWriteFailed):
    """There is no space for the write; it can be tried again when there is."""

    def __init__(self, number: int, error: OSError) -> None:
        super().__init__(number, error)
        self.args = (f"The disk is full: pack {number:016x} could not be written; free some space and try again.",)


def write_failure(number: int, error: OSError) -> PackWriteFailed:
    """Return what a failed system call on a pack means to callers."""
    kind = DiskFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else PackWriteFailed
    return kind(number, error)


class PackSyncFailed(TaskVaultError):
    """The disk did not confirm a sync: nobody knows what it holds, so nothing since the last sync may be committed."""

    def __init__(self, number: int, synced_bytes: int, reason: str) -> None:
        super().__init__(
            f"The disk did not confirm pack {number:016x} ({reason}); check the disk, then write the content again."
        )
        self.number = number
        self.synced_bytes = synced_bytes
        """Length of the part that is safe."""


class PackWriter:
    """Threads: every method may be called from any thread; appending goes on while another thread syncs.

    Lock order: `_syncing`, then `_appending`.
    """

    def __init__(self, fd: int, number: int, vault_uuid: bytes, *, start: int = PACK_HEADER_BYTES) -> None:
        """Continue the pack at offset `start`; from its return on the writer owns `fd` (read-write).

        The pack's header must have been written.  Raises `PackDamaged` if the descriptor is not this pack's.
        """
        header = decode_pack_header(os.pread(fd, PACK_HEADER_BYTES, 0))
        if header != PackHeader(number, vault_uuid):
            raise PackDamaged(number, 0, "the descriptor is that of another pack")
        self._fd = fd
        self.number = number
        self._buffer = bytearray()
        self._size = start
        self._written_bytes = start
        self._synced_bytes = start
        self._sync_failure: str | None = None
        self._appending = threading.Lock()
        self._syncing = threading.Lock()

    @property
    def size(self) -> int:
        """Offset of the next record: what was appended, written or not."""
        return self._size

    @property
    def written_bytes(self) -> int:
        """How much of the pack readers can see."""
        return self._written_bytes

    @property
    def synced_bytes(self) -> int:
        """How much of the pack survives a power loss."""
        return self._synced_bytes

    def append(self, chunk_id: ChunkId, raw_bytes: int, codec: int, payload: Buffer) -> Location:
        """Add a record and return its place; readers see it after `flush`.

        Raises `PackWriteFailed` (or `DiskFull`) if the records before had to be written and could not be: then this
        one was not added.  Raises `PackSyncFailed` after a failed sync.
        """
        header = RecordHeader(chunk_id, codec, raw_bytes, len(payload), payload_crc(payload))
        with self._appending:
            self._check_usable()
            if self._buffer and len(self._buffer) + RECORD_HEADER_BYTES + len(payload) > BUFFER_BYTES:
                self._write_out()
            offset = self._size
            self._buffer += encode_record_header(header)
            self._buffer += payload
            self._size = self._written_bytes + len(self._buffer)
        return Location(self.number, offset, len(payload), raw_bytes, codec)

    def append_records(self, records: Buffer) -> int:
        """Add whole records, headers included, as they are; return the offset of the first.  Raises as `append` does.

        They are written at once: what is copied comes in large pieces.
        """
        with self._appending:
            self._check_usable()
            self._write_out()
            offset = self._size
            self._buffer += records
            self._size += len(records)
            self._write_out()
        return offset

    def flush(self) -> None:
        """Hand everything appended to the kernel, so that readers see it; raises as `append` does."""
        with self._appending:
            self._check_usable()
            self._write_out()

    def buffered(self, location: Location) -> bytes | None:
        """Return the payload of a record that readers do not see yet; None if they do."""
        with self._appending:
            start = location.offset - self._written_bytes
            if start < 0:
                return None
            start += RECORD_HEADER_BYTES
            return bytes(self._buffer[start : start + location.stored_bytes])

    def sync(self) -> int:
        """Return how long the pack is, all of it now proof against a power loss; raises as `append` does.

        After `PackSyncFailed` the writer takes nothing more: Linux reports a lost write once and then forgets it.
        A writer that another thread has closed says what it had synced.
        """
        with self._syncing:
            if self._fd < 0:
                return self._synced_bytes
            self.flush()
            covered = self._written_bytes
            try:
                failpoints.reach("commit.after_append")
                os.fdatasync(self._fd)
                failpoints.reach("commit.after_pack_sync")
            except OSError as exc:
                self._sync_failure = str(exc.strerror)
                raise PackSyncFailed(self.number, self._synced_bytes, self._sync_failure) from exc
            self._synced_bytes = covered
            return covered

    def close(self) -> None:
        """Hand what is buffered to the kernel and close the descriptor, also when the former fails.

        Syncs nothing.  May be called again; nothing but `sync` may besides.
        """
        with self._syncing, self._appending:
            if self._fd < 0:
                return
            try:
                if self._sync_failure is None:
                    self._write_out()
            finally:
                os.close(self._fd)
                self._fd = -1

    def _check_usable(self) -> None:
        if self._sync_failure is not None:
            raise PackSyncFailed(self.number, self._synced_bytes, self._sync_failure)

    def _write_out(self) -> None:
        start = self._written_bytes
        done = 0
        try:
            failpoints.reach("commit.before_append")
            with memoryview(self._buffer) as rest:
                while done < len(rest):
                    done += os.pwrite(self._fd, rest[done:], start + done)
        except OSError as exc:
            # Half a record must not stay where the next attempt will write, or be taken for a torn tail of a good pack.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, start)
            raise write_failure(self.number, exc) from exc
        self._buffer.clear()
        self._written_bytes = start + done
