"""An ingest's way into a vault that a daemon owns: questions and commits over the socket, bytes straight into packs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from taskvault.client import Client
from taskvault.protocol.messages import Commit, EndPack, FindMissing, OpenPack
from tvfs.digest import ChunkId
from tvfs.errors import TaskVaultError
from tvfs.ingest.commit import BlobRecord, ChunkRecord, IngestCommit, RowRecord
from tvfs.packs.pack_writer import PackWriter

IDS_IN_ONE_REQUEST = 65_536
"""Chunk ids in one question: 2 MiB, answered by the owner in a few slices."""

COMMIT_BYTES = 4 << 20
"""A commit of more than this is sent in several: 40,000 chunks; the owner refuses a frame of 400,000 values."""

_OVERHEAD_BYTES = 64
"""Of one record in a frame, at most, beside its bytes."""

_CHILD_FIRST = {"page": 0, "blob": 1, "treepage": 2, "tree": 3}
"""Which rows refer to which: a manifest to its pages, a tree index to manifests and to its pages."""

_Record = ChunkRecord | BlobRecord | RowRecord


class ClientIngestPort:
    """The `IngestPort` of a client.  What was answered as present is leased to the client's connection."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def find_missing(self, chunk_ids: Sequence[ChunkId]) -> set[ChunkId]:
        """Return which chunks must be sent; the others stay in the vault until the connection ends."""
        missing: set[ChunkId] = set()
        for start in range(0, len(chunk_ids), IDS_IN_ONE_REQUEST):
            asked: list[bytes] = list(chunk_ids[start : start + IDS_IN_ONE_REQUEST])
            missing.update(map(ChunkId, self._client.call(FindMissing(asked)).chunk_ids))
        return missing

    def open_pack(self) -> PackWriter:
        """Return a fresh pack with room reserved for all of it; raise `Refused` of kind `VaultFull`."""
        welcome = self._client.welcome
        opened, descriptors = self._client.call_with_descriptors(OpenPack(welcome.pack_max_bytes))
        return _ClientPack(self._client, descriptors[0], opened.number)

    def commit(self, commit: IngestCommit) -> list[bytes]:
        """Make all of it durable and return []; or return the ids in `uses` that are gone.

        One that is too long for a frame becomes durable in parts, each of which refers only to what came before it; all
        ids are asked for with the first part, so what is gone is found before anything is committed.
        """
        for part in split(commit):
            missing = self._client.call(Commit(part)).chunk_ids
            if missing:
                return missing
        return []


class _ClientPack(PackWriter):
    """Goes back to the owner when it is closed."""

    def __init__(self, client: Client, descriptor: int, number: int) -> None:
        super().__init__(descriptor, number, bytes.fromhex(client.welcome.vault_uuid))
        self._client = client
        self._given_back = False

    def close(self) -> None:
        """Close the descriptor and let the owner have what was reserved; if it has gone, it has that already."""
        super().close()
        if not self._given_back:
            self._given_back = True
            with suppress(TaskVaultError, OSError):
                self._client.call(EndPack(self.number))


def split(commit: IngestCommit, most_bytes: int = COMMIT_BYTES) -> Iterator[IngestCommit]:
    """Yield commits of about `most_bytes` at most that together say the same: ids, chunks, then rows, children first.

    Tree rows keep the order in which they were added, because a directory's row is added after those below it.
    """
    if _size(commit.chunks) + _size(commit.blobs) + _size(commit.rows) + 40 * len(commit.uses) <= most_bytes:
        yield commit
        return
    uses = list(commit.uses)
    ids_in_one = max(1, most_bytes // 40)
    while len(uses) > ids_in_one:
        yield IngestCommit(uses=uses[:ids_in_one])
        del uses[:ids_in_one]
    rows: list[_Record] = [*commit.blobs, *commit.rows]
    rows.sort(key=lambda record: _CHILD_FIRST["blob" if isinstance(record, BlobRecord) else record.family])  # type: ignore[union-attr]
    part: list[_Record] = []
    part_bytes = 40 * len(uses)
    for record in [*commit.chunks, *rows]:
        record_bytes = _size([record])
        if part and part_bytes + record_bytes > most_bytes:
            yield _of(part, uses)
            part, part_bytes, uses = [], 0, []
        part.append(record)
        part_bytes += record_bytes
    yield _of(part, uses)


def _of(records: Sequence[_Record], uses: list[bytes]) -> IngestCommit:
    return IngestCommit(
        chunks=[record for record in records if isinstance(record, ChunkRecord)],
        blobs=[record for record in records if isinstance(record, BlobRecord)],
        rows=[record for record in records if isinstance(record, RowRecord)],
        uses=uses,
    )


def _size(records: Sequence[_Record]) -> int:
    total = 0
    for record in records:
        match record:
            case ChunkRecord():
                total += 32
            case BlobRecord():
                total += len(record.manifest) + 32
            case RowRecord():
                total += len(record.key) + len(record.value)
    return total + _OVERHEAD_BYTES * len(records)
