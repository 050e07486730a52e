"""Requests are read as laid out, and whatever else comes is refused as malformed, never something else."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvfs.fuse.kernel.protocol import MalformedRequest, Opcode
from tvfs.fuse.kernel.requests import SHAPES, parse_body, parse_header

HEADER = struct.Struct("=IIQQIIIHH")


def message(opcode: int, body: bytes = b"", *, length: int | None = None, extension_units: int = 0) -> memoryview:
    total = HEADER.size + len(body) if length is None else length
    return memoryview(HEADER.pack(total, opcode, 9, 7, 1, 2, 3, extension_units, 0) + body)


def parsed(opcode: int, body: bytes) -> tuple[object, ...]:
    whole = message(opcode, body)
    return parse_body(parse_header(whole), whole)


def test_a_header_says_who_asks_what() -> None:
    header = parse_header(message(Opcode.LOOKUP, b"x\0"))
    assert header[:7] == (42, Opcode.LOOKUP, 9, 7, 1, 2, 3)


# A captured body of each kind that has more than fixed fields, and what it holds.
VECTORS = [
    (Opcode.LOOKUP, b"name\0", (b"name",)),
    (Opcode.SYMLINK, b"name\0to/here\0", (b"name", b"to/here")),
    (Opcode.MKNOD, struct.pack("=IIII", 0o100644, 5, 0o22, 0) + b"n\0", (0o100644, 5, 0o22, 0, b"n")),
    (Opcode.MKDIR, struct.pack("=II", 0o755, 0o22) + b"n\0", (0o755, 0o22, b"n")),
    (Opcode.RENAME, struct.pack("=Q", 5) + b"a\0b\0", (5, b"a", b"b")),
    (Opcode.RENAME2, struct.pack("=QII", 5, 1, 0) + b"a\0b\0", (5, 1, 0, b"a", b"b")),
    (Opcode.LINK, struct.pack("=Q", 5) + b"a\0", (5, b"a")),
    (Opcode.CREATE, struct.pack("=IIII", 2, 0o644, 0o22, 0) + b"a\0", (2, 0o644, 0o22, 0, b"a")),
    (Opcode.WRITE, struct.pack("=QQIIQII", 1, 2, 3, 4, 5, 6, 0) + b"abc", (1, 2, 3, 4, 5, 6, 0, b"abc")),
    (Opcode.SETXATTR, struct.pack("=II", 3, 1) + b"user.a\0v\0w", (3, 1, b"user.a", b"v\0w")),
    (Opcode.GETXATTR, struct.pack("=II", 3, 0) + b"user.a\0", (3, 0, b"user.a")),
    (Opcode.BATCH_FORGET, struct.pack("=IIQQQQ", 2, 0, 5, 1, 6, 2), (2, 0, [(5, 1), (6, 2)])),
    (Opcode.INIT, struct.pack("=IIII", 7, 31, 4096, 1), (7, 31, 4096, 1, 0)),
    (Opcode.INIT, struct.pack("=IIIII", 7, 45, 4096, 1, 2) + bytes(44), (7, 45, 4096, 1, 2)),
    (Opcode.READ, struct.pack("=QQIIQII", 1, 2, 3, 4, 5, 6, 0), (1, 2, 3, 4, 5, 6, 0)),
    (Opcode.STATX, struct.pack("=IIQII", 1, 0, 2, 3, 0xFFF), (1, 0, 2, 3, 0xFFF)),
    (Opcode.STATFS, b"", ()),
]  # fmt: skip


@pytest.mark.parametrize(("opcode", "body", "fields"), VECTORS, ids=lambda value: getattr(value, "name", None))
def test_a_body_holds_its_fields(opcode: Opcode, body: bytes, fields: tuple[object, ...]) -> None:
    assert parsed(opcode, body) == fields


@pytest.mark.parametrize(("opcode", "body", "fields"), VECTORS, ids=lambda value: getattr(value, "name", None))
def test_a_body_that_is_cut_off_is_malformed(opcode: Opcode, body: bytes, fields: tuple[object, ...]) -> None:
    if opcode is Opcode.INIT or not body:
        return
    with pytest.raises(MalformedRequest):
        parsed(opcode, body[:-1])


def test_extensions_after_the_body_are_no_part_of_it() -> None:
    extension = struct.pack("=IIQ", 16, 32, 0)
    whole = message(Opcode.LOOKUP, b"name\0" + extension, extension_units=2)
    assert parse_body(parse_header(whole), whole) == (b"name",)


def test_names_have_no_zero_in_them() -> None:
    for body in (b"", b"a", b"a\0b\0", b"\0\0"):
        with pytest.raises(MalformedRequest):
            parsed(Opcode.LOOKUP, body)
    for body in (b"", b"a\0", b"a\0b", b"a\0b\0c\0"):
        with pytest.raises(MalformedRequest):
            parsed(Opcode.SYMLINK, body)


@pytest.mark.parametrize("length", [0, 39, 41, 1 << 31])
def test_a_length_that_is_not_the_messages_is_malformed(length: int) -> None:
    with pytest.raises(MalformedRequest):
        parse_header(message(Opcode.STATFS, length=length))


def test_a_kind_that_is_not_known_has_no_fields() -> None:
    assert parsed(999, b"anything") == ()
    assert parsed(Opcode.IOCTL, b"anything") == ()


@given(st.binary(max_size=200))
def test_any_bytes_are_a_header_or_malformed(content: bytes) -> None:
    try:
        parse_header(memoryview(content))
    except MalformedRequest:
        return
    assert len(content) >= HEADER.size


@given(st.sampled_from(sorted(SHAPES)), st.binary(max_size=300), st.integers(0, 40))
def test_any_body_is_read_or_malformed(opcode: Opcode, body: bytes, extension_units: int) -> None:
    whole = message(opcode, body, extension_units=extension_units)
    try:
        fields = parse_body(parse_header(whole), whole)
    except MalformedRequest:
        return
    assert isinstance(fields, tuple)
