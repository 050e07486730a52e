"""What the rows of a commit refer to, and whether that is there: asked in slices, each under leases of the sender.

The lease comes before the look, in the same step: so what was found stays until the sender goes away.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

import trio

from tvfs.catalog.catalog import Catalog, Family
from tvfs.chunks.chunk_index import ChunkIndex
from tvfs.chunks.chunk_row import ChunkState
from tvfs.content.manifest import Manifest
from tvfs.content.tree_index import TreeIndexRoot, page_key
from tvfs.digest import ChunkId, function_code
from tvfs.errors import TaskVaultError
from tvfs.ingest.commit import ChunkRecord
from tvfs.vault.commit_check import CommitRejected, DecodedCommit, chunks_of, decode_manifest, pages_of
from tvfs.vault.leases import Leases

SLICE = 64
"""Rows looked up at a time, after which others run."""

T = TypeVar("T")


class CommitOutdated(TaskVaultError):
    """A commit refers to content that the vault had and has no more; nothing of it was taken."""

    def __init__(self, what: str, id_: bytes) -> None:
        super().__init__(
            f"Nothing was stored: the {what} {id_.hex()}, which the commit builds on, is not in the vault any more;"
            " do the same again, and it will be sent."
        )
        self.id = id_


class CommitReferences:
    """What is known of the content that one commit refers to."""

    def __init__(self, catalog: Catalog, leases: Leases, holder: Hashable, sent: dict[bytes, ChunkRecord]) -> None:
        self._catalog = catalog
        self._index = ChunkIndex(catalog)
        self._leases = leases
        self._holder = holder
        self._sizes: dict[bytes, int] = {chunk_id: record.raw_bytes for chunk_id, record in sent.items()}
        self.missing: dict[bytes, None] = {}
        """Neither sent nor usable; a dictionary for its order."""
        self.dead: dict[bytes, None] = {}
        """To be resurrected by this commit."""

    async def hold(self, ids: Iterable[bytes]) -> None:
        """Keep what has these ids, there or not yet."""
        for part in _slices(list(ids), 16 * SLICE):
            self._leases.hold(self._holder, part)
            await trio.lowlevel.checkpoint()

    async def look_up(self, decoded: DecodedCommit, own_function: str) -> None:
        """Find everything that a commit refers to.  Raises `CommitRejected` or `CommitOutdated`."""
        await self.hold(decoded.ids())
        await self.look_up_chunks([(chunk_id, None) for chunk_id in decoded.uses])
        for page in decoded.pages.values():
            await self.look_up_chunks(chunks_of(page))
        for root in decoded.roots:
            await self._look_up_manifest(root, decoded)
        await self.look_up_chunks(list(decoded.page_chunks.items()))
        own = function_code(own_function)
        blobs = [bytes([own]) + hash_ for hash_ in decoded.page_blobs]
        await self._look_up_rows("blob", Family.BLOB, [key for key in blobs if key not in decoded.blob_keys])
        children = [index for index in decoded.page_trees if index not in decoded.tree_roots]
        await self._look_up_rows("tree", Family.TREE, children)
        for index, tree in decoded.tree_roots.items():
            await self._look_up_tree(index, tree, decoded, own)

    async def look_up_chunks(self, wanted: Sequence[tuple[bytes, int | None]]) -> None:
        """Find chunks by `(id, raw_bytes)`; raise `CommitRejected` where a length is not the chunk's."""
        for part in _slices(wanted, SLICE):
            self._leases.hold(self._holder, (chunk_id for chunk_id, _ in part))
            self._look_up(part)
            await trio.lowlevel.checkpoint()

    def _look_up(self, pairs: Sequence[tuple[bytes, int | None]]) -> None:
        asked = (ChunkId(chunk_id) for chunk_id in dict(pairs))
        unknown = [chunk_id for chunk_id in asked if chunk_id not in self._sizes and chunk_id not in self.missing]
        for chunk_id, row in zip(unknown, self._index.find_many(unknown), strict=True):
            if row is None or row.state is ChunkState.QUARANTINED:
                self.missing[chunk_id] = None
                continue
            self._sizes[chunk_id] = row.location.raw_bytes
            if row.state is ChunkState.DEAD:
                self.dead[chunk_id] = None
        for wanted_id, raw_bytes in pairs:
            if raw_bytes is not None and self._sizes.get(wanted_id, raw_bytes) != raw_bytes:
                raise CommitRejected(f"chunk {wanted_id.hex()} does not have {raw_bytes} bytes")

    async def _look_up_manifest(self, root: Manifest, decoded: DecodedCommit) -> None:
        if root.level == 0:
            await self.look_up_chunks(chunks_of(root))
            return
        for page_hash, covered_bytes in pages_of(root):
            self._leases.hold(self._holder, [page_hash])
            page = decoded.pages.get(page_hash) or self._stored_page(page_hash)
            if page.size != covered_bytes:
                raise CommitRejected(f"page {page_hash.hex()} covers other bytes than its root says")
            if page_hash not in decoded.pages:
                await self.look_up_chunks(chunks_of(page))

    def _stored_page(self, page_hash: bytes) -> Manifest:
        row = self._catalog.get(Family.PAGE, page_hash)
        if row is None:
            raise CommitOutdated("page", page_hash)
        return decode_manifest(row, f"page {page_hash.hex()}", level=0)

    async def _look_up_rows(self, what: str, family: Family, keys: Sequence[bytes]) -> None:
        for part in _slices(keys, SLICE):
            self._leases.hold(self._holder, (key[-32:] for key in part))
            for key, row in zip(part, self._catalog.get_many(family, part), strict=True):
                if row is None:
                    raise CommitOutdated(what, key[-32:])
            await trio.lowlevel.checkpoint()

    async def _look_up_tree(self, index: bytes, tree: TreeIndexRoot, decoded: DecodedCommit, own: int) -> None:
        """Find the pages of an index, and the contents that it was made from."""
        keys = [page_key(index, number) for number in range(len(tree.page_names))]
        await self._look_up_rows("page of the tree", Family.TREEPAGE, [k for k in keys if k not in decoded.tree_pages])
        for hash_, size in ((tree.tree_hash, tree.tree_size), (tree.attributes_hash, tree.attributes_size)):
            if not (hash_ and size):
                continue
            self._leases.hold(self._holder, [hash_])
            code = function_code(tree.function)
            key = bytes([code]) + hash_
            if key in decoded.blob_keys or self._catalog.get(Family.BLOB, key) is not None:
                continue
            if code == own:
                self._look_up([(hash_, size)])
            else:
                raise CommitOutdated("blob", hash_)


def _slices(items: Sequence[T], length: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), length):
        yield items[start : start + length]
