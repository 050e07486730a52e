"""Kinds of damage: each is planted in a stopped vault by one function, and told what may be lost with it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from tvfs.catalog.catalog import Batch, Family, prefix_end
from tvfs.catalog.rocks import RocksCatalog
from tvfs.chunks.chunk_row import ChunkRow, ChunkState, decode_chunk_row, encode_chunk_row
from tvfs.content.manifest import Manifest
from tvfs.content.tree_index import decode_root
from tvfs.filesystem.directories import Dirent, decode_dirent, encode_dirent
from tvfs.filesystem.inode import Inode, changed
from tvfs.filesystem.model import KEYS, ROOT, WORK
from tvfs.filesystem.ranges import AttachedRange
from tvfs.packs.pack_row import PackRow, decode_pack_row, encode_pack_row
from tvfs.vault.counting import encode_count
from tvfs.vault.layout import Layout
from tvfs.vault.runs import RunState
from tvfs.vault.stored_entry import decode_entry


class Damage(NamedTuple):
    """One kind."""

    name: str
    plant: Callable[[Path], None]
    found_by: str
    """Check that must report it."""
    may_lose: tuple[str, ...] = ()
    """Beginnings of the places (as `read_everything` calls them) that need not be what they were."""
    gains: tuple[str, ...] = ()
    """Beginnings of places that may be new."""
    lasting: bool = False
    """It is reported each time."""
    options: Mapping[str, bool] = MappingProxyType({})


@contextmanager
def rows(home: Path) -> Iterator[RocksCatalog]:
    catalog = RocksCatalog(home / "meta")
    try:
        yield catalog
    finally:
        catalog.close()


def put(home: Path, family: Family, key: bytes, value: bytes) -> None:
    with rows(home) as catalog:
        batch = Batch()
        batch.put(family, key, value)
        catalog.write(batch)


def delete(home: Path, family: Family, *keys: bytes) -> None:
    with rows(home) as catalog:
        batch = Batch()
        for key in keys:
            batch.delete(family, key)
        catalog.write(batch)


def all_rows(home: Path, family: Family, prefix: bytes = b"") -> list[tuple[bytes, bytes]]:
    with rows(home) as catalog:
        return list(catalog.scan(family, prefix, prefix_end(prefix) if prefix else None))


def ino_of(home: Path, path: str) -> int:
    """Follow dirent rows from the root; what is only in attached trees is not found."""
    ino = int(ROOT)
    with rows(home) as catalog:
        for part in path.split("/"):
            row = catalog.get(Family.DIRENT, ino.to_bytes(8, "big") + part.encode())
            assert row is not None, path
            ino = decode_dirent(row).child
    return ino


def inode_of(home: Path, ino: int) -> Inode:
    with rows(home) as catalog:
        row = catalog.get(Family.INODE, ino.to_bytes(8, "big"))
    assert row is not None
    return Inode.decode(row)


def set_inode(home: Path, path: str, **fields: object) -> None:
    ino = ino_of(home, path)
    put(home, Family.INODE, ino.to_bytes(8, "big"), changed(inode_of(home, ino), **fields).encode())


def key(ino: int) -> bytes:
    return ino.to_bytes(8, "big")


def chunk_of(home: Path, path: str) -> bytes:
    """The only chunk of a file, or the first of its manifest."""
    inode = inode_of(home, ino_of(home, path))
    if inode.state == 2:
        return inode.hash
    row = dict(all_rows(home, Family.BLOB))[b"\x09" + inode.hash]
    with rows(home) as catalog:
        root = Manifest(row)
        first = next(iter(root.items()))[1]
        return first if root.level == 0 else next(iter(Manifest(catalog.get(Family.PAGE, first) or b"").items()))[1]


def large_chunk(home: Path) -> bytes:
    """The first chunk of the file that has a paged manifest."""
    page = next(iter(Manifest(_paged(home)[1]).items()))[1]
    return next(iter(Manifest(dict(all_rows(home, Family.PAGE))[page]).items()))[1]


def chunk_row(home: Path, chunk_id: bytes) -> ChunkRow:
    return decode_chunk_row(dict(all_rows(home, Family.CHUNK))[chunk_id])


def entry_index(home: Path, row_key: bytes) -> bytes:
    snapshot = decode_entry(row_key, dict(all_rows(home, Family.ENTRY))[row_key]).snapshot
    assert snapshot is not None
    return snapshot.index


def tree_hash(home: Path, row_key: bytes) -> bytes:
    index = entry_index(home, row_key)
    return decode_root(index, dict(all_rows(home, Family.TREE))[index]).tree_hash


def flip(path: Path, offset: int, bits: int = 0x10) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ bits]))


def flip_record(home: Path, chunk_id: bytes, at: int) -> None:
    location = chunk_row(home, chunk_id).location
    flip(Layout(home).pack(location.pack), location.offset + at)


def first_pack(home: Path) -> Path:
    return sorted((home / "packs").iterdir())[0]


# --- rows and records of chunks ---------------------------------------------------------------------------------------


def chunk_row_gone(home: Path) -> None:
    delete(home, Family.CHUNK, chunk_of(home, "work/plain/small"))


def chunk_row_elsewhere(home: Path) -> None:
    chunk_id = chunk_of(home, "work/plain/small")
    row = chunk_row(home, chunk_id)
    location = type(row.location)(row.location.pack, row.location.offset + 8, *_lengths(row))
    put(home, Family.CHUNK, chunk_id, encode_chunk_row(ChunkRow(location)))


def chunk_row_of_wrong_length(home: Path) -> None:
    chunk_id = chunk_of(home, "work/plain/small")
    row = chunk_row(home, chunk_id)
    at = row.location
    put(
        home, Family.CHUNK, chunk_id,
        encode_chunk_row(ChunkRow(type(at)(at.pack, at.offset, at.stored_bytes + 1, at.raw_bytes, at.codec))),
    )  # fmt: skip


def chunk_row_unreadable(home: Path) -> None:
    put(home, Family.CHUNK, chunk_of(home, "work/plain/small"), b"\x01nonsense")


def chunk_dead_and_wanted(home: Path) -> None:
    chunk_id = chunk_of(home, "work/plain/small")
    put(home, Family.CHUNK, chunk_id, encode_chunk_row(ChunkRow(chunk_row(home, chunk_id).location, ChunkState.DEAD)))


def _lengths(row: ChunkRow) -> tuple[int, int, int]:
    return row.location.stored_bytes, row.location.raw_bytes, row.location.codec


def payload_flipped(home: Path) -> None:
    flip_record(home, large_chunk(home), 60)


def record_header_flipped(home: Path) -> None:
    flip_record(home, chunk_of(home, "work/plain/small"), 0)


def payload_and_checksum_replaced(home: Path) -> None:
    """Bytes that their checksums call good and their hash does not."""
    from tvfs.packs.record import RecordHeader, encode_record_header, payload_crc

    chunk_id = large_chunk(home)
    at = chunk_row(home, chunk_id).location
    payload = bytes(at.stored_bytes)
    header = RecordHeader(chunk_id, at.codec, at.raw_bytes, at.stored_bytes, payload_crc(payload))  # type: ignore[arg-type]
    with Layout(home).pack(at.pack).open("r+b") as pack:
        pack.seek(at.offset)
        pack.write(encode_record_header(header) + payload)


# --- packs ------------------------------------------------------------------------------------------------------------


def pack_row_gone(home: Path) -> None:
    delete(home, Family.PACK, all_rows(home, Family.PACK)[0][0])


def pack_row_of_wrong_figures(home: Path) -> None:
    row_key, row = all_rows(home, Family.PACK)[0]
    known = decode_pack_row(row)
    put(home, Family.PACK, row_key, encode_pack_row(PackRow(known.committed_bytes, known.live_bytes + 77)))


def pack_row_too_short(home: Path) -> None:
    row_key, row = all_rows(home, Family.PACK)[0]
    put(home, Family.PACK, row_key, encode_pack_row(PackRow(4096, decode_pack_row(row).live_bytes)))


def pack_row_without_file(home: Path) -> None:
    put(home, Family.PACK, (9999).to_bytes(8, "big"), encode_pack_row(PackRow(100, 0)))
    put(home, Family.SYS, b"next_pack", (10000).to_bytes(8, "big"))


def torn_tail(home: Path) -> None:
    with first_pack(home).open("ab") as pack:
        pack.write(b"TVc1 half a record")


def pack_header_damaged(home: Path) -> None:
    flip(first_pack(home), 2)


def foreign_pack(home: Path) -> None:
    copy = bytearray(first_pack(home).read_bytes())
    copy[24:40] = b"another vault's."
    copy[16:24] = (500).to_bytes(8, "big")
    (home / "packs" / f"{500:016x}.pack").write_bytes(copy)
    put(home, Family.SYS, b"next_pack", (600).to_bytes(8, "big"))


def duplicate_pack(home: Path) -> None:
    shutil.copyfile(first_pack(home), home / "packs" / f"{501:016x}.pack")
    put(home, Family.SYS, b"next_pack", (600).to_bytes(8, "big"))


def stray_file_among_packs(home: Path) -> None:
    (home / "packs" / "notes.txt").write_text("mine")


def pack_cut_short(home: Path) -> None:
    """The end of the pack in which a file of its own lies."""
    at = chunk_row(home, chunk_of(home, "work/attached/added")).location
    os.truncate(Layout(home).pack(at.pack), at.offset + 60)


def all_packs_gone(home: Path) -> None:
    for pack in (home / "packs").iterdir():
        pack.unlink()


# --- manifests --------------------------------------------------------------------------------------------------------


def _paged(home: Path) -> tuple[bytes, bytes]:
    return next((k, row) for k, row in all_rows(home, Family.BLOB) if Manifest(row).level == 1)


def page_gone(home: Path) -> None:
    delete(home, Family.PAGE, next(iter(Manifest(_paged(home)[1]).items()))[1])


def page_changed(home: Path) -> None:
    page_hash = next(iter(Manifest(_paged(home)[1]).items()))[1]
    row = bytearray(dict(all_rows(home, Family.PAGE))[page_hash])
    row[40] ^= 1
    put(home, Family.PAGE, page_hash, bytes(row))


def blob_gone(home: Path) -> None:
    delete(home, Family.BLOB, _paged(home)[0])


def blob_unreadable(home: Path) -> None:
    put(home, Family.BLOB, _paged(home)[0], b"\x01\x07")


def blob_of_other_content(home: Path) -> None:
    """A manifest that is one, of chunks that are there, under the hash of something else."""
    blobs = [(k, row) for k, row in all_rows(home, Family.BLOB) if Manifest(row).level == 0]
    inode = inode_of(home, ino_of(home, "work/attached/added"))
    mine = b"\x09" + inode.hash
    items = list(Manifest(dict(blobs)[mine]).items())
    items[0], items[1] = items[1], items[0]
    header = dict(blobs)[mine][:16]
    import struct

    put(home, Family.BLOB, mine, header + b"".join(struct.pack(">I32s", *item) for item in items))


# --- trees ------------------------------------------------------------------------------------------------------------

DEPS = b"main\0deps-linux-1"


def tree_root_gone(home: Path) -> None:
    delete(home, Family.TREE, entry_index(home, DEPS))


def inner_tree_gone(home: Path) -> None:
    delete(home, Family.TREE, entry_index(home, b"pr/7\0other"))


def every_tree_gone(home: Path) -> None:
    delete(home, Family.TREE, *[k for k, _ in all_rows(home, Family.TREE)])
    delete(home, Family.TREEPAGE, *[k for k, _ in all_rows(home, Family.TREEPAGE)])


def tree_root_unreadable(home: Path) -> None:
    put(home, Family.TREE, entry_index(home, DEPS), b"\x93\x01")


def tree_page_gone(home: Path) -> None:
    delete(home, Family.TREEPAGE, entry_index(home, b"pr/7\0other") + (1).to_bytes(4, "big"))


def tree_page_lies(home: Path) -> None:
    """Another file's content under a name: rows that are whole, and say what is not true."""
    page_key = entry_index(home, b"pr/7\0other") + (0).to_bytes(4, "big")
    page = msgspec.msgpack.decode(dict(all_rows(home, Family.TREEPAGE))[page_key])
    page[1][3][8], page[1][4][8] = page[1][4][8], page[1][3][8]
    put(home, Family.TREEPAGE, page_key, msgspec.msgpack.encode(page))


def tree_root_lies(home: Path) -> None:
    index = entry_index(home, b"pr/7\0other")
    root = msgspec.msgpack.decode(dict(all_rows(home, Family.TREE))[index])
    root[13] += 1  # files
    root[12] += 1  # below
    put(home, Family.TREE, index, msgspec.msgpack.encode(root))


def tree_page_too_many(home: Path) -> None:
    index = entry_index(home, b"main\0run-1")
    page = dict(all_rows(home, Family.TREEPAGE))[index + bytes(4)]
    put(home, Family.TREEPAGE, index + (5).to_bytes(4, "big"), page)


def directory_object_gone(home: Path) -> None:
    """The canonical Directory, of which the index still tells everything."""
    chunk_id = tree_hash(home, b"main\0run-1")
    flip_record(home, chunk_id, 56 + 3)


# --- entries ----------------------------------------------------------------------------------------------------------


def entry_unreadable(home: Path) -> None:
    put(home, Family.ENTRY, b"pr/7\0other", b"\x01\xff\xff")


def entry_of_other_key(home: Path) -> None:
    stored = dict(all_rows(home, Family.ENTRY))
    put(home, Family.ENTRY, b"pr/7\0other", stored[DEPS])


def entry_tells_other_figures(home: Path) -> None:
    import dataclasses  # noqa: F401

    from tvfs.vault.stored_entry import encode_entry

    entry = decode_entry(DEPS, dict(all_rows(home, Family.ENTRY))[DEPS])
    assert entry.snapshot is not None
    lying = msgspec.structs.replace(entry, snapshot=msgspec.structs.replace(entry.snapshot, files=1))
    put(home, Family.ENTRY, DEPS, encode_entry(lying))


def content_of_an_entry_gone(home: Path) -> None:
    """A chunk that only the result of a run has."""
    index = entry_index(home, b"main\0run-1")
    page = msgspec.msgpack.decode(dict(all_rows(home, Family.TREEPAGE))[index + bytes(4)])
    flip_record(home, page[1][0][8], 58)


def usage_rows_gone(home: Path) -> None:
    delete(home, Family.USAGE, *[k for k, _ in all_rows(home, Family.USAGE)])


def usage_row_of_nothing(home: Path) -> None:
    put(home, Family.USAGE, b"\x01" + bytes(8) + b"main\0gone", b"")


def entry_sums_wrong(home: Path) -> None:
    from tvfs.vault.entry_totals import ROW, EntryTotals, encode_totals

    put(home, Family.SYS, ROW, encode_totals(EntryTotals(99, 99, 99)))


# --- views ------------------------------------------------------------------------------------------------------------


def view_gone(home: Path) -> None:
    scope = ino_of(home, "keys/main")
    delete(home, Family.DIRENT, key(scope) + b"deps-linux-1")


def view_of_nothing(home: Path) -> None:
    delete(home, Family.ENTRY, b"pr/7\0other")


def view_of_another_tree(home: Path) -> None:
    ino = ino_of(home, "keys/main/deps-linux-1")
    other = inode_of(home, ino_of(home, "keys/pr%2F7/other"))
    inode = inode_of(home, ino)
    put(home, Family.INODE, key(ino), changed(inode, hash=other.hash, entries=other.entries).encode())


def run_view_of_nothing(home: Path) -> None:
    delete(home, Family.SYS, *[k for k, _ in all_rows(home, Family.SYS, b"run:")])


# --- names ------------------------------------------------------------------------------------------------------------


def name_gone(home: Path) -> None:
    delete(home, Family.DIRENT, key(ino_of(home, "work/plain")) + b"medium")


def directory_name_gone(home: Path) -> None:
    delete(home, Family.DIRENT, key(ino_of(home, "work/plain")) + b"sub")


def directory_inode_gone(home: Path) -> None:
    delete(home, Family.INODE, key(ino_of(home, "work/plain/sub")))


def file_inode_gone(home: Path) -> None:
    delete(home, Family.INODE, key(ino_of(home, "work/plain/medium")))


def inode_unreadable(home: Path) -> None:
    put(home, Family.INODE, key(ino_of(home, "work/plain/medium")), b"\x01short")


def dirent_unreadable(home: Path) -> None:
    put(home, Family.DIRENT, key(ino_of(home, "work/plain")) + b"medium", b"\x01")


def dirent_of_impossible_name(home: Path) -> None:
    child = ino_of(home, "work/plain/medium")
    put(home, Family.DIRENT, key(ino_of(home, "work/plain")) + b"a/b", encode_dirent(Dirent(8, child, 5)))


def dirent_tells_other_type(home: Path) -> None:
    child = ino_of(home, "work/plain/medium")
    put(home, Family.DIRENT, key(ino_of(home, "work/plain")) + b"medium", encode_dirent(Dirent(10, child, 5)))


def link_count_wrong(home: Path) -> None:
    set_inode(home, "work/plain/one", nlink=7)


def entries_count_wrong(home: Path) -> None:
    set_inode(home, "work/plain", entries=99)


def directory_links_wrong(home: Path) -> None:
    set_inode(home, "work/plain", nlink=9)


def parent_wrong(home: Path) -> None:
    set_inode(home, "work/plain/sub", parent=int(KEYS))


def ring_of_directories(home: Path) -> None:
    """`sub` is taken from its place and put below itself."""
    sub, deep = ino_of(home, "work/plain/sub"), ino_of(home, "work/plain/sub/deep")
    plain = ino_of(home, "work/plain")
    delete(home, Family.DIRENT, key(plain) + b"sub")
    put(home, Family.DIRENT, key(deep) + b"sub", encode_dirent(Dirent(4, sub, 5)))
    put(home, Family.INODE, key(sub), changed(inode_of(home, sub), parent=deep).encode())


def second_name_of_directory(home: Path) -> None:
    sub = ino_of(home, "work/plain/sub")
    put(home, Family.DIRENT, key(int(WORK)) + b"again", encode_dirent(Dirent(4, sub, 5)))


def whiteout_of_nothing(home: Path) -> None:
    attached = ino_of(home, "work/attached")
    put(home, Family.DIRENT, key(attached) + b"never there", encode_dirent(Dirent(0, 0, 5)))


def deltas_unknown(home: Path) -> None:
    set_inode(home, "work/attached", flags=0)


def orphan_that_has_a_name(home: Path) -> None:
    put(home, Family.ORPHAN, key(ino_of(home, "work/plain/medium")), b"")


def orphan_left(home: Path) -> None:
    template = inode_of(home, ino_of(home, "work/plain/medium"))
    put(home, Family.INODE, key(5000), changed(template, nlink=0).encode())
    put(home, Family.ORPHAN, key(5000), b"")
    put(home, Family.SYS, b"next_ino", (6000).to_bytes(8, "big"))


def xattr_of_nothing(home: Path) -> None:
    put(home, Family.XATTR, key(ino_of(home, "work/plain/medium")) + b"user.x", b"1")


def fixed_directory_gone(home: Path) -> None:
    delete(home, Family.INODE, key(int(WORK)))


def root_does_not_lead_to_work(home: Path) -> None:
    delete(home, Family.DIRENT, key(int(ROOT)) + b"work")


# --- ranges -----------------------------------------------------------------------------------------------------------


def _range(home: Path, path: str) -> tuple[bytes, AttachedRange]:
    range_key = key(ino_of(home, path))
    return range_key, msgspec.msgpack.decode(dict(all_rows(home, Family.RANGE))[range_key], type=AttachedRange)


def range_gone(home: Path) -> None:
    delete(home, Family.RANGE, _range(home, "work/attached")[0])


def range_unreadable(home: Path) -> None:
    put(home, Family.RANGE, _range(home, "work/attached")[0], b"\xc1")


def range_too_long(home: Path) -> None:
    range_key, attached = _range(home, "keys/main/deps-linux-1")
    longer = msgspec.structs.replace(attached, count=attached.count + 50)
    put(home, Family.RANGE, range_key, msgspec.msgpack.encode(longer))


def range_of_nothing(home: Path) -> None:
    _, attached = _range(home, "work/attached")
    stray = msgspec.structs.replace(attached, first=500_000)
    put(home, Family.RANGE, key(500_000), msgspec.msgpack.encode(stray))
    put(home, Family.SYS, b"next_ino", (600_000).to_bytes(8, "big"))


def overlapping_ranges(home: Path) -> None:
    _, attached = _range(home, "work/attached")
    inside = msgspec.structs.replace(attached, first=attached.first + 3)
    put(home, Family.RANGE, key(attached.first + 3), msgspec.msgpack.encode(inside))


def base_tree_lost(home: Path) -> None:
    """A directory in `work/` says that it was attached by a tree that nobody has."""
    range_key, attached = _range(home, "work/attached")
    nowhere = b"\x77" * 32
    put(home, Family.RANGE, range_key, msgspec.msgpack.encode(msgspec.structs.replace(attached, index=nowhere)))
    set_inode(home, "work/attached", hash=nowhere)


# --- staging ----------------------------------------------------------------------------------------------------------


def staging_row_gone(home: Path) -> None:
    delete(home, Family.STAGING, key(ino_of(home, "work/staged")))


def staging_row_of_a_base_gone(home: Path) -> None:
    delete(home, Family.STAGING, key(ino_of(home, "work/plain/large")))


def staging_row_of_nothing(home: Path) -> None:
    row = dict(all_rows(home, Family.STAGING))[key(ino_of(home, "work/staged"))]
    put(home, Family.STAGING, key(ino_of(home, "work/plain/medium")), row)


def staging_row_unreadable(home: Path) -> None:
    put(home, Family.STAGING, key(ino_of(home, "work/staged")), b"\xc1")


def staging_file_gone(home: Path) -> None:
    ino = ino_of(home, "work/plain/large")
    for path in Layout(home).staging_directory(ino).glob(f"{ino:016x}.*"):
        path.unlink()


def stray_staging_file(home: Path) -> None:
    (home / "staging" / "05").mkdir(exist_ok=True)
    (home / "staging" / "05" / f"{0x99905:016x}.7").write_text("left")


# --- counters, counts, history, the vault itself ----------------------------------------------------------------------


def counter_behind(home: Path) -> None:
    put(home, Family.SYS, b"next_ino", (64).to_bytes(8, "big"))


def seq_counter_gone(home: Path) -> None:
    delete(home, Family.SYS, b"next_seq")


def pack_counter_unreadable(home: Path) -> None:
    put(home, Family.SYS, b"next_pack", b"x")


def reference_count_low(home: Path) -> None:
    counted = [(k, v) for k, v in all_rows(home, Family.REF) if k[0] == 1]
    put(home, Family.REF, counted[0][0], encode_count(90))


def reference_count_gone(home: Path) -> None:
    delete(home, Family.REF, b"\x01" + chunk_of(home, "work/plain/small"))


def doomed_and_wanted(home: Path) -> None:
    put(home, Family.DOOMED, b"\x01" + chunk_of(home, "work/plain/small"), b"")


def unwanted_and_unknown(home: Path) -> None:
    """An entry's row goes by itself: what it kept is not known as unwanted."""
    index = entry_index(home, b"main\0run-1")
    delete(home, Family.ENTRY, b"main\0run-1")
    delete(home, Family.REF, b"\x04" + index)


def codec_row_gone(home: Path) -> None:
    delete(home, Family.SYS, *[k for k, _ in all_rows(home, Family.SYS, b"codec:")])


def run_record_unreadable(home: Path) -> None:
    put(home, Family.RUN, (77).to_bytes(8, "big"), b"\xc1")


def tags_of_no_run(home: Path) -> None:
    number = (77).to_bytes(8, "big")
    put(home, Family.SYS, b"runtag:12345678" + number, b"")
    put(home, Family.SYS, b"runtags:" + number, b"12345678")


def history_counted_wrong(home: Path) -> None:
    put(home, Family.SYS, b"runstate", msgspec.msgpack.encode(RunState(1, 1 << 40, 0, 1)))


def superblock_gone(home: Path) -> None:
    delete(home, Family.SYS, b"superblock")


def format_gone(home: Path) -> None:
    (home / "format").unlink()


def manifest_of_rocksdb_gone(home: Path) -> None:
    for path in (home / "meta").glob("MANIFEST*"):
        path.unlink()


def current_of_rocksdb_gone(home: Path) -> None:
    (home / "meta" / "CURRENT").unlink()


def audit_record_changed(home: Path) -> None:
    row_key, row = all_rows(home, Family.AUDIT)[1]
    record = msgspec.msgpack.decode(row)
    record[6] = "somebody else"
    put(home, Family.AUDIT, row_key, msgspec.msgpack.encode(record))


LOST_FOUND = ("work/lost+found",)
RUN_ENTRY = ("entry main/run-1", "runs/")
DEPS_ENTRIES = ("entry main/deps", "entry .snapshots", "keys/main/deps", "snapshots/kept")
LARGE = ("work/plain/large", "work/attached/large")

DAMAGES = [
    Damage("chunk row gone", chunk_row_gone, "content"),
    Damage("chunk row elsewhere", chunk_row_elsewhere, "chunks"),
    Damage("chunk row of wrong length", chunk_row_of_wrong_length, "chunks"),
    Damage("chunk row unreadable", chunk_row_unreadable, "chunks"),
    Damage("chunk dead and wanted", chunk_dead_and_wanted, "content"),
    Damage("payload flipped", payload_flipped, "chunks", (*LARGE, *DEPS_ENTRIES)),
    Damage("record header flipped", record_header_flipped, "chunks"),
    Damage("payload and checksum replaced", payload_and_checksum_replaced, "chunks", (*LARGE, *DEPS_ENTRIES),
           options={"content": True}),
    Damage("pack row gone", pack_row_gone, "packs"),
    Damage("pack row of wrong figures", pack_row_of_wrong_figures, "packs"),
    Damage("pack row too short", pack_row_too_short, "packs"),
    Damage("pack row without file", pack_row_without_file, "packs"),
    Damage("torn tail", torn_tail, "packs"),
    Damage("pack header damaged", pack_header_damaged, "pack files"),
    Damage("foreign pack", foreign_pack, "pack files"),
    Damage("duplicate pack", duplicate_pack, "pack files"),
    Damage("stray file among packs", stray_file_among_packs, "pack files"),
    Damage("pack cut short", pack_cut_short, "chunks", ("work/attached/added",)),
    Damage("all packs gone", all_packs_gone, "chunks", ("work/", "keys/", "runs/", "snapshots/", "entry ")),
    Damage("page gone", page_gone, "content", (*LARGE, *DEPS_ENTRIES)),
    Damage("page changed", page_changed, "manifests", (*LARGE, *DEPS_ENTRIES)),
    Damage("blob gone", blob_gone, "content", (*LARGE, *DEPS_ENTRIES)),
    Damage("blob unreadable", blob_unreadable, "manifests", (*LARGE, *DEPS_ENTRIES)),
    Damage("blob of other content", blob_of_other_content, "manifests", ("work/attached/added",),
           options={"content": True}),
    Damage("tree root gone", tree_root_gone, "trees"),
    Damage("inner tree gone", inner_tree_gone, "trees"),
    Damage("every tree gone", every_tree_gone, "trees"),
    Damage("tree root unreadable", tree_root_unreadable, "trees"),
    Damage("tree page gone", tree_page_gone, "trees"),
    Damage("tree page lies", tree_page_lies, "trees"),
    Damage("tree root lies", tree_root_lies, "trees"),
    Damage("tree page too many", tree_page_too_many, "trees"),
    Damage("Directory object damaged", directory_object_gone, "chunks"),
    Damage("entry unreadable", entry_unreadable, "entries", ("entry pr/7/other", "keys/pr%2F7/other")),
    Damage("entry of other key", entry_of_other_key, "entries", ("entry pr/7/other", "keys/pr%2F7/other")),
    Damage("entry tells other figures", entry_tells_other_figures, "entries"),
    Damage("content of an entry gone", content_of_an_entry_gone, "entries", (*RUN_ENTRY, "work/result")),
    Damage("usage rows gone", usage_rows_gone, "usage"),
    Damage("usage row of nothing", usage_row_of_nothing, "usage"),
    Damage("entry sums wrong", entry_sums_wrong, "usage"),
    Damage("view gone", view_gone, "views", gains=LOST_FOUND),
    Damage("view of nothing", view_of_nothing, "views", ("entry pr/7/other", "keys/pr%2F7/other")),
    Damage("view of another tree", view_of_another_tree, "views", gains=LOST_FOUND),
    Damage("run view of nothing", run_view_of_nothing, "views", ("runs/",)),
    Damage("name gone", name_gone, "names", ("work/plain/medium",), LOST_FOUND),
    Damage("directory's name gone", directory_name_gone, "names", ("work/plain/sub",), LOST_FOUND),
    Damage("directory's inode gone", directory_inode_gone, "names", ("work/plain/sub",), LOST_FOUND),
    Damage("file's inode gone", file_inode_gone, "names", ("work/plain/medium",)),
    Damage("inode unreadable", inode_unreadable, "names", ("work/plain/medium",)),
    Damage("dirent unreadable", dirent_unreadable, "names", ("work/plain/medium",), LOST_FOUND),
    Damage("dirent of impossible name", dirent_of_impossible_name, "names"),
    Damage("dirent tells other type", dirent_tells_other_type, "names"),
    Damage("link count wrong", link_count_wrong, "names"),
    Damage("count of entries wrong", entries_count_wrong, "names"),
    Damage("links of directory wrong", directory_links_wrong, "names"),
    Damage("parent wrong", parent_wrong, "names"),
    Damage("ring of directories", ring_of_directories, "names", ("work/plain/sub",), LOST_FOUND),
    Damage("second name of directory", second_name_of_directory, "names"),
    Damage("whiteout of nothing", whiteout_of_nothing, "names"),
    Damage("deltas unknown", deltas_unknown, "names"),
    Damage("orphan that has a name", orphan_that_has_a_name, "names"),
    Damage("orphan left", orphan_left, "names"),
    Damage("extended attribute of nothing", xattr_of_nothing, "names"),
    Damage("fixed directory gone", fixed_directory_gone, "names"),
    Damage("root does not lead to work", root_does_not_lead_to_work, "names"),
    Damage("range gone", range_gone, "ranges"),
    Damage("range unreadable", range_unreadable, "ranges"),
    Damage("range too long", range_too_long, "ranges"),
    Damage("range of nothing", range_of_nothing, "ranges"),
    Damage("overlapping ranges", overlapping_ranges, "ranges"),
    Damage("base tree lost", base_tree_lost, "ranges", ("work/attached", "work/moved"), LOST_FOUND),
    Damage("staging row gone", staging_row_gone, "staging"),
    Damage("staging row of a base gone", staging_row_of_a_base_gone, "staging", ("work/plain/large",)),
    Damage("staging row of nothing", staging_row_of_nothing, "staging"),
    Damage("staging row unreadable", staging_row_unreadable, "staging"),
    Damage("staging file gone", staging_file_gone, "staging", ("work/plain/large",)),
    Damage("stray staging file", stray_staging_file, "staging"),
    Damage("inode counter behind", counter_behind, "counters"),
    Damage("seq counter gone", seq_counter_gone, "counters"),
    Damage("pack counter unreadable", pack_counter_unreadable, "counters"),
    Damage("reference count wrong", reference_count_low, "references"),
    Damage("reference count gone", reference_count_gone, "references"),
    Damage("doomed and wanted", doomed_and_wanted, "references"),
    Damage("unwanted and unknown", unwanted_and_unknown, "references", RUN_ENTRY),
    Damage("codec row gone", codec_row_gone, "packs"),
    Damage("run record unreadable", run_record_unreadable, "history"),
    Damage("tags of no run", tags_of_no_run, "history"),
    Damage("history counted wrong", history_counted_wrong, "history"),
    Damage("superblock gone", superblock_gone, "superblock"),
    Damage("format gone", format_gone, "home"),
    Damage("RocksDB's manifest gone", manifest_of_rocksdb_gone, "catalog"),
    Damage("RocksDB's CURRENT gone", current_of_rocksdb_gone, "catalog"),
    Damage("audit record changed", audit_record_changed, "audit", lasting=True),
]  # fmt: skip
