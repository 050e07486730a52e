"""Send chunks to a vault: only those that it lacks, compressed where that pays, each once."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from tvfs.chunks.encoding import encode_chunks
from tvfs.digest import ChunkId
from tvfs.errors import TaskVaultError
from tvfs.ingest.commit import ChunkRecord, IngestCommit
from tvfs.ingest.port import IngestPort, IngestSettings
from tvfs.packs.pack_writer import PackWriter
from tvfs.packs.record import PACK_HEADER_BYTES, RECORD_HEADER_BYTES

COMMIT_BYTES = 64 << 20
COMMIT_RECORDS = 4096
"""A commit is sent when this much was appended, or this many chunks were referred to."""


class IngestLost(TaskVaultError):
    """Chunks that the vault had promised to keep were gone when they were needed."""

    def __init__(self, missing: Sequence[bytes]) -> None:
        super().__init__(
            f"{len(missing)} chunks that the vault had are damaged or gone since it was asked; do the same again, and "
            f"they will be sent."
        )
        self.missing = list(missing)


class ChunkSender:
    """Threads: every method may be called by several at once.

    Lock order: `_committing`, `_appending`, `_asking`; `_seen_lock` is taken alone.
    """

    def __init__(self, port: IngestPort, settings: IngestSettings) -> None:
        self._port = port
        self._codec = settings.codec
        self._pack_max_bytes = settings.pack_max_bytes
        self._seen_lock = threading.Lock()
        self._seen: set[ChunkId] = set()
        self._seen_before: set[ChunkId] = set()
        self._committing = threading.Lock()
        self._appending = threading.Lock()
        self._asking = threading.Lock()
        self._pack: PackWriter | None = None
        self._full_packs: list[PackWriter] = []
        self._records: list[ChunkRecord] = []
        self._uses: list[bytes] = []
        self._uncommitted_bytes = 0

    def is_new(self, chunk_id: ChunkId) -> bool:
        """Return whether nobody asked this before; who is told True must send the chunk."""
        with self._seen_lock:
            if chunk_id in self._seen or chunk_id in self._seen_before:
                return False
            self._seen.add(chunk_id)
            return True

    def send(self, batch: Sequence[tuple[ChunkId, bytes | memoryview]]) -> None:
        """Append those chunks that the vault lacks, and commit if enough has come together."""
        if not batch:
            return
        with self._asking:
            missing = self._port.find_missing([chunk_id for chunk_id, _ in batch])
        present = [chunk_id for chunk_id, _ in batch if chunk_id not in missing]
        if missing:
            self._append([(chunk_id, raw) for chunk_id, raw in batch if chunk_id in missing])
        with self._appending:
            self._uses += present
            due = (
                self._uncommitted_bytes >= COMMIT_BYTES
                or len(self._records) >= COMMIT_RECORDS
                or len(self._uses) >= COMMIT_RECORDS
            )
        if due and self._committing.acquire(blocking=False):
            # If another thread is at it, the rest goes with the next commit.
            try:
                self._commit()
            finally:
                self._committing.release()

    def commit(self) -> None:
        """Return when everything sent so far is committed; raise `IngestLost`."""
        with self._committing:
            self._commit()

    def close(self) -> None:
        """Let go of the packs; what was not committed in them is given up."""
        with self._appending:
            packs, self._full_packs, self._pack = [*self._full_packs, self._pack], [], None
        for pack in packs:
            if pack is not None:
                pack.close()

    def _append(self, chunks: Sequence[tuple[ChunkId, bytes | memoryview]]) -> None:
        encoded = encode_chunks([raw for _, raw in chunks], self._codec)
        for (chunk_id, raw), (codec, payload) in zip(chunks, encoded, strict=True):
            # A pack takes bytes and views of them; codecs may give any buffer.
            assert isinstance(payload, bytes | memoryview)
            record_bytes = RECORD_HEADER_BYTES + len(payload)
            with self._appending:
                pack = self._pack_with_room(record_bytes)
                at = pack.append(chunk_id, len(raw), codec, payload)
                self._records.append(ChunkRecord(chunk_id, at.pack, at.offset, at.stored_bytes, at.raw_bytes, codec))
                self._uncommitted_bytes += record_bytes

    def _pack_with_room(self, record_bytes: int) -> PackWriter:
        pack = self._pack
        if pack is not None and pack.size > PACK_HEADER_BYTES and pack.size + record_bytes > self._pack_max_bytes:
            self._full_packs.append(pack)
            pack = self._pack = None
        if pack is None:
            with self._asking:
                pack = self._pack = self._port.open_pack()
        return pack

    def _commit(self) -> None:
        with self._appending:
            records, uses = self._records, self._uses
            full_packs, current = self._full_packs, self._pack
            self._records, self._uses, self._full_packs = [], [], []
            self._uncommitted_bytes = 0
        try:
            for pack in [*full_packs, current] if current else full_packs:
                if pack.synced_bytes < pack.size:
                    pack.sync()
            self._send_commit(records, uses)
        finally:
            for pack in full_packs:
                pack.close()
        with self._seen_lock:
            # What was seen two commits ago is in the vault: asking again is cheaper than remembering for ever.
            self._seen_before, self._seen = self._seen, set()

    def _send_commit(self, records: list[ChunkRecord], uses: list[bytes]) -> None:
        if not (records or uses):
            return
        with self._asking:
            missing = self._port.commit(IngestCommit(chunks=records, uses=uses))
        if missing:
            raise IngestLost(missing)
