"""What a client may say in a commit and what not, whatever it wants to bring about."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import pytest
import trio

from tests.pack_sender import PackSender
from tvfs.catalog.catalog import Batch, Family
from tvfs.content.attributes import OwnAttributes
from tvfs.content.manifest import MAX_ITEMS_UNPAGED
from tvfs.content.tree_builder import BuiltDirectory, TreeBuilder
from tvfs.content.tree_index import REGULAR, VERSION, IndexEntry, TreeIndexPage, TreeIndexRoot, decode_root
from tvfs.digest import HOLE
from tvfs.ingest.commit import BlobRecord, IngestCommit, RowRecord
from tvfs.vault.commit_check import UNCOUNTED_ROW_BYTES, CommitRejected
from tvfs.vault.vault import Vault

OWN = OwnAttributes(0o755)
changed = msgspec.structs.replace


@pytest.fixture
def sender(vault: Vault) -> Any:
    made = PackSender(vault, "liar")
    yield made
    made.end()


async def built(vault: Vault, sender: PackSender, *names: bytes) -> BuiltDirectory:
    """A directory of empty files whose tree and attributes are in the vault."""
    entries = [IndexEntry(name, REGULAR, 0o644, -1, -1, -1, content_hash=bytes(32)) for name in names]
    made = TreeBuilder(vault.hash_function).build(OWN, entries)
    assert made.attributes is not None
    assert await sender.store(made.tree, made.attributes) == []
    return made


def rows_of(made: BuiltDirectory, **changes: object) -> list[RowRecord]:
    """Its rows, with lies in the root."""
    rows = [RowRecord(family.value, key, value) for family, key, value in made.rows]
    root = msgspec.msgpack.decode(rows[0].value, type=TreeIndexRoot)
    return [changed(rows[0], value=msgspec.msgpack.encode(changed(root, **changes))), *rows[1:]]


ROOTS: dict[str, dict[str, object]] = {
    "more numbers than there are": {"below": 1 << 62},
    "counts below zero": {"files": -1},
    "sizes below zero": {"bytes": -5},
    "a table of pages that does not fit": {"page_names": [b"a"] * 5, "page_preorders": [1] * 5},
    "another hash function": {"function": "sha256"},
    "a hash function that is none": {"function": "x" * 100_000},
    "a mode with a type": {"mode": 0o140755},
}


@pytest.mark.parametrize("lie", ROOTS.values(), ids=ROOTS.keys())
async def test_a_root_that_lies_is_refused(vault: Vault, sender: PackSender, lie: dict[str, object]) -> None:
    made = await built(vault, sender, b"a")
    with pytest.raises(CommitRejected):
        await sender.commit(IngestCommit(rows=rows_of(made, **lie)))
    assert not list(vault.catalog.scan(Family.TREE))


async def test_text_that_is_not_utf8_is_refused(vault: Vault, sender: PackSender) -> None:
    made = await built(vault, sender, b"a")
    rows = rows_of(made)
    rows[0] = changed(rows[0], value=rows[0].value.replace(b"blake3", b"\xfflake3"))
    with pytest.raises(CommitRejected, match="no root of a tree index"):
        await sender.commit(IngestCommit(rows=rows))


async def test_an_index_that_is_there_is_not_written_again(vault: Vault, sender: PackSender) -> None:
    """Whatever is attached by it has its inode numbers from it."""
    made = await built(vault, sender, b"a", b"b")
    assert await sender.commit(IngestCommit(rows=rows_of(made))) == []
    before = dict(vault.catalog.scan(Family.TREE)) | dict(vault.catalog.scan(Family.TREEPAGE))
    other = await built(vault, sender, b"x", b"y", b"z")
    page = changed(rows_of(other)[1], key=rows_of(made)[1].key)
    lie = rows_of(made, entries=3, below=3, files=3, page_names=[b"x"])[0]
    assert await sender.commit(IngestCommit(rows=[page, lie])) == []
    assert await sender.commit(IngestCommit(rows=[page])) == []
    assert dict(vault.catalog.scan(Family.TREE)) | dict(vault.catalog.scan(Family.TREEPAGE)) == before


async def test_a_damaged_index_is_mended_by_saving_the_tree_again(vault: Vault, sender: PackSender) -> None:
    made = await built(vault, sender, b"a", b"b")
    rows = rows_of(made)
    for damage in ([rows[0]], [rows[1]], rows):
        await sender.commit(IngestCommit(rows=rows))
        batch = Batch()
        for row in damage:
            batch.put(Family(row.family), row.key, b"damaged")
        vault.catalog.write(batch)
        assert await sender.commit(IngestCommit(rows=rows)) == []
        assert vault.catalog.get(Family.TREEPAGE, rows[1].key) == rows[1].value
        assert decode_root(rows[0].key, vault.catalog.get(Family.TREE, rows[0].key)).entries == 2


def manifest(*items: tuple[int, bytes], level: int = 0, size: int | None = None) -> bytes:
    total = sum(length for length, _ in items) if size is None else size
    layout = ">Q32s" if level else ">I32s"
    packed = b"".join(struct.pack(layout, length, hash_) for length, hash_ in items)
    return struct.pack(">BBxxIQ", 1, level, len(items), total) + packed


LYING_MANIFESTS = {
    "a million holes": manifest(*[(1, HOLE)] * (MAX_ITEMS_UNPAGED + 1)),
    "an item of no bytes": manifest((5, HOLE), (0, HOLE)),
    "another size": manifest((5, HOLE), size=6),
    "more bytes than a file can have": manifest(size=1 << 63),
}


@pytest.mark.parametrize("encoded", LYING_MANIFESTS.values(), ids=LYING_MANIFESTS.keys())
async def test_a_manifest_that_lies_is_refused(vault: Vault, sender: PackSender, encoded: bytes) -> None:
    page = RowRecord("page", vault.hash_function.digest(encoded), encoded)
    with pytest.raises(CommitRejected):
        await sender.commit(IngestCommit(blobs=[BlobRecord("blake3", bytes(32), encoded)]))
    root = manifest((5, page.key), level=1)
    with pytest.raises(CommitRejected):
        await sender.commit(IngestCommit(rows=[page], blobs=[BlobRecord("blake3", bytes(32), root)]))
    assert not list(vault.catalog.scan(Family.BLOB))


async def test_rows_of_millions_of_values_are_refused_without_being_made(vault: Vault, sender: PackSender) -> None:
    entry = IndexEntry(b"a", REGULAR, 0o644, -1, -1, -1, xattrs=((b"", b""),) * 1_000_000)
    page = msgspec.msgpack.encode(TreeIndexPage(VERSION, [entry]))
    assert len(page) > UNCOUNTED_ROW_BYTES
    stall = await longest_stall(sender, IngestCommit(rows=[RowRecord("treepage", bytes(36), page)]))
    print(f"held for {stall * 1e3:.1f} ms")
    assert stall < 0.2


async def longest_stall(sender: PackSender, commit: IngestCommit) -> float:
    """Commit what is refused; return how long others had to wait for their turn at most."""
    longest = 0.0
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            nonlocal longest
            last = trio.current_time()
            while True:
                await trio.lowlevel.checkpoint()
                longest = max(longest, trio.current_time() - last)
                last = trio.current_time()

        nursery.start_soon(watch)
        with pytest.raises(CommitRejected, match="more than 100000 values"):
            await sender.commit(commit)
        nursery.cancel_scope.cancel()
    return longest
