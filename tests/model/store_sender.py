"""What clients store: contents that repeat, and how they are sent."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.model.store_world import StoreWorld
from tests.pack_sender import PackSender, blob_of
from tvfs.content.attributes import OwnAttributes
from tvfs.content.reference import EMPTY, Content, ContentKind
from tvfs.content.snapshot import Snapshot
from tvfs.content.tree_builder import TreeBuilder
from tvfs.content.tree_index import REGULAR, IndexEntry
from tvfs.digest import ChunkId
from tvfs.ingest.commit import IngestCommit, RowRecord
from tvfs.packs.record import PACK_HEADER_BYTES, RECORD_HEADER_BYTES
from tvfs.vault.vault import Vault

SHARED = 60
"""So many chunks come again and again."""
_BLOCK = 4096
_RESERVED = 96 << 10

Asked = Callable[[list[ChunkId], set[bytes]], None]
"""Called with chunks and those of them that must be sent."""


class Unsaved:
    """Draws contents, and remembers chunks by id."""

    def __init__(self, draw: random.Random) -> None:
        self._shared = [draw.randbytes(draw.choice((10, 200, 1500, 9000))) for _ in range(SHARED)]
        self.known: dict[bytes, bytes] = {}
        """Raw bytes by chunk id, of what was sent."""

    def chunks(self, draw: random.Random) -> list[bytes]:
        """Return the chunks of one content."""
        first = draw.randrange(SHARED)
        return [self._shared[(first + each) % SHARED] for each in range(draw.choice((1, 1, 1, 2, 5)))]

    def files(self, draw: random.Random) -> dict[bytes, list[bytes]]:
        """Return the files of a directory, each as its chunks."""
        if draw.random() < 0.02:  # more than one page
            return {b"%d" % number: [b"%d" % (number % 7)] for number in range(300)}
        return {
            b"%d" % number: self.chunks(draw) if draw.random() < 0.95 else [] for number in range(draw.randint(1, 5))
        }

    def new(self, draw: random.Random, length: int) -> bytes:
        """Return a chunk that was never there."""
        return draw.randbytes(length)


class Sender:
    """A client, which has a pack at a time."""

    def __init__(self, world: StoreWorld, holder: str, unsaved: Unsaved) -> None:
        self.vault = world.vault
        self.holder = holder
        self._unsaved = unsaved
        self._pack: PackSender | None = None
        self._left_bytes = 0

    async def send_chunks(self, raws: list[bytes], asked: Asked) -> None:
        """Commit chunks."""
        await self._commit(raws, [], [], asked)

    async def send_content(self, chunks: list[bytes], asked: Asked) -> Content:
        """Commit a content of these chunks."""
        if len(chunks) > 1:
            blob, pages = blob_of(self.vault, chunks)
            await self._commit(chunks, [blob], pages, asked)
        else:
            await self._commit(chunks, [], [], asked)
        return held_content(self.vault, chunks)

    async def send_tree(self, files: dict[bytes, list[bytes]], asked: Asked) -> Snapshot:
        """Commit a directory: its content, then its rows."""
        entries = []
        for name, chunks in sorted(files.items()):
            content = held_content(self.vault, chunks)
            hash_ = content.hash if content.kind is not ContentKind.EMPTY else b""
            entries.append(IndexEntry(name, REGULAR, 0o644, 0, 0, 0, content.size, content.kind, hash_))
        built = TreeBuilder(self.vault.hash_function).build(OwnAttributes(0o755), entries)
        assert built.attributes is not None
        raws = [raw for chunks in files.values() for raw in chunks]
        blobs, rows = [], []
        for chunks in files.values():
            if len(chunks) > 1:
                blob, pages = blob_of(self.vault, chunks)
                blobs.append(blob)
                rows += pages
        await self._commit(raws, blobs, rows, asked, also=[built.tree, built.attributes])
        tree_rows = [RowRecord(family.value, key, value) for family, key, value in built.rows]
        await self._commit([], [], tree_rows, asked)
        return built.directory.snapshot

    def close(self) -> None:
        """Go away: its descriptor is closed."""
        if self._pack is not None:
            self._pack.writer.close()
            self._pack = None

    async def _commit(
        self,
        raws: list[bytes],
        blobs: list,
        rows: list[RowRecord],
        asked: Asked,
        *,
        also: list[bytes] = (),  # type: ignore
    ) -> None:
        digest = self.vault.hash_function.digest
        chunks = {ChunkId(digest(raw)): raw for raw in [*raws, *also]}
        missing = set(await self.vault.committer.find_missing(list(chunks), self.holder))
        asked(list(chunks), missing)
        wanted = [raw for chunk_id, raw in chunks.items() if chunk_id in missing]
        wanted_bytes = sum(len(raw) + RECORD_HEADER_BYTES for raw in wanted)
        if wanted:
            await self._have_room(wanted_bytes)
        records = []
        for raw in wanted:
            assert self._pack is not None
            records.append(self._pack.append(raw))
        uses = [chunk_id for chunk_id in chunks if chunk_id not in missing]
        commit = IngestCommit(chunks=records, blobs=blobs, rows=rows, uses=uses)
        if self._pack is not None:
            self._pack.writer.sync()
        still_missing = await self.vault.committer.commit(commit, self.holder)
        while still_missing:  # found bad meanwhile
            again = [chunks[ChunkId(chunk_id)] for chunk_id in still_missing]
            await self._have_room(sum(len(raw) + RECORD_HEADER_BYTES for raw in again))
            assert self._pack is not None
            records = [self._pack.append(raw) for raw in again]
            self._pack.writer.sync()
            uses = [chunk_id for chunk_id in chunks if chunk_id not in still_missing]
            commit = IngestCommit(chunks=records, blobs=blobs, rows=rows, uses=uses)
            still_missing = await self.vault.committer.commit(commit, self.holder)
        for chunk_id, raw in chunks.items():
            if raw not in also:
                self._unsaved.known[chunk_id] = raw

    async def _have_room(self, wanted_bytes: int) -> None:
        if self._pack is not None and wanted_bytes <= self._left_bytes:
            self._left_bytes -= wanted_bytes
            return
        if self._pack is not None:
            self._pack.writer.close()
            self.vault.grants.end_pack(self._pack.number)
            self._pack = None
        reserved_bytes = max(_RESERVED, -(-(wanted_bytes + PACK_HEADER_BYTES) // _BLOCK) * _BLOCK)
        grant = await self.vault.grants.grant(self.holder, reserved_bytes)
        self._pack = PackSender(self.vault, self.holder, granted=grant)
        self._left_bytes = reserved_bytes - PACK_HEADER_BYTES - wanted_bytes


def held_content(vault: Vault, chunks: list[bytes]) -> Content:
    """Return how a content of these chunks is referred to."""
    raw = b"".join(chunks)
    if not raw:
        return EMPTY
    kind = ContentKind.CHUNK if len(chunks) == 1 else ContentKind.MANIFEST
    return Content(kind, vault.hash_function.digest(raw), len(raw))
