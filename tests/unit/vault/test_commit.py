from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from collections.abc import Callable

import msgspec
import pytest
import trio

from tests.pack_sender import PackSender, blob_of
from tvfs.catalog.catalog import Batch, Family
from tvfs.chunks.chunk_index import ChunkIndex
from tvfs.chunks.chunk_row import ChunkState
from tvfs.content.attributes import OwnAttributes
from tvfs.content.tree_builder import TreeBuilder
from tvfs.content.tree_index import REGULAR, IndexEntry, TreeIndexPage
from tvfs.digest import ChunkId
from tvfs.ingest.commit import BlobRecord, ChunkRecord, IngestCommit, RowRecord
from tvfs.packs.pack_writer import DiskFull
from tvfs.packs.record import RECORD_HEADER_BYTES
from tvfs.vault.commit_check import CommitRejected
from tvfs.vault.commit_references import SLICE, CommitOutdated
from tvfs.vault.vault import Vault


def set_state(vault: Vault, chunk_id: bytes, state: ChunkState) -> None:
    batch = Batch()
    ChunkIndex(vault.catalog).set_state(batch, {ChunkId(chunk_id): state})
    vault.catalog.write(batch)


def rows(vault: Vault) -> dict[Family, list[tuple[bytes, bytes]]]:
    families = (Family.CHUNK, Family.PACK, Family.BLOB, Family.PAGE, Family.TREE, Family.TREEPAGE)
    return {family: list(vault.catalog.scan(family)) for family in families}


def live_bytes(vault: Vault) -> dict[int, int]:
    """What the pack rows should say, from the chunk rows."""
    index = ChunkIndex(vault.catalog)
    expected: dict[int, int] = {}
    for chunk_id in index.live():
        row = index.find(chunk_id)
        assert row is not None
        size = RECORD_HEADER_BYTES + row.location.stored_bytes
        expected[row.location.pack] = expected.get(row.location.pack, 0) + size
    return expected


def check_accounts(vault: Vault) -> None:
    index = ChunkIndex(vault.catalog)
    for number in vault.packs.numbers():
        assert index.pack(number).live_bytes == live_bytes(vault).get(number, 0)


async def test_committed_chunks_are_readable(vault: Vault) -> None:
    sender = PackSender(vault, "a")
    assert await sender.store(b"one", b"two") == []
    sender.end()
    assert await vault.chunks.get(ChunkId(vault.hash_function.digest(b"two"))) == b"two"
    check_accounts(vault)


async def test_a_blob_may_use_sent_and_present_chunks(vault: Vault) -> None:
    sender = PackSender(vault, "a")
    await sender.store(b"one")
    blob, _ = blob_of(vault, [b"one", b"two"])
    assert await sender.commit(IngestCommit(chunks=[sender.append(b"two")], blobs=[blob])) == []
    assert vault.catalog.get(Family.BLOB, b"\x09" + blob.hash) == blob.manifest
    sender.end()


async def test_a_reference_to_nothing_is_missing_and_nothing_is_stored(vault: Vault) -> None:
    sender = PackSender(vault, "a")
    before = rows(vault)
    blob, _ = blob_of(vault, [b"one", b"two"])
    absent = vault.hash_function.digest(b"three")
    commit = IngestCommit(chunks=[sender.append(b"one")], blobs=[blob], uses=[absent])
    assert await sender.commit(commit) == [absent, vault.hash_function.digest(b"two")]
    assert rows(vault) == before
    sender.end()
    assert vault.packs.numbers() == []


async def test_a_paged_manifest_brings_its_pages_or_finds_them(vault: Vault) -> None:
    sender = PackSender(vault, "a")
    chunks = [b"%d" % number for number in range(2000)]
    await sender.store(*chunks)
    blob, pages = blob_of(vault, chunks)
    assert len(pages) > 1
    with pytest.raises(CommitOutdated, match="not in the vault any more"):
        await sender.commit(IngestCommit(blobs=[blob]))
    assert await sender.commit(IngestCommit(blobs=[blob], rows=pages)) == []
    # The pages are there now, and so are the chunks that they lead to, which are checked too.
    assert await sender.commit(IngestCommit(blobs=[blob])) == []
    set_state(vault, vault.hash_function.digest(b"1999"), ChunkState.QUARANTINED)
    assert await sender.commit(IngestCommit(blobs=[blob])) == [vault.hash_function.digest(b"1999")]
    sender.end()


async def test_a_dead_chunk_is_resurrected_by_a_reference(vault: Vault) -> None:
    sender = PackSender(vault, "a")
    await sender.store(b"one", b"two")
    chunk_id = ChunkId(vault.hash_function.digest(b"one"))
    set_state(vault, chunk_id, ChunkState.DEAD)
    assert not vault.chunks.has(chunk_id)
    assert await sender.commit(IngestCommit(uses=[chunk_id])) == []
    assert await vault.chunks.get(chunk_id) == b"one"
    check_accounts(vault)
    sender.end()


async def test_a_quarantined_chunk_is_missing_until_it_is_sent_again(vault: Vault) -> None:
    sender = PackSender(vault, "a")
    await sender.store(b"one")
    chunk_id = ChunkId(vault.hash_function.digest(b"one"))
    set_state(vault, chunk_id, ChunkState.QUARANTINED)
    check_accounts(vault)
    assert await vault.committer.find_missing([chunk_id], "a") == [chunk_id]
    assert await sender.commit(IngestCommit(uses=[chunk_id])) == [chunk_id]
    assert await sender.store(b"one") == []
    assert await vault.chunks.get(chunk_id) == b"one"
    check_accounts(vault)
    sender.end()


async def test_of_two_senders_of_one_chunk_the_first_wins(vault: Vault) -> None:
    first, second = PackSender(vault, "a"), PackSender(vault, "b")
    assert await first.store(b"one") == []
    before = vault.catalog.get(Family.CHUNK, vault.hash_function.digest(b"one"))
    assert await second.store(b"one") == []
    assert vault.catalog.get(Family.CHUNK, vault.hash_function.digest(b"one")) == before
    check_accounts(vault)
    first.end()
    second.end()
    assert vault.packs.numbers() == [first.number]


async def test_a_chunk_twice_in_one_commit_counts_once(vault: Vault) -> None:
    sender = PackSender(vault, "a")
    assert await sender.store(b"one", b"one") == []
    check_accounts(vault)
    sender.end()
    assert await vault.chunks.get(ChunkId(vault.hash_function.digest(b"one"))) == b"one"


async def test_what_was_answered_as_present_is_leased(vault: Vault) -> None:
    sender = PackSender(vault, "a")
    await sender.store(b"one")
    present, absent = vault.hash_function.digest(b"one"), vault.hash_function.digest(b"two")
    assert await vault.committer.find_missing([present, absent], "b") == [absent]
    sender.end()
    assert vault.leases.is_leased(present)
    vault.end_holder("b")
    assert not vault.leases.is_leased(present)


async def test_many_commits_at_once_keep_the_accounts_right(vault: Vault) -> None:
    senders = [PackSender(vault, f"holder {number}") for number in range(5)]

    async def send(sender: PackSender) -> None:
        for round_ in range(5):
            chunks = [b"%d" % (round_ * 3 + number) for number in range(6)]
            assert await sender.store(*chunks) == []

    async with trio.open_nursery() as nursery:
        for sender in senders:
            nursery.start_soon(send, sender)
    check_accounts(vault)
    for sender in senders:
        sender.end()
    for number in range(18):
        await vault.chunks.get(ChunkId(vault.hash_function.digest(b"%d" % number)))


def changed(record: ChunkRecord, **fields: object) -> ChunkRecord:
    return msgspec.structs.replace(record, **fields)


BAD_RECORDS: list[tuple[str, Callable[[ChunkRecord], ChunkRecord]]] = [
    ("pack that is not the sender's", lambda record: changed(record, pack=record.pack + 1)),
    ("beyond the end of the pack", lambda record: changed(record, offset=record.offset + 1)),
    ("inside the header of the pack", lambda record: changed(record, offset=0)),
    ("negative offset", lambda record: changed(record, offset=-1)),
    ("no bytes", lambda record: changed(record, raw_bytes=0, stored_bytes=0)),
    ("too many bytes", lambda record: changed(record, raw_bytes=1 << 30)),
    ("negative length", lambda record: changed(record, stored_bytes=-1)),
    ("raw with two lengths", lambda record: changed(record, raw_bytes=record.raw_bytes + 1)),
    ("unknown codec", lambda record: changed(record, codec=200)),
    ("id of a hole", lambda record: changed(record, chunk_id=bytes(32))),
    ("short id", lambda record: changed(record, chunk_id=b"x")),
]


@pytest.mark.parametrize("change", [change for _, change in BAD_RECORDS], ids=[name for name, _ in BAD_RECORDS])
async def test_a_record_that_cannot_be_true_is_refused(
    vault: Vault, change: Callable[[ChunkRecord], ChunkRecord]
) -> None:
    sender = PackSender(vault, "a")
    before = rows(vault)
    good, bad = sender.append(b"good"), sender.append(b"bad!")
    with pytest.raises(CommitRejected, match="nothing was stored"):
        await sender.commit(IngestCommit(chunks=[good, change(bad)]))
    assert rows(vault) == before
    sender.end()


def another_trees_root(vault: Vault) -> RowRecord:
    built = TreeBuilder(vault.hash_function).build(OwnAttributes(0o755), [])
    return RowRecord("tree", bytes(32), built.rows[0][2])


def page_of(name: bytes) -> RowRecord:
    entry = IndexEntry(name, REGULAR, 0o644, 0, 0, 0)
    return RowRecord("treepage", bytes(36), msgspec.msgpack.encode(TreeIndexPage(1, [entry])))


async def test_blobs_and_rows_that_cannot_be_true_are_refused(vault: Vault) -> None:
    sender = PackSender(vault, "a")
    chunk = sender.append(b"one")
    blob, _ = blob_of(vault, [b"one", b"two"])
    wrong_size, _ = blob_of(vault, [b"one"])
    wrong_size = BlobRecord("blake3", wrong_size.hash, wrong_size.manifest[:8] + bytes(8) + wrong_size.manifest[16:])
    longer = blob.manifest[:16] + (4).to_bytes(4, "big") + blob.manifest[20:]
    longer = longer[:8] + (7).to_bytes(8, "big") + longer[16:]
    page = blob.manifest
    refused = [
        IngestCommit(chunks=[chunk], blobs=[wrong_size]),
        IngestCommit(chunks=[chunk, sender.append(b"two")], blobs=[BlobRecord("blake3", blob.hash, longer)]),
        IngestCommit(blobs=[BlobRecord("md5", blob.hash, blob.manifest)]),
        IngestCommit(blobs=[BlobRecord("blake3", b"short", blob.manifest)]),
        IngestCommit(blobs=[BlobRecord("blake3", blob.hash, b"")]),
        IngestCommit(rows=[RowRecord("page", bytes(32), page)]),
        IngestCommit(rows=[RowRecord("entry", bytes(32), b"x")]),
        IngestCommit(rows=[RowRecord("sys", b"superblock", b"x")]),
        IngestCommit(rows=[RowRecord("tree", b"short", b"x")]),
        IngestCommit(rows=[RowRecord("nonsense", bytes(32), b"x")]),
        IngestCommit(rows=[RowRecord("tree", bytes(32), b"x")]),
        IngestCommit(rows=[another_trees_root(vault)]),
        IngestCommit(rows=[RowRecord("treepage", bytes(36), b"x")]),
        IngestCommit(rows=[page_of(b"..")]),
        IngestCommit(rows=[page_of(b"../../etc/passwd")]),
        IngestCommit(uses=[b"short"]),
    ]
    before = rows(vault)
    for commit in refused:
        with pytest.raises(CommitRejected):
            await sender.commit(commit)
    assert rows(vault) == before
    sender.end()


async def test_a_holder_that_ended_can_no_longer_commit(vault: Vault) -> None:
    sender = PackSender(vault, "a")
    record = sender.append(b"one")
    sender.writer.sync()
    sender.end()
    with pytest.raises(CommitRejected, match="not the sender's"):
        await vault.committer.commit(IngestCommit(chunks=[record]), "a")


async def test_a_pack_is_cut_at_its_last_commit_when_its_writer_ends(vault: Vault) -> None:
    sender = PackSender(vault, "a")
    await sender.store(b"one")
    committed = vault.packs.size(sender.number)
    sender.append(b"x" * 10_000)
    sender.writer.sync()
    sender.end()
    assert vault.packs.size(sender.number) == committed
    assert vault.reservations.reserved_bytes == 0


async def test_a_long_commit_is_written_in_slices_between_which_others_run(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender = PackSender(vault, "a")
    raws = [b"%d" % number for number in range(1000)]
    chunks = [sender.append(raw) for raw in raws]
    blobs = [blob_of(vault, [raw, b"1"])[0] for raw in raws]
    write, written, turns = vault.catalog.write, [], 0

    def watched(batch: Batch) -> None:
        written.append((turns, len(batch), {change.family for change in batch.changes}))
        write(batch)

    monkeypatch.setattr(vault.catalog, "write", watched)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.commit, IngestCommit(chunks=chunks, blobs=blobs))
        while not vault.catalog.get(Family.BLOB, b"\x09" + blobs[-1].hash):
            await trio.lowlevel.checkpoint()
            turns += 1
    # A slice, and the row of the pack.
    assert max(count for _, count, _ in written) <= SLICE + 1
    # Two at most: trio runs the tasks of one turn in any order, so another may come last in one and first in the next.
    assert max(Counter(turn for turn, _, _ in written).values()) <= 2
    # What is referred to comes first: a kill in between leaves nothing that leads nowhere.
    assert [Family.BLOB in families for _, _, families in written] == [False] * 16 + [True] * 16
    check_accounts(vault)
    sender.end()


async def test_a_pack_is_made_in_a_thread(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    made_in: list[int] = []
    create = vault.packs.create

    def watched(number: int) -> int:
        made_in.append(threading.get_ident())
        return create(number)

    monkeypatch.setattr(vault.packs, "create", watched)
    grant = await vault.grants.grant("a", 1 << 20)
    os.close(grant.descriptor)
    assert made_in != [threading.get_ident()]
    assert vault.grants.belongs_to(grant.number, "a")
    assert vault.reservations.reserved_bytes == 1 << 20
    vault.end_holder("a")
    assert vault.reservations.reserved_bytes == 0


async def test_a_pack_that_cannot_be_made_reserves_nothing(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int) -> int:
        raise DiskFull(number, OSError(errno.ENOSPC, "full"))

    monkeypatch.setattr(vault.packs, "create", refuse)
    with pytest.raises(DiskFull):
        await vault.grants.grant("a", 1 << 20)
    assert vault.reservations.reserved_bytes == 0
