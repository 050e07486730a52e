"""Ingress into a vault: what `tvfs.content.ingress` asks, answered by the owner's own parts."""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import suppress
from pathlib import Path

from tvfs.catalog.catalog import Family
from tvfs.chunks.chunk_row import ChunkState, decode_chunk_row
from tvfs.content.index_writer import Row
from tvfs.content.ingress import Ingress, IngressLimits
from tvfs.content.manifest import Manifest, ManifestInvalid
from tvfs.content.reader import ContentReader
from tvfs.content.reference import Content, ContentKind
from tvfs.content.snapshot import Snapshot
from tvfs.content.tree_index import TreeIndexMissing, TreeIndexRoot, decode_root
from tvfs.digest import Digest, function_code
from tvfs.errors import TaskVaultError
from tvfs.ingest.commit import IngestCommit, RowRecord
from tvfs.plugin_api import HashFunction
from tvfs.vault.vault import Vault


class ContentWentAway(TaskVaultError):
    """Content that was there when a tree was checked was not when it was stored."""

    def __init__(self, count: int) -> None:
        super().__init__(f"{count} chunks of the tree were removed while it was looked at; upload them and try again.")


async def take_foreign_tree(
    vault: Vault, tree: Digest, *, holder: Hashable, limits: IngressLimits | None = None
) -> Snapshot:
    """Make a REAPI tree whose messages and files are in the vault attachable, and return it; leased to the holder.

    Raises `TreeForeign`, `TreeRefused`, `TreeIncomplete`, `ContentWentAway`, and what reading and committing raise.
    """
    return await Ingress(_VaultSource(vault, holder), limits).take(tree)


class _VaultSource:
    """An `IngressSource`."""

    def __init__(self, vault: Vault, holder: Hashable) -> None:
        self._vault = vault
        self._holder = holder
        self._reader = ContentReader(vault.catalog, vault.chunks, vault.hash_function)
        self._dead: set[bytes] = set()
        """Chunks that the next commit makes live again."""

    @property
    def hash_function(self) -> HashFunction:
        return self._vault.hash_function

    @property
    def scratch(self) -> Path:
        return self._vault.layout.staging

    def content_of(self, digest: Digest) -> Content | None:
        found = self._reader.content_of(digest)
        if found is None:
            row = self._vault.catalog.get(Family.CHUNK, digest.hash)
            if row is None:
                return None
            chunk = decode_chunk_row(row)
            if chunk.state is not ChunkState.DEAD or chunk.location.raw_bytes != digest.size:
                return None
            self._dead.add(digest.hash)
            found = Content(ContentKind.CHUNK, digest.hash, digest.size)
        return found

    def size_of(self, digest: Digest) -> int | None:
        catalog = self._vault.catalog
        row = catalog.get(Family.BLOB, bytes([function_code(digest.function)]) + digest.hash)
        if row is not None:
            with suppress(ManifestInvalid):
                return int(Manifest(row).size)
            return None
        row = catalog.get(Family.CHUNK, digest.hash)
        if row is None:
            return None
        chunk = decode_chunk_row(row)
        return None if chunk.state is ChunkState.QUARANTINED else chunk.location.raw_bytes

    def root(self, index: bytes) -> TreeIndexRoot | None:
        try:
            return decode_root(index, self._vault.catalog.get(Family.TREE, index))
        except TreeIndexMissing:
            return None

    def hold(self, index: bytes) -> None:
        self._vault.leases.hold(self._holder, [index])

    async def read(self, content: Content, offset: int, length: int) -> bytes:
        self._vault.leases.hold(self._holder, [content.hash])
        if content.hash in self._dead:
            await self.commit([])
        return await self._reader.read(content, offset, length)

    async def commit(self, rows: list[Row]) -> None:
        dead, self._dead = self._dead, set()
        records = [RowRecord(family.value, key, value) for family, key, value in rows]
        missing = await self._vault.committer.commit(IngestCommit(rows=records, uses=list(dead)), self._holder)
        if missing:
            raise ContentWentAway(len(missing))
