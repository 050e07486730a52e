"""A vault behind an `IngestPort`, in memory: the model of what an owner does with an ingest."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Sequence

from tvfs.catalog.catalog import Batch, Family
from tvfs.catalog.memory import MemoryCatalog
from tvfs.chunks.encoding import decode_chunk
from tvfs.chunks.store import ChunkMissing
from tvfs.content.manifest import Manifest
from tvfs.digest import HASH_BYTES, HOLE, ChunkId, function_code
from tvfs.ingest.commit import BlobRecord, IngestCommit, RowRecord
from tvfs.packs.location import Location
from tvfs.packs.pack_reader import read_payload
from tvfs.packs.pack_writer import PackWriter
from tvfs.packs.record import PackHeader, encode_pack_header
from tvfs.plugin_api import Codec

_KEY_BYTES = {Family.PAGE: HASH_BYTES, Family.TREE: HASH_BYTES, Family.TREEPAGE: HASH_BYTES + 4}


class MemoryPort:
    """Keeps the promises of `IngestPort`, and checks those of its user: synced packs, children before parents."""

    def __init__(self, codecs: Iterable[Codec]) -> None:
        self.catalog = MemoryCatalog()
        """Rows of families `blob`, `page`, `tree` and `treepage`."""
        self.commits: list[IngestCommit] = []
        self._codecs = {codec.codec_id: codec for codec in codecs}
        self._uuid = uuid.UUID(int=0).bytes
        self._packs: dict[int, tuple[int, PackWriter]] = {}
        self._locations: dict[ChunkId, Location] = {}

    def find_missing(self, chunk_ids: Sequence[ChunkId]) -> set[ChunkId]:
        """Return which chunks must be sent."""
        return {chunk_id for chunk_id in chunk_ids if chunk_id not in self._locations}

    def open_pack(self) -> PackWriter:
        """Return a fresh pack, in memory too."""
        number = len(self._packs) + 1
        fd = os.memfd_create(f"pack-{number}")
        os.pwrite(fd, encode_pack_header(PackHeader(number, self._uuid)), 0)
        writer = PackWriter(os.dup(fd), number, self._uuid)
        self._packs[number] = (fd, writer)
        return writer

    def commit(self, commit: IngestCommit) -> list[bytes]:
        """Take all of it, or return the chunks that are gone; an `AssertionError` is a mistake of the ingest."""
        for record in commit.chunks:
            _, writer = self._packs[record.pack]
            assert record.offset + record.stored_bytes < writer.synced_bytes, "committed before it was synced"
        sent = {ChunkId(record.chunk_id): Location(record.pack, record.offset, record.stored_bytes, record.raw_bytes, record.codec) for record in commit.chunks}  # noqa: E501  # fmt: skip
        pages = {row.key: row.value for row in commit.rows if row.family == Family.PAGE}
        wanted = [*commit.uses, *self._referred(commit.blobs, pages)]
        missing = [used for used in wanted if ChunkId(used) not in sent and ChunkId(used) not in self._locations]
        if missing:
            return missing
        self._locations = {**sent, **self._locations} if sent else self._locations
        self._write(commit.blobs, commit.rows)
        self.commits.append(commit)
        return []

    def chunk(self, chunk_id: ChunkId) -> bytes:
        """Return the bytes of a chunk; raise `ChunkMissing`."""
        location = self._locations.get(chunk_id)
        if location is None:
            raise ChunkMissing(chunk_id)
        payload = read_payload(self._packs[location.pack][0], location, chunk_id)
        return decode_chunk(payload, location, self._codecs)

    def chunks(self, chunk_ids: Sequence[ChunkId]) -> list[bytes]:
        """Return the bytes of several chunks; raise `ChunkMissing`."""
        return [self.chunk(chunk_id) for chunk_id in chunk_ids]

    def rows(self, keys: Sequence[tuple[str, bytes]]) -> list[bytes | None]:
        """Return the values of `(family, key)` rows."""
        return [self.catalog.get(Family(family), key) for family, key in keys]

    def ids(self) -> set[ChunkId]:
        """Every chunk that was committed."""
        return set(self._locations)

    def lose(self, chunk_id: ChunkId) -> None:
        """Forget a chunk, as if it had been found damaged."""
        del self._locations[chunk_id]

    def stored_bytes(self) -> int:
        """Length of all payloads."""
        return sum(location.stored_bytes for location in self._locations.values())

    def close(self) -> None:
        """Let go of the packs."""
        for fd, writer in self._packs.values():
            os.close(fd)
            writer.close()
        self._packs.clear()

    def _referred(self, blobs: Iterable[BlobRecord], pages: dict[bytes, bytes]) -> list[bytes]:
        referred: list[bytes] = []
        manifests = [Manifest(blob.manifest) for blob in blobs]
        for manifest in [*manifests, *(Manifest(page) for page in pages.values())]:
            if manifest.level == 0:
                referred += manifest.hashes()
                continue
            for page_hash in manifest.hashes():
                known = page_hash in pages or self.catalog.get(Family.PAGE, page_hash) is not None
                assert known, "a manifest was committed before its pages"
        return [chunk_id for chunk_id in referred if chunk_id != HOLE]

    def _write(self, blobs: Iterable[BlobRecord], rows: Iterable[RowRecord]) -> None:
        batch = Batch()
        for blob in blobs:
            batch.put(Family.BLOB, bytes([function_code(blob.function)]) + blob.hash, blob.manifest)
        for row in rows:
            assert len(row.key) == _KEY_BYTES[Family(row.family)], "a row with a key of the wrong length"
            batch.put(Family(row.family), row.key, row.value)
        self.catalog.write(batch)
