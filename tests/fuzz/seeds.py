"""Valid inputs of each parser, small, for fuzzers to begin with."""

from __future__ import annotations

import struct
from typing import Any, get_args, get_origin

import msgspec
from blake3 import blake3

from taskvault.protocol import framing
from taskvault.protocol import messages as m
from tests.unit.content.foreign import digest_of, message
from tvfs.catalog.catalog import Family
from tvfs.chunks.chunk_row import ChunkRow, ChunkState, encode_chunk_row
from tvfs.content import reapi
from tvfs.content.attributes import Attributes, EntryAttributes, OwnAttributes, SubdirectoryAttributes
from tvfs.content.attributes import encode_attributes as encode
from tvfs.content.manifest import build_manifest
from tvfs.content.names import escape
from tvfs.content.tree_builder import BuiltDirectory, TreeBuilder
from tvfs.content.tree_index import DIRECTORY, REGULAR, SYMLINK, IndexEntry
from tvfs.digest import HOLE, ChunkId
from tvfs.filesystem.directories import Dirent, encode_dirent
from tvfs.filesystem.evictable_rows import FileUse, encode_use
from tvfs.filesystem.inode import Inode
from tvfs.filesystem.ranges import AttachedRange
from tvfs.filesystem.staged_file import StagedRow
from tvfs.ingest.commit import BlobRecord, ChunkRecord, IngestCommit, RowRecord
from tvfs.packs.location import Location
from tvfs.packs.pack_row import PackRow, encode_pack_row
from tvfs.packs.record import PackHeader, RecordHeader, encode_pack_header, encode_record_header, payload_crc
from tvfs.plugin_api import PluginRegistry
from tvfs.vault.audit import START, AuditRecord, hash_of
from tvfs.vault.counting import encode_count
from tvfs.vault.entry_usage import expiry_row, rank_row
from tvfs.vault.stored_entry import StoredEntry, StoredSnapshot, encode_entry
from tvfs.vault.superblock import Chunking, Superblock, encode_superblock

HASH = bytes(range(32))
TREE = "blake3:" + HASH.hex() + "-5"


def pack_headers() -> list[bytes]:
    return [encode_pack_header(PackHeader(7, bytes(16)))]


def records() -> list[bytes]:
    return [
        encode_record_header(RecordHeader(ChunkId(HASH), 0, len(payload), len(payload), payload_crc(payload))) + payload
        for payload in (b"", b"12345", b"x" * 300)
    ]


def record_headers() -> list[bytes]:
    return [record[:56] for record in records()]


def packs() -> list[bytes]:
    whole = pack_headers()[0] + b"".join(records())
    return [whole, whole + whole[40:], whole[:-1], whole[:40]]


def payloads(codec: str) -> list[bytes]:
    made = PluginRegistry().codec(codec)
    raws = (b"hello hello hello", bytes(100_000), bytes(range(256)) * 4)
    honest = [len(raw).to_bytes(4, "big") + made.compress(raw) for raw in raws]
    bomb = made.compress(bytes(8 << 20))
    return [*honest, (5).to_bytes(4, "big") + bomb, (1 << 24 | 1).to_bytes(4, "big") + bomb]


def chunk_rows() -> list[bytes]:
    at = Location(1, 40, 100, 200, 1)
    return [encode_chunk_row(ChunkRow(at, state)) for state in ChunkState]


def pack_rows() -> list[bytes]:
    return [encode_pack_row(PackRow(100, 50))]


def inode_rows() -> list[bytes]:
    made = [
        Inode(0o100644, 1, 2, 1, 5, 1, 2, 3, state=2, hash=HASH),
        Inode(0o040755, 1, 2, 2, 0, 1, 2, 3, hash=HASH, parent=2, entries=5),
        Inode(0o120777, 1, 2, 1, 3, 1, 2, 3, target=b"abc"),
        Inode(0o100644, 1, 2, 1, 0, 1, 2, 3, state=4),
    ]
    return [inode.encode() for inode in made]


def dirent_rows() -> list[bytes]:
    return [encode_dirent(Dirent(8, 70, 5)), encode_dirent(Dirent(0, 0, 6))]


def staging_rows() -> list[bytes]:
    return [msgspec.msgpack.encode(row) for row in (StagedRow(1, 5), StagedRow(1, 5, 2, HASH, 100, 50, 3, "boot"))]


def range_rows() -> list[bytes]:
    return [msgspec.msgpack.encode(AttachedRange(1, 64, 10, HASH, 1, 2, True, 5, False, False))]


def small_rows() -> list[bytes]:
    return [
        encode_count(5),
        bytes(25),
        rank_row(1.5, b"main\0k"),
        expiry_row(5, b"main\0k"),
        encode_use(_example(FileUse)),
    ]


def staging_maps() -> list[bytes]:
    return [b"".join(block.to_bytes(8, "big") for block in (0, 5, 1 << 40)), bytes(20)]


def referring_rows() -> list[bytes]:
    families = list(Family)
    rows = {
        Family.INODE: inode_rows(), Family.STAGING: staging_rows(), Family.RANGE: range_rows(),
        Family.TREE: tree_roots(), Family.TREEPAGE: tree_pages(), Family.BLOB: manifests(), Family.PAGE: manifests(),
        Family.ENTRY: [row.partition(b"\x01\x01")[2] for row in entries()],
    }  # fmt: skip
    return [bytes([families.index(family)]) + row for family, found in rows.items() for row in found]


def superblocks() -> list[bytes]:
    return [encode_superblock(Superblock(1, bytes(16), "blake3", Chunking("fastcdc", {"a": 1}), "zstd", 1 << 30, 5))]


def entries() -> list[bytes]:
    snapshot = StoredSnapshot(TREE, None, HASH, 1, 5)
    made = [
        StoredEntry("main", "k", "saved", 1, 2, snapshot),
        StoredEntry("main", "k", "run", 1, 2, snapshot, b"result", 5, uses=3, rank=1.5, expires_ns=9),
    ]
    return [b"main\0k\x01\x01" + encode_entry(entry)[1:] for entry in made]


def audit_logs() -> list[bytes]:
    log, previous = [], START
    for seq in range(1, 4):
        record = msgspec.msgpack.encode(AuditRecord(1, seq, 5, "save", "main", "k", "uid 0", "", previous))
        previous = hash_of(record)
        log.append(record)
    return [log[0], b"\xff\xff\xff".join(log)]


def manifests() -> list[bytes]:
    def digest(raw: bytes) -> bytes:
        return blake3(raw).digest()

    short = build_manifest([(5, HASH), (7, HOLE), (9, HASH)], digest)
    long = build_manifest([(5, digest(b"%d" % n)) for n in range(1100)], digest)
    return [short.root, long.root, long.pages[0][1], build_manifest([], digest).root]


def _built() -> list[BuiltDirectory]:
    builder = TreeBuilder(PluginRegistry().hash_function("blake3"))
    own = OwnAttributes(0o755, 1, 2, 3, ((b"user.a", b"v"),))
    inner = builder.build(own, [IndexEntry(b"f", REGULAR, 0o644, 1, 2, 3, 5, 1, HASH)])
    entries_ = [
        IndexEntry(b"a", REGULAR, 0o755, -1, -1, -1, 5, 2, HASH),
        IndexEntry(b"b", SYMLINK, 0o777, 1, 2, 3, 3, target=b"../"),
        IndexEntry(b"c", REGULAR, 0o644, 1, 2, 3),
        IndexEntry(b"pipe", 1, 0o600, 1, 2, 3),
    ]
    outer = builder.build(own, entries_, [(b"d", inner.directory)], [[b"a", b"d/f"]])
    wide = builder.build(own, [IndexEntry(b"%04d" % n, REGULAR, 0o644, 1, 2, 3) for n in range(300)])
    assert {entry.kind for entry in entries_} != {DIRECTORY}
    return [inner, outer, wide, builder.build(own, [])]


def tree_roots() -> list[bytes]:
    return [value for built in _built() for family, _, value in built.rows if family is Family.TREE]


def tree_pages() -> list[bytes]:
    return [value for built in _built() for family, _, value in built.rows if family is Family.TREEPAGE]


def tree_indexes() -> list[bytes]:
    return [b"\xfe\xfe\xfe\xfe".join(value for _, _, value in built.rows[:2]) for built in _built()]


def attributes() -> list[bytes]:
    own = OwnAttributes(0o755, 1, 2, 3, ((b"user.a", b"v"),))
    row = EntryAttributes(b"a", 8, 0o644, 1, 2, 3)
    return [encode(Attributes(1, own, [row], [SubdirectoryAttributes(b"d", HASH, 5)], [[b"a", b"b"]]))]


def directories() -> list[bytes]:
    one = digest_of(b"1")
    properties = reapi.NodeProperties(properties=[reapi.NodeProperty(name="p", value="v")])
    node = reapi.FileNode(name="a", digest=reapi.Digest(hash=one.hex, size_bytes=1), node_properties=properties)
    return [
        message({"a": one, "run.sh": one}, {"d": one}, {"link": "../x"}),
        message({"\x01%FF": one}, {}, {"é": "\x01%80"}),
        reapi.serialise(reapi.Directory(files=[node], node_properties=properties)),
        b"",
    ]


def names() -> list[bytes]:
    return [b"plain", "é".encode(), b"\xff\x00/", b"\x01", b"%41"]


def escaped_names() -> list[bytes]:
    return [escape(name).encode() for name in names()]


def digests() -> list[bytes]:
    return [TREE.encode(), b"sha256:" + b"ab" * 32 + b"-0"]


def run_results() -> list[bytes]:
    digest = reapi.Digest(hash=HASH.hex(), size_bytes=5)
    made = reapi.ActionResult(
        output_directories=[reapi.OutputDirectory(path="build")],
        output_files=[reapi.OutputFile(path="a/b", digest=digest)],
        output_symlinks=[reapi.OutputSymlink(path="l", target="t")],
        exit_code=3, stdout_raw=b"out", stdout_digest=reapi.Digest(hash=HASH.hex(), size_bytes=3), stderr_digest=digest,
    )  # fmt: skip
    return [reapi.serialise(made)]


def _commit() -> IngestCommit:
    return IngestCommit(
        [ChunkRecord(HASH, 1, 40, 5, 5, 0)], [BlobRecord("blake3", HASH, manifests()[0])],
        [RowRecord("tree", HASH, tree_roots()[0])], [HASH],
    )  # fmt: skip


def requests() -> list[bytes]:
    ref = m.SnapshotRef(TREE, TREE, HASH, 1, 5)
    made = [
        m.Hello(), m.GetStatus(), m.Shutdown(force=True), m.FindMissing([HASH, HASH]), m.OpenPack(1 << 20),
        m.Commit(_commit()), m.Locate([HASH]), m.CheckChunks([HASH]), m.GetRows([("tree", HASH)]),
        m.SaveEntry("main", "k", "saved", ref, ttl_s=5.0), m.GetEntry("main", "k", count_use=True),
        m.ListEntries("main", ("main", "a"), 5), m.RemoveEntry("main", "k"), m.PrepareAttach(ref, "a/b"),
        m.PrepareTrash(), m.Discard(".taskvault/x"), m.SnapshotLive("work", ["a"], ["b"]), m.NameSnapshot("n", ref),
        m.FindSnapshot("n"), m.CollectGarbage(), m.SetPin("main", "k", True), m.MarkEvictable("work", True),
        m.VerifySome(HASH, 5), m.ReadAudit(5, 5), m.VerifyAudit(), m.MeasurePath("work"), m.GetActivity(),
        m.RecordRun(m.RunRecord("", 1, 2, ["make"], "/", ".", "main", "k", "hit", "", 0, inputs={"a": "b"})),
        m.FindRuns(command=["make"], limit=5),
    ]  # fmt: skip
    return [framing.encode(request)[4:] for request in (*made, *_each_of(m.Request))]


def replies() -> list[bytes]:
    ref = m.SnapshotRef(TREE, None, HASH, 1, 5)
    made = [
        m.Welcome(1, "ab" * 16, "blake3", "fastcdc", {"a": 1}, "zstd", 1 << 26, "/mnt"), m.Failed("KeyMissing", "No."),
        m.Done(), m.Missing([HASH]), m.PackOpened(1, 5),
        m.Located([m.ChunkLocation(HASH, 1, 40, 5, 5, 0)], [1], [], []),
        m.Rows([b"v", None]), m.EntryReply(m.Entry("main", "k", "saved", 1, 2, ref)), m.SnapshotReply(ref, ["a"]),
        m.Prepared(".taskvault/x"), m.Statistics({"a": 1, "b": 1.5}),
    ]  # fmt: skip
    return [framing.encode(reply)[4:] for reply in (*made, *_each_of(m.Reply))]


def _each_of(union: object) -> list[Any]:
    """One message of every type, with every field set."""
    return [_example(type_) for type_ in get_args(union) or (union,)]


def _example(type_: Any) -> Any:
    if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
        return type_(**{each.name: _example(each.type) for each in msgspec.structs.fields(type_)})
    origin, inner = get_origin(type_), get_args(type_)
    if origin is tuple:
        return tuple(map(_example, inner))
    if origin is list:
        return [_example(inner[0])]
    if origin is dict:
        return {_example(inner[0]): _example(inner[1])}
    if inner:  # a union: the first is the one that is not None
        return _example(inner[0])
    return {str: "text", bytes: HASH, int: 5, float: 1.5, bool: True, type(None): None}[type_]


def commits() -> list[bytes]:
    parts = [(0, manifests()[2]), (1, tree_roots()[0]), (2, tree_pages()[0]), (3, b"treepage " + bytes(40)), (4, manifests()[0])]  # noqa: E501  # fmt: skip
    packed = [bytes([kind]) + len(value).to_bytes(2, "big") + value for kind, value in parts if len(value) < 1 << 16]
    return [b"".join(packed), *packed]


def configs() -> list[bytes]:
    return [
        b'[vault]\ncapacity_bytes = "10G"\nhash = "blake3"\nchunking_parameters = { avg_bytes = 65536 }\n',
        b"[mount]\nenabled = false\nread_ahead_kib = 128\nunmount_timeout_s = 5\n[log]\nlevel = 'debug'\n",
        b"[control]\ngroup = 'users'\nmax_connections = 5\n",
    ]


def projects() -> list[bytes]:
    return [
        b"[run]\nenvironment = ['A', 'B_*']\nignored_environment = ['C']\nstrict = true\nany_user = false\n",
        b"[run]\nignored_paths = ['logs/*', '/var/[ab]*', '~/x']\ntool_caches = ['~/.tool/*']\n",
    ]


def environments() -> list[bytes]:
    return [b"LOG_LEVEL=debug", b"VAULT_CAPACITY_BYTES=64M", b"MOUNT_ENABLED=no", b"CONTROL_SEND_TIMEOUT_S=1e3"]


def patterns() -> list[bytes]:
    return [b"src/*.c\nsrc/a.c", b"**/x\n!a/**\na/b/x", b"[a-z]?[!b]\nabc", b".\nanything", b"a**b\nab"]


def mount_tables() -> list[bytes]:
    return [b"36 35 98:0 / /mnt rw,noatime master:1 - fuse.taskvault a\\040b rw\n"]


def kernel_requests() -> list[bytes]:
    def request(opcode: int, body: bytes) -> bytes:
        return struct.pack("=IIQQIIIHH", 40 + len(body), opcode, 1, 1, 0, 0, 1, 0, 0) + body

    return [
        request(1, b"name\0"), request(6, b"name\0target\0"), request(12, bytes(8) + b"a\0b\0"),
        request(16, struct.pack("=QQIIQII", 1, 0, 4, 0, 0, 0, 0) + b"data"),
        request(42, struct.pack("=IIQQ", 1, 0, 5, 1)),
        request(26, struct.pack("=IIII", 7, 45, 1 << 20, 0) + bytes(48)),
        request(21, struct.pack("=II", 1, 0) + b"x\0v"), request(52, struct.pack("=IIQII", 0, 0, 0, 0, 0xFFF)),
    ]  # fmt: skip


def filesystem_calls() -> list[bytes]:
    # inode, handle, which call, its arguments; see `filesystem_calls.py`.
    create, write, read = bytes([0, 0, 5, 0, 0x10, 2]), bytes([0, 3, 7, 0, 3]) + b"abc", bytes([0, 3, 8, 0, 100])
    return [create + write + read, bytes([0, 0, 2, 1, 0x20, 4, 0, 0, 0, 0]), bytes([0, 0, 13, 1, 2, 3, 4, 0x7F])]
