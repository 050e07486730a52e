"""What one ingest asks the owner to make true: the value that crosses from whoever chunked to whoever commits."""

from __future__ import annotations

import msgspec


class ChunkRecord(msgspec.Struct, frozen=True, array_like=True):
    """A chunk that was appended to a pack of the committer's own."""

    chunk_id: bytes
    pack: int
    offset: int
    stored_bytes: int
    raw_bytes: int
    codec: int


class BlobRecord(msgspec.Struct, frozen=True, array_like=True):
    """A manifest root: family `blob`, key function code + hash."""

    function: str
    hash: bytes
    manifest: bytes


class RowRecord(msgspec.Struct, frozen=True, array_like=True):
    """A content-addressed row whose key is derived from its value: a manifest page, a tree index root or page."""

    family: str
    """`page`, `tree` or `treepage`."""
    key: bytes
    value: bytes


class IngestCommit(msgspec.Struct, frozen=True, array_like=True):
    """Taken whole or refused whole; only a crash may leave a part, which is whole in itself and which nothing leads to.

    Packs named here must have been fdatasync'ed by their writer before the commit is sent.

    `uses` are chunks that were answered as present and are referred to without being sent: the owner checks that each
    is still there, and answers with those that are not.
    """

    chunks: list[ChunkRecord] = []
    blobs: list[BlobRecord] = []
    rows: list[RowRecord] = []
    uses: list[bytes] = []
