"""Every parser of bytes that come from others or from a disk, as a function of bytes.

The rule is the same for all: it returns, or raises the errors that it documents and nothing else, within the bounds of
`MOST_SECONDS` and `MOST_MIB`; and what it takes comes back the same where there is a way back.  Whoever adds a parser
adds a line to `TARGETS`.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import click
import msgspec
import trio

from taskvault.cli.byte_count import ByteCount
from taskvault.cli.duration import LONGEST_S, Duration
from taskvault.protocol import framing
from taskvault.protocol import messages as m
from taskvault.run.outputs import parse_outputs
from taskvault.run.patterns import PatternInvalid, PatternSet
from taskvault.run.places import Place, Places
from taskvault.run.project import ProjectInvalid, ProjectRules, parse_rules
from taskvault.run.replay import ResultUnusable, read_result
from tests.fuzz import seeds
from tests.fuzz.filesystem_calls import play
from tests.unit.content.foreign import MemorySource
from tvd import config_file, config_report
from tvfs.catalog.catalog import Family
from tvfs.chunks.chunk_row import decode_chunk_row, encode_chunk_row
from tvfs.chunks.encoding import CodecUnknown, decode_chunk
from tvfs.content.attributes import AttributesInvalid, decode_attributes, encode_attributes
from tvfs.content.directory_message import TreeDirectory, TreeFile, TreeInvalid, TreeSymlink, merged, surveyed
from tvfs.content.ingress import Ingress, TreeIncomplete, TreeRefused
from tvfs.content.manifest import Manifest, ManifestInvalid, extents_covering
from tvfs.content.msgpack_shape import TooManyObjects, check_shape
from tvfs.content.names import NameInvalid, escape, unescape
from tvfs.content.tree_index import (
    TreeIndexMissing,
    TreeIndexReader,
    check_page,
    decode_page,
    decode_root,
    encode_root,
)
from tvfs.content.trees import build_directory_message
from tvfs.digest import ChunkId, Digest, DigestInvalid
from tvfs.errors import FormatTooNew, RowDamaged
from tvfs.filesystem.directories import decode_dirent, encode_dirent
from tvfs.filesystem.evictable_rows import decode_use
from tvfs.filesystem.inode import Inode, InodeTooNew
from tvfs.filesystem.ranges import decode_range
from tvfs.filesystem.staged_file import StagingTooNew, decode_row
from tvfs.filesystem.staging import map_of
from tvfs.filesystem.startup import read_map
from tvfs.fuse.kernel.protocol import MalformedRequest
from tvfs.fuse.kernel.requests import parse_body, parse_header
from tvfs.fuse.mount_table import mounts_at
from tvfs.ingest.commit import BlobRecord, IngestCommit, RowRecord
from tvfs.packs.location import Location
from tvfs.packs.pack_reader import payload_of
from tvfs.packs.pack_row import decode_pack_row, encode_pack_row
from tvfs.packs.record import (
    PackDamaged,
    decode_pack_header,
    decode_record_header,
    encode_pack_header,
    encode_record_header,
)
from tvfs.packs.scan import scan_pack
from tvfs.plugin_api import Codec, CodecFailed, PluginRegistry
from tvfs.vault.audit import AuditBroken, decode_record, verify_chain
from tvfs.vault.commit_check import CommitRejected, DecodedCommit, chunks_of, count_objects, pages_of
from tvfs.vault.counting import decode_count
from tvfs.vault.create import VaultMissing, check_format
from tvfs.vault.entry_totals import decode_totals
from tvfs.vault.entry_usage import parse_expiry_row, parse_rank_row
from tvfs.vault.layout import Layout
from tvfs.vault.names import NameInvalid as VaultNameInvalid
from tvfs.vault.names import check_key, check_scope
from tvfs.vault.plugin_use import decode_plugin_row
from tvfs.vault.references import references_of
from tvfs.vault.stored_entry import EntryInvalid, decode_entry, encode_entry
from tvfs.vault.superblock import SuperblockInvalid, decode_superblock, encode_superblock

MOST_SECONDS = 5.0
"""For one input, of at most `MOST_BYTES`; usual is a tenth of a millisecond."""
MOST_MIB = 768
"""Of the whole process."""
MOST_BYTES = 64 << 10
CHUNK_BYTES = 1 << 20
"""A payload may say that it unpacks to at most this, or ten times as much."""


@dataclass(frozen=True, slots=True)
class Target:
    """One parser."""

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    """Valid inputs: a fuzzer that begins with them is past the first checks."""


@cache
def registry() -> PluginRegistry:
    return PluginRegistry()


# --- packs -----------------------------------------------------------------------------------------------------------


def pack_header(raw: bytes) -> None:
    with suppress(PackDamaged, FormatTooNew):
        header = decode_pack_header(raw)
        assert decode_pack_header(encode_pack_header(header)) == header


def record_header(raw: bytes) -> None:
    with suppress(FormatTooNew):
        header = decode_record_header(raw)
        if header is not None and max(header.raw_bytes, header.stored_bytes) <= 16 << 20:
            assert decode_record_header(encode_record_header(header)) == header


def pack_scan(raw: bytes) -> None:
    fd = os.memfd_create("pack")
    try:
        os.write(fd, raw)
        with suppress(PackDamaged, FormatTooNew):
            at = 0
            for record in scan_pack(fd, check_payloads=True):
                assert record.location.offset > at
                at = record.location.offset
                assert at + record.location.stored_bytes <= len(raw)
    finally:
        os.close(fd)


def record_payload(raw: bytes) -> None:
    location = Location(1, 40, max(0, len(raw) - 56), 5, 0)
    with suppress(PackDamaged, FormatTooNew):
        assert len(payload_of(memoryview(raw), location, ChunkId(raw[24:56]))) == location.stored_bytes


def _unpacked(name: str) -> Callable[[bytes], None]:
    def unpack(raw: bytes) -> None:
        codec: Codec = registry().codec(name)
        told = int.from_bytes(raw[:4], "big")
        location = Location(1, 40, len(raw), told, codec.codec_id)
        with suppress(CodecFailed, CodecUnknown):
            if told <= 10 * CHUNK_BYTES or told > 16 << 20:  # what lies between is allowed and slow
                chunk = decode_chunk(raw[4:], location, {codec.codec_id: codec})
                assert len(chunk) == told <= 16 << 20

    return unpack


# --- rows ------------------------------------------------------------------------------------------------------------


def chunk_row(raw: bytes) -> None:
    with suppress(FormatTooNew, RowDamaged):
        row = decode_chunk_row(raw)
        assert decode_chunk_row(encode_chunk_row(row)) == row


def pack_row(raw: bytes) -> None:
    with suppress(FormatTooNew, RowDamaged):
        row = decode_pack_row(raw)
        assert decode_pack_row(encode_pack_row(row)) == row


def inode_row(raw: bytes) -> None:
    with suppress(InodeTooNew, RowDamaged):
        inode = Inode.decode(raw)
        assert Inode.decode(inode.encode()) == inode
        if inode.is_regular and inode.state in (1, 2, 3):
            assert inode.with_content(inode.content).content == inode.content


def dirent_row(raw: bytes) -> None:
    with suppress(RowDamaged):
        dirent = decode_dirent(raw)
        assert decode_dirent(encode_dirent(dirent)) == dirent


def staging_row(raw: bytes) -> None:
    with suppress(StagingTooNew, RowDamaged):
        decode_row(raw)


def range_row(raw: bytes) -> None:
    with suppress(RowDamaged):
        decode_range(raw)


def small_rows(raw: bytes) -> None:
    with suppress(RowDamaged):
        decode_count(raw)
    decode_totals(raw)
    for parse in (parse_rank_row, parse_expiry_row, decode_use, decode_plugin_row):
        with suppress(RowDamaged):
            parse(raw)


def staging_map(raw: bytes) -> None:
    path = _home() / "staged.1"
    for trusted in (None, 1):
        map_of(path).write_bytes(raw)
        blocks = read_map(path, trusted)
        assert len(blocks) <= len(raw) // 8
        assert read_map(path, None) == blocks, "what was cut off stays off"


def vault_format(raw: bytes) -> None:
    layout = Layout(_home())
    layout.format.write_bytes(raw)
    with suppress(VaultMissing, FormatTooNew):
        check_format(layout)


def references(raw: bytes) -> None:
    families = list(Family)
    if raw:
        found = references_of(families[raw[0] % len(families)], b"k" * 32, raw[1:], "blake3")
        assert len(found) <= len(raw), "no row refers to more than it has bytes"


def superblock(raw: bytes) -> None:
    with suppress(SuperblockInvalid, FormatTooNew):
        found = decode_superblock(raw)
        assert decode_superblock(encode_superblock(found)) == found


def stored_entry(raw: bytes) -> None:
    key, _, row = raw.partition(b"\x01\x01")
    with suppress(EntryInvalid):
        encoded = encode_entry(decode_entry(key, b"\x01" + row))  # compared as bytes: a rank may be no number
        assert encode_entry(decode_entry(key, encoded)) == encoded


def audit_record(raw: bytes) -> None:
    with suppress(ValueError):
        assert decode_record(raw).version == 1
    parts = raw.split(b"\xff\xff\xff")
    with suppress(AuditBroken):
        verify_chain(((number.to_bytes(8, "big"), part) for number, part in enumerate(parts, 1)), len(parts) + 1)


# --- content ---------------------------------------------------------------------------------------------------------


def manifest(raw: bytes) -> None:
    with suppress(ManifestInvalid, FormatTooNew):
        root = Manifest(raw)
        parts = list(root.items())
        assert len(parts) == root.count
        for offset in (0, 1, root.size // 2, max(0, root.size - 1)):
            extents = extents_covering(root, offset, 1 << 20, lambda page_hash: Manifest(raw))
            assert all(extent.offset < offset + (1 << 20) and extent.end > offset for extent in extents)


def tree_root(raw: bytes) -> None:
    with suppress(TreeIndexMissing, FormatTooNew):
        root = decode_root(bytes(32), raw)
        assert decode_root(bytes(32), encode_root(bytes(32), root)[2]) == root
        assert root.snapshot(bytes(32)).size >= 0


def tree_page(raw: bytes) -> None:
    with suppress(TreeIndexMissing, FormatTooNew):
        entries = decode_page(bytes(32), 0, raw)
        for entry in entries:
            assert entry.name not in (b"", b".", b"..")
            assert b"/" not in entry.name
            entry.content  # noqa: B018 - a property that must not raise


def tree_index(raw: bytes) -> None:
    """A root and a page that claim to belong together, looked into as the mount does."""
    encoded_root, _, encoded_page = raw.partition(b"\xfe\xfe\xfe\xfe")

    def row(family: Family, key: bytes) -> bytes | None:
        return encoded_root if family is Family.TREE else encoded_page

    reader = TreeIndexReader(row)
    index = bytes(32)
    with suppress(TreeIndexMissing, FormatTooNew):
        root = reader.root(index)
        for number in range(min(3, len(root.page_names))):
            check_page(index, root, number, reader.page(index, number))
        found = [entry for _, entry in zip(range(600), (e for _, e in reader.iterate(index)), strict=False)]
        for entry in found[:20]:
            assert reader.lookup(index, entry.name) == entry
            assert reader.at_preorder(index, entry.preorder) == entry
            assert 0 < entry.preorder <= root.below
        reader.position_after(index, raw[:20])
        reader.at_preorder(index, root.below)


def attributes(raw: bytes) -> None:
    with suppress(AttributesInvalid, FormatTooNew):
        found = decode_attributes(raw)
        assert decode_attributes(encode_attributes(found)) == found


def directory_message(raw: bytes) -> None:
    with suppress(TreeInvalid):
        nodes, survey = surveyed(raw)
        names = [node.name for node in merged(raw, survey)]
        assert names == sorted(set(names))
        assert len(names) == len(nodes) == survey.entries
        again = build_directory_message(
            [(n.name, n.hash, n.size, n.executable) for n in nodes if isinstance(n, TreeFile)],
            [tuple(n) for n in nodes if isinstance(n, TreeDirectory)],  # type: ignore[misc]
            [tuple(n) for n in nodes if isinstance(n, TreeSymlink)],  # type: ignore[misc]
        )
        assert len(again) <= len(raw), "what is left out are properties"
        assert sorted(surveyed(again)[0]) == sorted(nodes)


def name_escape(raw: bytes) -> None:
    assert unescape(escape(raw)) == raw


def name_unescape(raw: bytes) -> None:
    with suppress(NameInvalid):
        text = raw.decode("utf-8", "surrogateescape")
        assert escape(unescape(text)) == text


def digest_text(raw: bytes) -> None:
    with suppress(DigestInvalid):
        digest = Digest.parse(raw.decode("utf-8", "replace"))
        assert Digest.parse(str(digest)) == digest


def ingress(raw: bytes) -> None:
    """A whole foreign tree: its root is the input, and some of what it may name is there."""
    source = MemorySource()
    inner = source.directory({"f": source.add(b"1")}, {}, {"l": "t"})
    source.directory({}, {"d": inner})
    tree = source.add(raw)
    with suppress(TreeRefused, TreeIncomplete):
        snapshot = trio.run(Ingress(source).take, tree)
        assert snapshot.tree == tree
        reader = source.reader
        root = reader.root(snapshot.index)
        found = [entry for _, entry in reader.iterate(snapshot.index)]
        assert len(found) == root.entries
        assert all(reader.lookup(snapshot.index, entry.name) == entry for entry in found[:100])


def run_result(raw: bytes) -> None:
    ref = m.SnapshotRef("blake3:" + "00" * 32 + "-0", None, bytes(32), 0, 0)
    with suppress(ResultUnusable):
        result = read_result(m.Entry("main", "k", "run", 0, 0, ref, raw), "blake3")
        for output in result.outputs:
            assert ".." not in output.path.split("/")
            assert not output.path.startswith("/")


# --- what clients say ------------------------------------------------------------------------------------------------


def request_frame(raw: bytes) -> None:
    with suppress(framing.ProtocolError):
        request = framing.decode_request(raw)
        frame = framing.encode(request)
        assert framing.payload_length(frame[:4]) == len(frame) - 4
        assert framing.encode(framing.decode_request(frame[4:])) == frame


def reply_frame(raw: bytes) -> None:
    with suppress(framing.ProtocolError):
        reply = framing.decode_reply(raw)
        assert framing.encode(framing.decode_reply(framing.encode(reply)[4:])) == framing.encode(reply)


def frame_header(raw: bytes) -> None:
    if len(raw) >= 4:
        with suppress(framing.ProtocolError):
            assert 0 < framing.payload_length(raw) <= framing.MAX_FRAME_BYTES


def message_shape(raw: bytes) -> None:
    """What the counter takes is what the decoder takes, and it never counts fewer values than there are."""
    try:
        counted = check_shape(raw, 10_000)
    except TooManyObjects:
        return
    try:
        value = msgspec.msgpack.decode(raw)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return
    assert counted >= _values(value)


def _values(value: object) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(_values, value.values())) + len(value)
    return 1 + sum(map(_values, value)) if isinstance(value, list) else 1


def commit(raw: bytes) -> None:
    """Rows and manifests of a commit, each part after two bytes of its length, the kind in the first byte."""
    function = registry().hash_function("blake3")
    rows: list[RowRecord] = []
    blobs: list[BlobRecord] = []
    while len(raw) > 3 and len(rows) + len(blobs) < 20:
        kind, length = raw[0] % 5, int.from_bytes(raw[1:3], "big")
        value, raw = raw[3 : 3 + length], raw[3 + length :]
        match kind:
            case 0:
                rows.append(RowRecord("page", function.digest(value), value))
            case 1:
                rows.append(RowRecord("tree", bytes(32), value))
            case 2:
                rows.append(RowRecord("treepage", bytes(36), value))
            case 3:
                rows.append(RowRecord(value[:9].decode("latin-1"), value[9:41], value[41:]))
            case _:
                blobs.append(BlobRecord("blake3", function.digest(value), value))
    with suppress(CommitRejected, FormatTooNew):
        decoded = DecodedCommit(IngestCommit(rows=rows, blobs=blobs), "blake3")
        for row in rows:
            if row.family in ("tree", "treepage"):
                count_objects(row)
            decoded.check_row(row, function)
        for root in [*decoded.roots, *decoded.pages.values()]:
            (pages_of if root.level else chunks_of)(root)
        assert list(decoded.rows_children_first()) is not None


# --- what people and operators write ---------------------------------------------------------------------------------


@cache
def _home() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-home-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))


def config_toml(raw: bytes) -> None:
    (_home() / config_file.FILE_NAME).write_bytes(raw)
    with suppress(config_file.ConfigInvalid):
        config_file.load(_home(), {})


def config_check(raw: bytes) -> None:
    path = _home() / config_file.FILE_NAME
    path.write_bytes(raw)
    found = config_report.errors(path, {})
    assert len(found) <= config_report.MOST_ERRORS
    try:
        config_file.load(_home(), {})
    except config_file.ConfigInvalid:
        assert found, "what the daemon refuses is found"
    else:
        assert not found
        config_report.settings(path, {})


def project_file(raw: bytes) -> None:
    path = Path("/project/.taskvault.toml")
    with suppress(ProjectInvalid):
        rules = parse_rules(raw, path)
        assert rules == ProjectRules() or rules.text
        places = Places("/project", "/scratch", "/home/u", ignored=tuple(rules.ignored_paths))
        assert places.place("/project/a") in Place


def environment(raw: bytes) -> None:
    name, _, value = raw.decode("utf-8", "surrogateescape").replace("\0", "").partition("=")
    (_home() / config_file.FILE_NAME).unlink(missing_ok=True)
    if name != "FAILPOINTS":
        with suppress(config_file.ConfigInvalid):
            config_file.load(_home(), {f"TASKVAULT_{name}": value, "WATCHDOG_USEC": value})


def glob_pattern(raw: bytes) -> None:
    texts = raw.decode("utf-8", "surrogateescape").split("\n")
    path = texts.pop()
    for parse in (PatternSet, parse_outputs):
        with suppress(PatternInvalid):
            patterns = parse(texts[:20])
            taken = patterns.takes(path)
            assert taken in (True, False)
            if all(text.startswith("!") for text in texts):
                assert not taken


def duration(raw: bytes) -> None:
    with suppress(click.UsageError):
        assert 0 < Duration().convert(raw.decode("utf-8", "replace"), None, None) <= LONGEST_S


def byte_count(raw: bytes) -> None:
    with suppress(click.UsageError):
        assert ByteCount().convert(raw.decode("utf-8", "replace"), None, None) >= 0


def key_and_scope(raw: bytes) -> None:
    text = raw.decode("utf-8", "surrogateescape")
    with suppress(VaultNameInvalid):
        assert check_key(text) == text
        assert "/" not in text
        assert "\0" not in text
    with suppress(VaultNameInvalid):
        assert all(part not in ("", ".", "..") for part in check_scope(text).split("/"))


def mount_table(raw: bytes) -> None:
    for entry in mounts_at("/mnt", raw.decode("utf-8", "surrogateescape")):
        assert entry.point == "/mnt"
        assert entry.fuse_connection == "" or entry.fuse_connection.isdigit()


# --- what the kernel says --------------------------------------------------------------------------------------------


def kernel_request(raw: bytes) -> None:
    message = memoryview(raw)
    with suppress(MalformedRequest):
        parse_body(parse_header(message), message)
    # The length that a request tells is right more often than by chance.
    message = memoryview(struct.pack("=I", len(raw)) + raw[4:]) if len(raw) >= 4 else message
    with suppress(MalformedRequest):
        parse_body(parse_header(message), message)


def filesystem_calls(raw: bytes) -> None:
    play(raw)


TARGETS: dict[str, Target] = {
    "pack_header": Target(pack_header, seeds.pack_headers),
    "record_header": Target(record_header, seeds.record_headers),
    "pack_scan": Target(pack_scan, seeds.packs),
    "record_payload": Target(record_payload, seeds.records),
    "zstd": Target(_unpacked("zstd"), lambda: seeds.payloads("zstd")),
    "brotli": Target(_unpacked("brotli"), lambda: seeds.payloads("brotli")),
    "lz4": Target(_unpacked("lz4"), lambda: seeds.payloads("lz4")),
    "chunk_row": Target(chunk_row, seeds.chunk_rows),
    "pack_row": Target(pack_row, seeds.pack_rows),
    "inode_row": Target(inode_row, seeds.inode_rows),
    "dirent_row": Target(dirent_row, seeds.dirent_rows),
    "staging_row": Target(staging_row, seeds.staging_rows),
    "range_row": Target(range_row, seeds.range_rows),
    "small_rows": Target(small_rows, seeds.small_rows),
    "staging_map": Target(staging_map, seeds.staging_maps),
    "vault_format": Target(vault_format, lambda: [b"1\n", b"99", b""]),
    "references": Target(references, seeds.referring_rows),
    "superblock": Target(superblock, seeds.superblocks),
    "stored_entry": Target(stored_entry, seeds.entries),
    "audit_record": Target(audit_record, seeds.audit_logs),
    "manifest": Target(manifest, seeds.manifests),
    "tree_root": Target(tree_root, seeds.tree_roots),
    "tree_page": Target(tree_page, seeds.tree_pages),
    "tree_index": Target(tree_index, seeds.tree_indexes),
    "attributes": Target(attributes, seeds.attributes),
    "directory_message": Target(directory_message, seeds.directories),
    "ingress": Target(ingress, seeds.directories),
    "name_escape": Target(name_escape, seeds.names),
    "name_unescape": Target(name_unescape, seeds.escaped_names),
    "digest_text": Target(digest_text, seeds.digests),
    "run_result": Target(run_result, seeds.run_results),
    "request_frame": Target(request_frame, seeds.requests),
    "reply_frame": Target(reply_frame, seeds.replies),
    "frame_header": Target(frame_header, lambda: [b"\0\0\0\x05", b"\0\xff\xff\xff"]),
    "message_shape": Target(message_shape, seeds.requests),
    "commit": Target(commit, seeds.commits),
    "config_toml": Target(config_toml, seeds.configs),
    "config_check": Target(config_check, seeds.configs),
    "project_file": Target(project_file, seeds.projects),
    "environment": Target(environment, seeds.environments),
    "glob_pattern": Target(glob_pattern, seeds.patterns),
    "duration": Target(duration, lambda: [b"30s", b"15m", b"12h", b"7d", b"2w"]),
    "byte_count": Target(byte_count, lambda: [b"4096", b"512K", b"1.5 TiB", b"10g"]),
    "key_and_scope": Target(key_and_scope, lambda: [b"deps-1a2b", b"pr/123", "ключ".encode(), b"a/../b"]),
    "mount_table": Target(mount_table, seeds.mount_tables),
    "kernel_request": Target(kernel_request, seeds.kernel_requests),
    "filesystem_calls": Target(filesystem_calls, seeds.filesystem_calls),
}
"""Name to parser; also the name of its folder in `corpus/`."""
