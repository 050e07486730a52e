"""What is stored for ever has these bytes and digests: a failure here is a change of format, not of a test."""

from __future__ import annotations

import os
from pathlib import Path

from tvplugins.chunking.fastcdc import make as fastcdc
from tvplugins.compression.none import make as none
from tvplugins.hash.blake3 import make as blake3
from tvplugins.hash.sha256 import make as sha256

from tvfs.content.attributes import OwnAttributes
from tvfs.content.reference import ContentKind
from tvfs.content.tree_builder import BuiltDirectory, TreeBuilder
from tvfs.content.tree_index import REGULAR, SYMLINK, IndexEntry
from tvfs.ingest.port import IngestSettings
from tvfs.ingest.tree_walk import hash_paths


def build(builder: TreeBuilder) -> tuple[BuiltDirectory, BuiltDirectory]:
    def file(name: bytes, mode: int, first: int) -> IndexEntry:
        return IndexEntry(
            name, REGULAR, mode, 1000, 1000, 1_700_000_000_123_456_789, 5, ContentKind.CHUNK, bytes([first]) * 32
        )

    empty = IndexEntry(b"empty", REGULAR, 0o644, 0, 0, 0, 0, ContentKind.EMPTY, bytes(32))
    link = IndexEntry(b"caf\xe9", SYMLINK, 0o777, 0, 0, -1, 3, target=b"a/b")
    fifo = IndexEntry(b"pipe", 1, 0o600, 0, 0, 5)
    below = builder.build(OwnAttributes(0o700, 1, 2, 3, ((b"user.a", b"b"),)), [file(b"b", 0o4755, 0xAB)])
    top = builder.build(
        OwnAttributes(0o755), [file(b"z", 0o644, 0xCD), empty, link, fifo], [(b"a", below.directory)], [[b"z", b"a/b"]]
    )
    return below, top


def test_a_built_directory_has_the_golden_digests() -> None:
    below, top = build(TreeBuilder(blake3({})))
    assert below.tree.hex() == ("0a4b0a016212440a40" + (b"ab" * 32).hex() + "10052001")
    snapshot = top.directory.snapshot
    assert (str(snapshot.tree), str(snapshot.attributes), snapshot.index.hex()) == GOLDEN_BLAKE3
    under_sha256 = build(TreeBuilder(sha256({})))[1].directory.snapshot
    assert (str(under_sha256.tree), str(under_sha256.attributes), under_sha256.index.hex()) == GOLDEN_SHA256


def test_index_rows_have_the_golden_bytes() -> None:
    below, _ = build(TreeBuilder(blake3({})))
    assert [value.hex() for _, _, value in below.rows] == GOLDEN_ROWS


def test_a_local_tree_has_the_golden_digest(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/run").write_bytes(b"#!/bin/sh\n")
    (tmp_path / "d/run").chmod(0o755)
    (tmp_path / "long").write_bytes(b"0123456789" * 50_000)
    (tmp_path / "link").symlink_to("d/run")
    with open(os.path.join(os.fsencode(tmp_path), b"caf\xe9"), "wb"):
        pass
    settings = IngestSettings(blake3({}), fastcdc({}), none({}), 1 << 20, threads=1)
    assert str(hash_paths(settings, os.fspath(tmp_path), ["."])) == GOLDEN_LOCAL


GOLDEN_BLAKE3 = (
    "blake3:2af6d52f3376eac29b71066d8dfaa8439d885ac352dbc62227e323291f1d8008-243",
    "blake3:57af5c4babf373e3f9bb3c92f8f08fda2c95438e5914bcf683621583719f8bdb-135",
    "2f3504ed08012b767637b97c3cf06edc39327e6b11ed9ea25118e1513b70005a",
)
GOLDEN_SHA256 = (
    "sha256:d413da941cec693be6ffb830f982c3b58765c1f943bf8e00776ec2105d3ccce4-243",
    "sha256:f5160bd3e8c382ec5fba4ddcd15677dd9840b79f431a7172c557f2dc515e5e84-135",
    "b614c0ebd3b381f6c8ceab88d1b2c0a2a6ec6934afd6087893c48c78715305de",
)
GOLDEN_ROWS = [
    (
        "dc001401a6626c616b6533c4201adc3852c86b6df6ff3ee7f2028ae2820e90ca7bbd7fbc54cedf5079fbc086874dc420"
        "d91390e02e8070fdab5290db517734a76824acdf1a303a5b910f6078b851f30132cd01c00102039192c406757365722e"
        "61c40162010101050091c4016291019000"
    ),
    (
        "9201919fc4016208cd09edcd03e8cd03e8cf17979cfe3d85cd150501c420abababababababababababababababababab"
        "ababababababababababababababc40000c400010090"
    ),
]
GOLDEN_LOCAL = "blake3:2c683e3deab4fc54972523416326ac9be1db2af32187c20ea681612ec1adb50c-249"
