from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tvfs.catalog.catalog import Family
from tvfs.content.attributes import OwnAttributes
from tvfs.content.manifest import build_manifest
from tvfs.content.reference import Content, ContentKind
from tvfs.content.snapshot import Snapshot
from tvfs.content.tree_builder import Subdirectory, TreeBuilder
from tvfs.content.tree_index import REGULAR, SYMLINK, IndexEntry
from tvfs.digest import HOLE, Digest
from tvfs.filesystem.inode import ContentState, Inode
from tvfs.filesystem.ranges import AttachedRange
from tvfs.filesystem.staged_file import StagedFile
from tvfs.plugin_api import PluginRegistry
from tvfs.vault.references import (
    REFERRING,
    Kind,
    first_items,
    manifest_change,
    manifest_references,
    references_of,
)
from tvfs.vault.stored_entry import StoredEntry, StoredSnapshot, encode_entry

HASH = PluginRegistry().hash_function("blake3")
ONE, TWO = HASH.digest(b"one"), HASH.digest(b"two")
CHUNK, BLOB, PAGE, TREE = b"\x01", b"\x02\x09", b"\x03", b"\x04"


def refers(family: Family, value: bytes, function: str = "blake3") -> list[bytes]:
    return references_of(family, b"key", value, function)


def test_an_entry_refers_to_its_tree() -> None:
    entry = StoredEntry("main", "k", "saved", 1, 1, StoredSnapshot("t", None, ONE, 1, 1))
    assert refers(Family.ENTRY, encode_entry(entry)) == [TREE + ONE]
    assert refers(Family.ENTRY, encode_entry(StoredEntry("main", "k", "run", 1, 1))) == []


def test_a_range_refers_to_the_tree_that_was_attached() -> None:
    attached = AttachedRange(1, 100, 5, ONE, 0, 0, False, 1, False, False)
    assert refers(Family.RANGE, msgspec.msgpack.encode(attached)) == [TREE + ONE]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (Content(ContentKind.EMPTY, bytes(32), 0), []),
        (Content(ContentKind.CHUNK, ONE, 3), [CHUNK + ONE]),
        (Content(ContentKind.MANIFEST, ONE, 3), [BLOB + ONE]),
    ],
)
def test_an_inode_refers_to_its_content(content: Content, expected: list[bytes]) -> None:
    inode = Inode(0o100644, 0, 0, 1, 0, 0, 0, 0).with_content(content)
    assert refers(Family.INODE, inode.encode()) == expected


def test_a_staged_file_a_symlink_and_a_plain_directory_refer_to_nothing() -> None:
    for inode in (
        Inode(0o100644, 0, 0, 1, 0, 0, 0, 0, state=int(ContentState.STAGED)),
        Inode(0o120777, 0, 0, 1, 3, 0, 0, 0, target=b"x" * 200),
        Inode(0o040755, 0, 0, 2, 0, 0, 0, 0, parent=1),
    ):
        assert refers(Family.INODE, inode.encode()) == []


def test_a_directory_refers_to_the_tree_that_is_its_base() -> None:
    assert refers(Family.INODE, Inode(0o040755, 0, 0, 2, 0, 0, 0, 0, hash=ONE).encode()) == [TREE + ONE]


def test_a_staged_file_keeps_its_base(tmp_path: Path) -> None:
    for kind, expected in ((ContentKind.CHUNK, CHUNK), (ContentKind.MANIFEST, BLOB)):
        file = StagedFile(5, 1, tmp_path, Content(kind, ONE, 9), 9, 9)
        assert refers(Family.STAGING, file.row("boot")) == [expected + ONE]
    assert refers(Family.STAGING, StagedFile(5, 1, tmp_path, None, 0, 0).row("boot")) == []


def test_a_tree_refers_to_its_digests_as_chunks_and_as_blobs_and_its_pages_to_what_is_in_it() -> None:
    below = Subdirectory(Snapshot(Digest("blake3", TWO, 7), None, TWO, 0, 0), OwnAttributes(0o755), 0)
    entries = [
        IndexEntry(b"empty", REGULAR, 0o644, 0, 0, 0),
        IndexEntry(b"large", REGULAR, 0o644, 0, 0, 0, 9, ContentKind.MANIFEST, TWO),
        IndexEntry(b"link", SYMLINK, 0o777, 0, 0, 0, 3, target=b"one"),
        IndexEntry(b"small", REGULAR, 0o644, 0, 0, 0, 3, ContentKind.CHUNK, ONE),
    ]
    built = TreeBuilder(HASH).build(OwnAttributes(0o755), entries, [(b"sub", below)])
    (root_family, _, root), (page_family, _, page) = built.rows
    tree, attributes = HASH.digest(built.tree), HASH.digest(built.attributes or b"")
    assert refers(root_family, root) == [BLOB + tree, CHUNK + tree, BLOB + attributes, CHUNK + attributes]
    assert refers(page_family, page) == [BLOB + TWO, CHUNK + ONE, TREE + TWO]
    # In a vault of another function the digests are those of blobs only.
    assert refers(root_family, root, "sha256") == [BLOB + tree, BLOB + attributes]


def test_manifests_refer_to_chunks_or_pages_and_holes_to_nothing() -> None:
    built = build_manifest([(1, ONE), (10, HOLE), (2, TWO), (1, ONE)], HASH.digest)
    for family in (Family.BLOB, Family.PAGE, Family.DOOMED):
        assert refers(family, built.root) == [CHUNK + ONE, CHUNK + TWO, CHUNK + ONE]
    paged = build_manifest([(1, HASH.digest(b"%d" % number)) for number in range(2000)], HASH.digest)
    assert refers(Family.BLOB, paged.root) == [PAGE + page_hash for page_hash, _ in paged.pages]


@pytest.mark.parametrize("family", sorted(REFERRING))
def test_what_cannot_be_read_refers_to_nothing(family: Family) -> None:
    for value in (b"", b"x", b"\xff" * 31, b"\x01" * 112, bytes(500), b"\x93\x01\x02"):
        references_of(family, b"k", value, "blake3")
    assert references_of(family, b"k", b"", "blake3") == []


def test_a_manifest_is_shortened_and_built_up_by_its_difference() -> None:
    ids = [HASH.digest(b"%d" % number) for number in range(700)]
    whole = build_manifest([(1, each) for each in ids], HASH.digest).root
    keys = [CHUNK + each for each in ids]
    assert manifest_references(first_items(whole, 300)) == keys[:300]
    assert manifest_change(first_items(whole, 500), first_items(whole, 300)) == (keys[300:500], [])
    assert manifest_change(first_items(whole, 300), whole) == ([], keys[300:])
    assert manifest_change(b"", whole) == ([], keys)
    assert manifest_change(whole, b"") == (keys, [])
    other = build_manifest([(1, each) for each in reversed(ids)], HASH.digest).root
    assert manifest_change(first_items(whole, 2), other) == (keys[:2], keys[::-1])


def test_the_kinds_are_numbered_as_they_are_stored() -> None:
    assert [(kind.name, kind.value) for kind in Kind] == [("CHUNK", 1), ("BLOB", 2), ("PAGE", 3), ("TREE", 4)]
