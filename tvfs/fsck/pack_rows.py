"""Rows of packs, made again from the chunk rows that point into them; and files that no row needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from tvfs.catalog.catalog import Batch, Family
from tvfs.chunks.chunk_index import CODEC_IN_USE
from tvfs.chunks.chunk_row import ChunkState, decode_chunk_row
from tvfs.chunks.encoding import RAW_CODEC
from tvfs.fsck.examination import Examination
from tvfs.fsck.finding import Finding, Step
from tvfs.fsck.pack_files import set_aside
from tvfs.packs.pack_reader import record_bytes
from tvfs.packs.pack_row import PackRow, decode_pack_row, encode_pack_row, pack_key, pack_number
from tvfs.packs.record import PACK_HEADER_BYTES

CHECK = "packs"
_ROW_BYTES = 20


class _Pointed:
    """What chunk rows say of each pack: live bytes, and where the last record ends.  100 bytes a pack."""

    def __init__(self, exam: Examination) -> None:
        self.live: dict[int, int] = {}
        self.end: dict[int, int] = {}
        self.codecs: set[int] = set()
        for _, row in exam.catalog.scan(Family.CHUNK):
            known = decode_chunk_row(row)
            if known.state is ChunkState.QUARANTINED:
                continue
            at = known.location
            length = record_bytes(at)
            self.codecs.add(at.codec)
            self.end[at.pack] = max(self.end.get(at.pack, 0), at.offset + length)
            if known.state is ChunkState.LIVE:
                self.live[at.pack] = self.live.get(at.pack, 0) + length


def check_pack_rows(exam: Examination) -> Iterator[Step]:
    """Yield what makes rows of packs true, cuts torn tails and removes packs in which nothing was ever committed."""
    pointed = _Pointed(exam)
    yield from _check_codecs(exam, pointed)
    files = exam.pack_numbers()
    for number in files:
        yield from _check_pack(exam, pointed, number)
    there = set(files)
    for key, _ in exam.catalog.scan(Family.PACK):
        if len(key) != 8 or pack_number(key) not in there:
            batch = Batch()
            batch.delete(Family.PACK, key)
            yield Step(Finding(CHECK, f"pack {key.hex()}", "it has a row and no file", "row removed"), batch)


def _check_codecs(exam: Examination, pointed: _Pointed) -> Iterator[Step]:
    for codec in sorted(pointed.codecs - {RAW_CODEC}):
        key = CODEC_IN_USE + bytes([codec])
        if exam.catalog.get(Family.SYS, key) is None:
            batch = Batch()
            batch.put(Family.SYS, key, b"")
            what = "chunks were compressed by it, and no row says so"
            yield Step(Finding(CHECK, f"codec {codec}", what, "a row says so"), batch)


def _check_pack(exam: Examination, pointed: _Pointed, number: int) -> Iterator[Step]:
    where = f"pack {number:016x}"
    row = exam.catalog.get(Family.PACK, pack_key(number))
    known = decode_pack_row(row) if row is not None and len(row) == _ROW_BYTES else None
    end, live = pointed.end.get(number, 0), pointed.live.get(number, 0)
    length = exam.packs.size(number)
    if known is None and not end:
        after_stop = row is None and not (exam.clean or exam.rebuilt)
        batch = Batch()
        if row is not None:
            batch.delete(Family.PACK, pack_key(number))
        finding = Finding(CHECK, where, "nothing in it was ever committed", "removed", after_stop=after_stop)
        act: Callable[[], None] = partial(exam.packs.remove, number)
        if exam.rebuilt and length > PACK_HEADER_BYTES:  # nobody knows what was, and it is not what can be read
            finding = Finding(CHECK, where, "nothing in it can be read", "set aside")
            act = set_aside(exam, exam.layout.pack(number))
        yield Step(finding, batch, act)
        return
    committed = 0 if known is None else known.committed_bytes
    right = PackRow(min(max(committed, end, PACK_HEADER_BYTES), length), live)
    if known != right:
        batch = Batch()
        batch.put(Family.PACK, pack_key(number), encode_pack_row(right))
        yield Step(Finding(CHECK, where, _difference(known, right, length), "put right"), batch)
    if length > right.committed_bytes:
        surplus = length - right.committed_bytes
        cut: Callable[[], None] = partial(exam.packs.truncate, number, right.committed_bytes)
        what = f"{surplus} bytes at its end were never committed"
        yield Step(Finding(CHECK, where, what, "cut off", after_stop=not exam.clean), act=cut)


def _difference(known: PackRow | None, right: PackRow, length: int) -> str:
    if known is None:
        return "it has no row that can be read, and chunks lie in it"
    if known.committed_bytes > length:
        return f"it has {length} bytes and {known.committed_bytes} were committed"
    if known.committed_bytes != right.committed_bytes:
        return f"chunks lie beyond its {known.committed_bytes} committed bytes"
    return f"{right.live_bytes} bytes in it are live, and its row says {known.live_bytes}"
