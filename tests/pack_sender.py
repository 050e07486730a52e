"""What a client does before it commits: append chunks to a pack of its own and sync it."""

from __future__ import annotations

from tvfs.content.attributes import OwnAttributes
from tvfs.content.manifest import build_manifest
from tvfs.content.snapshot import Snapshot
from tvfs.content.tree_builder import TreeBuilder
from tvfs.content.tree_index import REGULAR, IndexEntry
from tvfs.digest import ChunkId
from tvfs.ingest.commit import BlobRecord, ChunkRecord, IngestCommit, RowRecord
from tvfs.packs.pack_writer import PackWriter
from tvfs.vault.pack_grants import PackGrant
from tvfs.vault.stored_entry import StoredEntry, StoredSnapshot
from tvfs.vault.vault import Vault


class PackSender:
    """One holder with one pack."""

    def __init__(
        self, vault: Vault, holder: str, reserve_bytes: int = 1 << 20, *, granted: PackGrant | None = None
    ) -> None:
        self.vault = vault
        self.holder = holder
        grant = granted or vault.grants.grant_blocking(holder, reserve_bytes)
        self.number = grant.number
        self.writer = PackWriter(grant.descriptor, grant.number, vault.superblock.uuid)

    def append(self, raw: bytes) -> ChunkRecord:
        """Append a chunk, raw."""
        chunk_id = ChunkId(self.vault.hash_function.digest(raw))
        at = self.writer.append(chunk_id, len(raw), 0, raw)
        return ChunkRecord(chunk_id, at.pack, at.offset, at.stored_bytes, at.raw_bytes, at.codec)

    async def commit(self, commit: IngestCommit) -> list[bytes]:
        """Sync the pack and commit."""
        self.writer.sync()
        return await self.vault.committer.commit(commit, self.holder)

    async def store(self, *chunks: bytes) -> list[bytes]:
        """Append and commit chunks; return what is missing."""
        return await self.commit(IngestCommit(chunks=[self.append(raw) for raw in chunks]))

    def end(self) -> None:
        """Go away."""
        self.writer.close()
        self.vault.end_holder(self.holder)


def blob_of(vault: Vault, chunks: list[bytes]) -> tuple[BlobRecord, list[RowRecord]]:
    """Return the manifest of a content of these chunks, and its pages."""
    digest = vault.hash_function.digest
    built = build_manifest([(len(raw), digest(raw)) for raw in chunks], digest)
    rows = [RowRecord("page", key, page) for key, page in built.pages]
    return BlobRecord(vault.hash_function.name, digest(b"".join(chunks)), built.root), rows


async def store_tree(sender: PackSender, files: int) -> Snapshot:
    """Commit a directory of so many files, `file <number>` in each."""
    vault = sender.vault
    raws = [b"file %d" % number for number in range(files)]
    entries = [
        IndexEntry(b"%06d" % number, REGULAR, 0o644, 0, 0, 0, len(raw), 1, ChunkId(vault.hash_function.digest(raw)))
        for number, raw in enumerate(raws)
    ]
    built = TreeBuilder(vault.hash_function).build(OwnAttributes(0o755), entries)
    assert built.attributes is not None
    contents = dict.fromkeys([*raws, built.tree, built.attributes])
    ids = {raw: ChunkId(vault.hash_function.digest(raw)) for raw in contents}
    missing = await vault.committer.find_missing(list(ids.values()), sender.holder)
    records = [sender.append(raw) for raw in contents if ids[raw] in missing]
    assert await sender.commit(IngestCommit(chunks=records)) == []
    rows = [RowRecord(family.value, key, value) for family, key, value in built.rows]
    assert await sender.commit(IngestCommit(rows=rows)) == []
    return built.directory.snapshot


def entry_of(snapshot: Snapshot) -> StoredEntry:
    """Return an entry that finds a tree."""
    stored = StoredSnapshot(str(snapshot.tree), str(snapshot.attributes), snapshot.index, snapshot.files, snapshot.size)
    return StoredEntry("main", "k", "saved", 1, 1, stored)
