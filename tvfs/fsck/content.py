"""What rows refer to is there, all the way down.

References go from trees to blobs, from blobs to pages, from pages to chunks.  Chunks that have no row and are referred
to are looked for in packs.  What is gone for good is noted once, in a row `lost:` of family `sys`; what is there but
some part of which is gone is remembered for the checks that follow.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from tvfs.catalog.catalog import Batch, Family, prefix_end
from tvfs.chunks.chunk_index import ChunkIndex
from tvfs.chunks.chunk_row import ChunkRow, ChunkState, decode_chunk_row, encode_chunk_row
from tvfs.digest import HASH_BYTES, ChunkId
from tvfs.fsck.chunks import find_records, index_unknown_records
from tvfs.fsck.examination import LOST, Examination
from tvfs.fsck.finding import Finding, Step
from tvfs.fsck.tree_rebuild import read_root
from tvfs.vault.references import CHUNK_KEY, TREE_KEY, Kind, describe, references_of, row_of_object

CHECK = "content"
_HOLDING_CHUNKS = (Family.PAGE, Family.BLOB, Family.TREE, Family.TREEPAGE, Family.INODE, Family.STAGING)
_HOLDING_OBJECTS = (Family.BLOB, Family.TREEPAGE, Family.RANGE, Family.INODE, Family.STAGING)


def check_chunks_wanted(exam: Examination) -> Iterator[Step]:
    """Yield what indexes records that something refers to, and makes dead chunks live that something refers to."""
    if exam.rebuilt:
        yield from index_unknown_records(exam, exam.pack_numbers())
    wanting = _chunks_not_live(exam)
    while part := dict(islice(wanting, exam.objects_at_a_time)):
        missing = {chunk_id for chunk_id, row in part.items() if row is None}
        for chunk_id, row in part.items():
            if row is not None:
                location = decode_chunk_row(row).location
                batch = Batch()
                batch.put(Family.CHUNK, chunk_id, encode_chunk_row(ChunkRow(location)))
                finding = Finding(CHECK, f"chunk {chunk_id.hex()}", "it is dead, and something refers to it", "live")
                yield Step(None if exam.rebuilt else finding, batch)
        for chunk_id, location in find_records(exam, missing):
            batch = Batch()
            ChunkIndex(exam.catalog).add(batch, {chunk_id: location})
            what = "something refers to it, and it has no row"
            remedy = f"its record at byte {location.offset} of pack {location.pack:016x} is indexed"
            yield Step(Finding(CHECK, f"chunk {chunk_id.hex()}", what, remedy), batch)


def check_content(exam: Examination) -> Iterator[Step]:
    """Yield what notes objects that are gone; fill `exam.damage`."""
    yield from _forget_stale_marks(exam)
    for key, row in exam.catalog.scan(Family.PAGE):
        if not all(exam.has_chunk(ref[1:]) for ref in _references(exam, Family.PAGE, key, row)):
            exam.damage.pages.add(key)
    for key, row in exam.catalog.scan(Family.BLOB):
        if not all(_part_is_whole(exam, ref) for ref in _references(exam, Family.BLOB, key, row)):
            exam.damage.blobs.add(key)
    for key, row in exam.catalog.scan(Family.TREEPAGE):
        if not all(_entry_is_whole(exam, ref) for ref in _references(exam, Family.TREEPAGE, key, row)):
            exam.damage.trees.add(key[:HASH_BYTES])
    _spread_upwards(exam)
    yield from _note_losses(exam)


def _chunks_not_live(exam: Examination) -> Iterator[tuple[bytes, bytes | None]]:
    """Yield chunks that something refers to and that are not live, with their row if they have one."""
    for family in _HOLDING_CHUNKS:
        for key, row in exam.catalog.scan(family):
            chunk_ids = _chunks_of(exam, family, key, row)
            for chunk_id, found in zip(chunk_ids, exam.catalog.get_many(Family.CHUNK, chunk_ids), strict=True):
                if found is None or decode_chunk_row(found).state is ChunkState.DEAD:
                    yield chunk_id, found


def _chunks_of(exam: Examination, family: Family, key: bytes, row: bytes) -> list[bytes]:
    references = _references(exam, family, key, row)
    chunk_ids = [ref[1:] for ref in references if ref[0] == Kind.CHUNK]
    if family is not Family.TREE:
        return chunk_ids
    # The root of a tree names digests: each is a chunk, or a blob with a manifest.
    return [each for each in chunk_ids if exam.catalog.get(Family.BLOB, exam.blob_key(each)) is None]


def _references(exam: Examination, family: Family, key: bytes, row: bytes) -> list[bytes]:
    return references_of(family, key, row, exam.hash_function.name)


def _part_is_whole(exam: Examination, reference: bytes) -> bool:
    if reference[:1] == CHUNK_KEY:
        return exam.has_chunk(reference[1:])
    page = reference[1:]
    return page not in exam.damage.pages and exam.catalog.get(Family.PAGE, page) is not None


def _entry_is_whole(exam: Examination, reference: bytes) -> bool:
    if reference[:1] == CHUNK_KEY:
        return exam.has_chunk(reference[1:])
    if reference[:1] == TREE_KEY:
        return exam.catalog.get(Family.TREE, reference[1:]) is not None
    blob = reference[1:]
    return blob not in exam.damage.blobs and exam.catalog.get(Family.BLOB, blob) is not None


def _spread_upwards(exam: Examination) -> None:
    """A tree with a subdirectory that is not whole is not whole: look at all until no more are found."""
    broken = exam.damage.trees
    count = -1
    while broken and count != len(broken):
        count = len(broken)
        for key, row in exam.catalog.scan(Family.TREEPAGE):
            if key[:HASH_BYTES] in broken:
                continue
            children = (ref[1:] for ref in _references(exam, Family.TREEPAGE, key, row) if ref[:1] == TREE_KEY)
            if any(child in broken for child in children):
                broken.add(key[:HASH_BYTES])


def _note_losses(exam: Examination) -> Iterator[Step]:
    for family in (Family.PAGE, *_HOLDING_OBJECTS):
        for key, row in exam.catalog.scan(family):
            for reference in _references(exam, family, key, row):
                yield from _note_loss(exam, reference, family, key)
    for key, _ in exam.catalog.scan(Family.TREE):
        root = read_root(exam, key)
        for hash_ in () if root is None else (root.tree_hash, root.attributes_hash):
            if hash_ and exam.catalog.get(Family.BLOB, exam.blob_key(hash_)) is None and not _is_empty(exam, hash_):
                yield from _note_loss(exam, CHUNK_KEY + hash_, Family.TREE, key)


def _note_loss(exam: Examination, reference: bytes, family: Family, key: bytes) -> Iterator[Step]:
    place = row_of_object(reference)
    mark = LOST + reference
    if exam.catalog.get(*place) is not None or exam.catalog.get(Family.SYS, mark) is not None:
        return
    exam.damage.fresh = True
    batch = Batch()
    batch.put(Family.SYS, mark, b"")
    exam.note(batch, "loss", key=reference.hex(), detail=describe(reference))
    what = f"it is gone, and {_referrer(family, key)} needs it"
    yield Step(
        Finding(CHECK, describe(reference), what, "noted as lost; saving the same content again heals it"), batch
    )


def _forget_stale_marks(exam: Examination) -> Iterator[Step]:
    for key, _ in exam.catalog.scan(Family.SYS, LOST, prefix_end(LOST)):
        reference = key[len(LOST) :]
        if reference[:1] in b"\x01\x02\x03\x04" and exam.catalog.get(*row_of_object(reference)) is None:
            continue
        batch = Batch()
        batch.delete(Family.SYS, key)
        yield Step(None, batch)


def _referrer(family: Family, key: bytes) -> str:
    if family in (Family.INODE, Family.RANGE, Family.STAGING):
        return f"inode {int.from_bytes(key, 'big')}"
    return f"{'tree' if family is Family.TREEPAGE else family.value} {key[:HASH_BYTES].hex()}"


def _is_empty(exam: Examination, hash_: bytes) -> bool:
    return ChunkId(hash_) == exam.hash_function.digest(b"")
