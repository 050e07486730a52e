"""What every check is given: one stopped vault, its rows, its packs, and what was found out so far."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tvfs.catalog.catalog import Batch, Catalog, Family
from tvfs.chunks.chunk_index import ChunkIndex
from tvfs.chunks.chunk_row import ChunkRow, ChunkState, decode_chunk_row, encode_chunk_row
from tvfs.chunks.encoding import RAW_CODEC, CodecUnknown, decode_chunk
from tvfs.clock import Clock
from tvfs.content.manifest import Manifest, ManifestInvalid
from tvfs.content.reference import Content, ContentKind
from tvfs.digest import FUNCTION_CODES, HOLE, OWN_FUNCTION_CODE, ChunkId, function_code
from tvfs.fsck.examined_packs import ExaminedPacks
from tvfs.packs.location import Location
from tvfs.packs.pack_directory import PackMissing
from tvfs.packs.pack_writer import PackWriter
from tvfs.packs.record import MAX_CHUNK_BYTES, RECORD_HEADER_BYTES
from tvfs.plugin_api import Codec, HashFunction
from tvfs.plugin_api.compression import CodecFailed
from tvfs.vault.audit import AuditLog
from tvfs.vault.counters import NEXT_PACK, Counters
from tvfs.vault.layout import Layout
from tvfs.vault.superblock import Superblock

LOST = b"lost:"
"""Rows of family `sys`, followed by a key as in family `ref`: something refers to this object, which is gone for good.

Told once; the row goes when the object is there again, or when nothing refers to it any more.
"""

WHO = "fsck"
"""For the audit log."""

OBJECTS_AT_A_TIME = 1_000_000
"""How many objects are kept in memory at a time, about 150 bytes each; more are dealt with in several passes."""


@dataclass(slots=True)
class Damage:
    """What earlier checks found out, for later ones.  Grows with the damage, about 100 bytes for each object."""

    pages: set[bytes] = field(default_factory=set)
    """Pages that are there, and some chunk of which is gone."""
    blobs: set[bytes] = field(default_factory=set)
    """Blobs (function code + hash) that are there, and some part of which is gone."""
    trees: set[bytes] = field(default_factory=set)
    """Tree indexes that are there, and some part of which, at any depth, is gone."""
    fresh: bool = False
    """This run found content to be gone that nobody knew of."""


@dataclass(slots=True)
class Examination:
    """One run of fsck; see `tvfs.fsck.run`."""

    layout: Layout
    catalog: Catalog
    packs: ExaminedPacks
    superblock: Superblock
    hash_function: HashFunction
    codecs: Mapping[int, Codec]
    audit: AuditLog
    clock: Clock
    dry: bool
    clean: bool = False
    """The last owner stopped in order."""
    counted: bool = False
    """References are counted; otherwise the next start counts them."""
    content: bool = False
    """Read every chunk and verify its hash."""
    rebuilt: bool = False
    """Rows were lost with the catalog, now or in a run that did not end: what no row tells of may be wanted."""
    damage: Damage = field(default_factory=Damage)
    foreign_packs: set[int] = field(default_factory=set)
    """Files with the name of a pack that are none of this vault's; they do not count, a dry run leaves them there."""
    objects_at_a_time: int = OBJECTS_AT_A_TIME
    references_changed: bool = False
    """What was repaired changed what is referred to, so that counts must be other ones."""
    references_damaged: bool = False
    """Some of that was damage, and not what every stop without order leaves."""
    _stored: dict[bytes, bytes] = field(default_factory=dict)
    """What a dry run would have stored."""
    _writer: PackWriter | None = None

    def chunk_of_record(self, chunk_id: ChunkId, row: bytes) -> bytes | None:
        """Return the chunk that a row leads to, its hash verified; None if it does not.  Only the hash counts.

        Raises `CodecUnknown` if nobody can tell here and now.
        """
        at = decode_chunk_row(row).location
        if at.pack in self.foreign_packs:
            return None
        try:
            with self.packs.open_reader(at.pack) as descriptor:
                payload = os.pread(descriptor, at.stored_bytes, at.offset + RECORD_HEADER_BYTES)
            raw = decode_chunk(payload, at, self.codecs)
        except (PackMissing, CodecFailed, OSError):
            return None
        return raw if self.hash_function.digest(raw) == chunk_id else None

    def chunk(self, chunk_id: bytes) -> bytes | None:
        """Return a chunk that is there and whole, or None."""
        row = self.catalog.get(Family.CHUNK, chunk_id)
        if chunk_id in self._stored:
            return self._stored[chunk_id]
        if row is None or decode_chunk_row(row).state is ChunkState.QUARANTINED:
            return None
        with suppress(CodecUnknown):
            return self.chunk_of_record(ChunkId(chunk_id), row)
        return None

    def blob(self, hash_: bytes, most_bytes: int) -> bytes | None:
        """Return a blob under the vault's own function, which is a chunk or has a manifest; None if it is not whole."""
        if hash_ == self.hash_function.digest(b""):
            return b""
        row = self.catalog.get(Family.BLOB, self.blob_key(hash_))
        if row is None:
            return self.chunk(hash_)
        parts: list[bytes] = []
        with suppress(ManifestInvalid):
            root = Manifest(row)
            if root.size > most_bytes:
                return None
            for length, chunk_id in self.items(root):
                part = bytes(length) if chunk_id == HOLE else self.chunk(chunk_id)
                if part is None:
                    return None
                parts.append(part)
            raw = b"".join(parts)
            return raw if self.hash_function.digest(raw) == hash_ else None
        return None

    def items(self, root: Manifest) -> Iterator[tuple[int, bytes]]:
        """Yield length and chunk id, or `HOLE`, of each item of a manifest; raise `ManifestInvalid`."""
        if root.level == 0:
            yield from root.items()
            return
        for _, page_hash in root.items():
            row = self.catalog.get(Family.PAGE, page_hash)
            if row is None:
                raise ManifestInvalid(f"its page {page_hash.hex()} is gone")
            yield from Manifest(row).items()

    def blob_key(self, hash_: bytes) -> bytes:
        """Return the key in family `blob` of a blob under the vault's own function."""
        return bytes([function_code(self.hash_function.name)]) + hash_

    def is_whole(self, content: Content) -> bool:
        """Whether all of a content is there, after the check of content has been made."""
        if content.kind is ContentKind.EMPTY:
            return True
        if content.kind is ContentKind.CHUNK:
            return self.has_chunk(content.hash)
        keys = [bytes([code]) + content.hash for code in (OWN_FUNCTION_CODE, *FUNCTION_CODES.values())]
        return any(key not in self.damage.blobs and self.catalog.get(Family.BLOB, key) is not None for key in keys)

    def has_chunk(self, chunk_id: bytes) -> bool:
        """Whether a chunk is there, as its row tells."""
        row = self.catalog.get(Family.CHUNK, chunk_id)
        return row is not None and decode_chunk_row(row).state is not ChunkState.QUARANTINED

    def tree_is_whole(self, index: bytes) -> bool:
        """Whether all of an indexed tree is there, after the check of content has been made."""
        return index not in self.damage.trees and self.catalog.get(Family.TREE, index) is not None

    def note(self, batch: Batch, action: str, *, scope: str = "", key: str = "", detail: str = "") -> None:
        """Add a record to the audit log."""
        self.audit.append_to(batch, action=action, scope=scope, key=key, who=WHO, detail=detail)

    def can_store(self, raw: bytes) -> bool:
        """Whether these bytes can be one chunk."""
        return 0 < len(raw) <= MAX_CHUNK_BYTES

    def store(self, batch: Batch, raws: Sequence[bytes]) -> None:
        """Write each of these as one chunk to a pack of fsck's own, and add rows to the batch; of a dry run, rows only.

        A manifest that stood for the same bytes goes: the chunk is the content.  Once a batch.
        """
        placed: dict[ChunkId, Location] = {}
        for raw in raws:
            chunk_id = ChunkId(self.hash_function.digest(raw))
            batch.delete(Family.BLOB, self.blob_key(chunk_id))
            if self.dry:
                self._stored[chunk_id] = raw
                nowhere = Location(0, 0, len(raw), len(raw), RAW_CODEC)
                batch.put(Family.CHUNK, chunk_id, encode_chunk_row(ChunkRow(nowhere)))
            else:
                placed[chunk_id] = self._writer_for(raw).append(chunk_id, len(raw), RAW_CODEC, raw)
        if self._writer is not None and placed:
            self._writer.sync()
            ChunkIndex(self.catalog).add(batch, placed)

    def _writer_for(self, raw: bytes) -> PackWriter:
        writer = self._writer
        if writer is None or writer.size + len(raw) > max(self.superblock.pack_max_bytes, 2 * len(raw)):
            if writer is not None:
                writer.sync()
                writer.close()
            number = Counters(self.catalog).take(NEXT_PACK)
            writer = self._writer = PackWriter(self.packs.create(number), number, self.superblock.uuid)
        return writer

    def close(self) -> None:
        """Close the pack that was written to."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def pack_numbers(self) -> list[int]:
        """Return the packs of this vault that have a file."""
        return [number for number in self.packs.numbers() if number not in self.foreign_packs]
