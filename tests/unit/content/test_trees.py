from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvfs.content import reapi
from tvfs.content.names import escape
from tvfs.content.trees import TreeInvalid, TreeLimits, build_directory_message, parse_directory

HASH = "ab" * 32

name = st.binary(min_size=1, max_size=12).filter(lambda n: b"/" not in n and b"\0" not in n and n not in (b".", b".."))
hash_ = st.binary(min_size=32, max_size=32)
size = st.integers(0, 2**63 - 1)
target = st.binary(min_size=1, max_size=12).filter(lambda t: b"\0" not in t)


@st.composite
def listings(draw: st.DrawFn):  # type: ignore[no-untyped-def]
    names = draw(st.lists(name, unique=True, max_size=12))
    files, directories, symlinks = [], [], []
    for one in names:
        match draw(st.integers(0, 2)):
            case 0:
                files.append((one, draw(hash_), draw(size), draw(st.booleans())))
            case 1:
                directories.append((one, draw(hash_), draw(size)))
            case _:
                symlinks.append((one, draw(target)))
    return files, directories, symlinks


@given(listings(), st.randoms(use_true_random=False))
def test_a_directory_comes_back_whatever_order_its_entries_were_given_in(listing, order: random.Random) -> None:  # type: ignore[no-untyped-def]
    encoded = build_directory_message(*listing)
    shuffled = [list(part) for part in listing]
    for part in shuffled:
        order.shuffle(part)
    assert build_directory_message(*shuffled) == encoded
    parsed = parse_directory(encoded)
    assert sorted((f.name, f.hash, f.size, f.executable) for f in parsed.files) == sorted(listing[0])
    assert sorted((d.name, d.hash, d.size) for d in parsed.directories) == sorted(listing[1])
    assert sorted((s.name, s.target) for s in parsed.symlinks) == sorted(listing[2])
    assert [f.name for f in parsed.files] == sorted((f.name for f in parsed.files), key=escape)


def test_an_empty_directory_has_no_bytes() -> None:
    assert build_directory_message([], [], []) == b""
    assert parse_directory(b"").files == []


def directory(*names: str, **fields: object) -> bytes:
    files = [reapi.FileNode(name=one, digest=reapi.Digest(hash=HASH, size_bytes=1)) for one in names]
    return reapi.serialise(reapi.Directory(files=files, **fields))


def file_with(hash_text: str, size_bytes: int = 1) -> bytes:
    digest = reapi.Digest(hash=hash_text, size_bytes=size_bytes)
    return reapi.serialise(reapi.Directory(files=[reapi.FileNode(name="a", digest=digest)]))


def link(target: str) -> bytes:
    return reapi.serialise(reapi.Directory(symlinks=[reapi.SymlinkNode(name="a", target=target)]))


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (directory("b", "a"), "not sorted"),
        (directory("a", "a"), "twice"),
        (directory("a", symlinks=[reapi.SymlinkNode(name="a", target="t")]), "twice"),
        (directory("."), "cannot be the name"),
        (directory(".."), "cannot be the name"),
        (directory(escape(b"")), "empty"),
        (directory("a/b"), "slash"),
        (directory("a\0b"), "slash or a NUL"),
        (directory("\x01%2F%E9"), "not properly escaped"),
        (directory("\x01/%E9"), "slash"),
        (directory("a" * 256), "255 are allowed"),
        (directory("é" * 128), "255 are allowed"),
        (directory("\x01plain"), "not properly escaped"),
        (file_with("ab" * 31), "lower-case hexadecimal"),
        (file_with("AB" * 32), "lower-case hexadecimal"),
        (file_with("ab " * 21 + "a"), "lower-case hexadecimal"),
        (file_with("zz" * 32), "lower-case hexadecimal"),
        (file_with(""), "lower-case hexadecimal"),
        (file_with(HASH, -1), "size"),
        (link(""), "target"),
        (link("a\0b"), "target"),
        (link("a" * 5000), "target"),
        (b"\xff\xff\xff", "not a Directory"),
        (b"\x0a\x05\x0a\x03\xff\xfe\xfd", "not a Directory"),
    ],
)
def test_what_breaks_a_rule_is_refused_in_a_sentence(encoded: bytes, reason: str) -> None:
    with pytest.raises(TreeInvalid, match=reason):
        parse_directory(encoded)


def test_a_name_of_exactly_255_bytes_is_allowed() -> None:
    assert len(parse_directory(directory("a" * 255)).files[0].name) == 255


def test_what_is_too_large_is_refused_before_it_is_read() -> None:
    with pytest.raises(TreeInvalid, match="2 entries"):
        parse_directory(directory("a", "b"), TreeLimits(max_entries=1))
    with pytest.raises(TreeInvalid, match="bytes"):
        parse_directory(b"\xff" * 100, TreeLimits(max_bytes=99))


@given(st.binary(max_size=200))
def test_any_bytes_are_either_a_directory_or_refused(encoded: bytes) -> None:
    try:
        parse_directory(encoded)
    except TreeInvalid:
        return


def test_node_properties_of_others_are_allowed_and_left_out() -> None:
    properties = reapi.NodeProperties(properties=[reapi.NodeProperty(name="p", value="v")])
    digest = reapi.Digest(hash=HASH, size_bytes=1)
    node = reapi.FileNode(name="a", digest=digest, node_properties=properties)
    assert len(parse_directory(reapi.serialise(reapi.Directory(files=[node]))).files) == 1
