"""Foreign trees in a vault on a disk: what is there, what is said to be, and what goes away."""

from __future__ import annotations

import pytest
from blake3 import blake3

from tests.pack_sender import PackSender, blob_of
from tests.unit.content.foreign import message
from tvfs.catalog.catalog import Batch, Family
from tvfs.chunks.chunk_index import ChunkIndex
from tvfs.chunks.chunk_row import ChunkState
from tvfs.content.ingress import TreeIncomplete, TreeRefused
from tvfs.content.tree_index import TreeIndexReader
from tvfs.digest import ChunkId, Digest
from tvfs.ingest.commit import IngestCommit
from tvfs.vault.foreign_trees import take_foreign_tree
from tvfs.vault.vault import Vault


def digest_of(content: bytes) -> Digest:
    return Digest("blake3", blake3(content).digest(), len(content))


def set_state(vault: Vault, content: bytes, state: ChunkState) -> None:
    batch = Batch()
    ChunkIndex(vault.catalog).set_state(batch, {ChunkId(digest_of(content).hash): state})
    vault.catalog.write(batch)


async def test_a_tree_is_taken_and_held_for_who_asked(vault: Vault) -> None:
    sender = PackSender(vault, "gateway")
    inner = message({"f": digest_of(b"content")})
    tree = message({}, {"d": digest_of(inner)})
    await sender.store(b"content", inner, tree)
    snapshot = await take_foreign_tree(vault, digest_of(tree), holder="client")
    assert (snapshot.tree, snapshot.files, snapshot.size) == (digest_of(tree), 1, 7)
    sender.end()
    assert vault.leases.is_leased(snapshot.index)
    entry = TreeIndexReader(vault.catalog.get).lookup(snapshot.index, b"d")
    assert entry is not None
    assert vault.leases.is_leased(entry.child)
    vault.end_holder("client")
    assert not vault.leases.is_leased(snapshot.index)


async def test_what_is_about_to_be_swept_lives_again(vault: Vault) -> None:
    sender = PackSender(vault, "gateway")
    tree = message({"f": digest_of(b"content")})
    await sender.store(b"content", tree)
    for content in (b"content", tree):
        set_state(vault, content, ChunkState.DEAD)
    await take_foreign_tree(vault, digest_of(tree), holder="client")
    assert await vault.chunks.get(ChunkId(digest_of(b"content").hash)) == b"content"
    assert vault.chunks.has(ChunkId(digest_of(tree).hash))
    sender.end()


@pytest.mark.damages_vault
async def test_what_is_in_quarantine_is_not_there(vault: Vault) -> None:
    sender = PackSender(vault, "gateway")
    tree = message({"f": digest_of(b"content")})
    await sender.store(b"content", tree)
    set_state(vault, b"content", ChunkState.QUARANTINED)
    with pytest.raises(TreeIncomplete, match="'f'"):
        await take_foreign_tree(vault, digest_of(tree), holder="client")
    sender.end()


async def test_contents_of_many_chunks_are_found_by_their_manifests(vault: Vault) -> None:
    sender = PackSender(vault, "gateway")
    parts = [b"one", b"two", b"three"]
    await sender.store(*parts)
    blob, _ = blob_of(vault, parts)
    long = digest_of(b"".join(parts))
    halves = message({"long": long})
    cut = [halves[:20], halves[20:]]
    await sender.store(*cut)
    directory, _ = blob_of(vault, cut)
    assert await sender.commit(IngestCommit(blobs=[blob, directory])) == []
    snapshot = await take_foreign_tree(vault, digest_of(halves), holder="client")
    entry = TreeIndexReader(vault.catalog.get).lookup(snapshot.index, b"long")
    assert entry is not None
    assert (entry.size, entry.content_hash) == (long.size, long.hash)
    lying = message({"long": Digest("blake3", long.hash, 12)})
    await sender.store(lying)
    with pytest.raises(TreeRefused, match=f"12 bytes are told of a content that has {long.size}"):
        await take_foreign_tree(vault, digest_of(lying), holder="client")
    sender.end()


@pytest.mark.damages_vault
async def test_a_directory_whose_manifest_leads_to_other_bytes_is_refused(vault: Vault) -> None:
    """The vault believes a client which chunks make up a blob; ingress does not."""
    sender = PackSender(vault, "gateway")
    honest = message({"a": digest_of(b"content")})
    await sender.store(b"content", honest)
    other = message({"b": digest_of(b"content")})
    await sender.store(other[:20], other[20:])
    manifest, _ = blob_of(vault, [other[:20], other[20:]])
    lie = type(manifest)(manifest.function, bytes(31) + b"x", manifest.manifest)
    assert await sender.commit(IngestCommit(blobs=[lie])) == []
    with pytest.raises(TreeRefused, match="do not have its hash"):
        await take_foreign_tree(vault, Digest("blake3", lie.hash, len(other)), holder="client")
    assert not list(vault.catalog.scan(Family.TREE))
    sender.end()
