"""Requests from bytes: pure functions, one table that says how each kind is laid out."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any, NamedTuple

from tvfs.fuse.kernel import protocol as p
from tvfs.fuse.kernel.protocol import MalformedRequest, Opcode

HEADER_BYTES = p.IN_HEADER.size
_LONGEST_NAME = 1 << 16
"""Names are bounded by the filesystem; a symlink's target may have 4,096 bytes and more is refused there."""


class Header(NamedTuple):
    """What every request begins with."""

    length: int
    opcode: int
    unique: int
    nodeid: int
    uid: int
    gid: int
    pid: int
    extension_units: int
    padding: int


Rest = Callable[[int, tuple[Any, ...], memoryview], tuple[Any, ...]]
"""Takes opcode, the fixed fields, and the bytes after them."""


class Shape:
    """How the body of one kind of request is laid out."""

    __slots__ = ("_after", "_rest", "_unpack")

    def __init__(self, fixed: Struct, rest: Rest | None) -> None:
        """`rest` is None if nothing follows that counts."""
        self._unpack = fixed.unpack_from
        self._after = HEADER_BYTES + fixed.size
        self._rest = rest

    def parse(self, header: Header, message: memoryview) -> tuple[Any, ...]:
        """Return the fields; raise `MalformedRequest`."""
        end = header[0] - 8 * header[7]
        if self._after > end:
            raise MalformedRequest(header[1], "it is too short")
        fields = self._unpack(message, HEADER_BYTES)
        rest = self._rest
        return fields if rest is None else fields + rest(header[1], fields, message[self._after : end])


def parse_header(message: memoryview) -> Header:
    """Return the header of a request; raise `MalformedRequest`."""
    if len(message) < HEADER_BYTES:
        raise MalformedRequest(0, f"it has {len(message)} bytes, a header has {HEADER_BYTES}")
    # Not `_make`, which costs as much as the rest of this.
    header: Header = tuple.__new__(Header, p.IN_HEADER.unpack_from(message))
    length = header[0]
    if length != len(message) or HEADER_BYTES + 8 * header[7] > length:
        raise MalformedRequest(header.opcode, f"it says that it has {header.length} bytes and has {len(message)}")
    return header


def parse_body(header: Header, message: memoryview) -> tuple[Any, ...]:
    """Return the fields after the header, names and data last; raise `MalformedRequest`.

    Data (of a write, of an extended attribute) is a view into `message`.  A kind that is not in the table has none.
    """
    shape = shape_of(header.opcode)
    return () if shape is None else shape.parse(header, message)


def _name(opcode: int, fields: tuple[Any, ...], rest: memoryview) -> tuple[bytes]:
    name = bytes(rest)
    if not name or name.find(0) != len(name) - 1 or len(name) > _LONGEST_NAME:
        raise MalformedRequest(opcode, "its name does not end where it does")
    return (name[:-1],)


def _two_names(opcode: int, fields: tuple[Any, ...], rest: memoryview) -> tuple[bytes, bytes]:
    names = bytes(rest).split(b"\0")
    if len(names) != 3 or names[2] or len(rest) > _LONGEST_NAME:
        raise MalformedRequest(opcode, "it has no two names")
    return names[0], names[1]


def _name_and_value(opcode: int, fields: tuple[Any, ...], rest: memoryview) -> tuple[bytes, memoryview]:
    value_bytes = fields[0]
    name_bytes = len(rest) - value_bytes
    if name_bytes < 1:
        raise MalformedRequest(opcode, "it is shorter than it says")
    return *_name(opcode, fields, rest[:name_bytes]), rest[name_bytes:]


def _written(opcode: int, fields: tuple[Any, ...], rest: memoryview) -> tuple[memoryview]:
    if len(rest) != fields[2]:
        raise MalformedRequest(opcode, f"it says that it writes {fields[2]} bytes and has {len(rest)}")
    return (rest,)


def _forgotten(opcode: int, fields: tuple[Any, ...], rest: memoryview) -> tuple[list[tuple[int, int]]]:
    count = fields[0]
    if len(rest) < count * p.FORGET_ONE.size:
        raise MalformedRequest(opcode, "it forgets fewer than it says")
    return (list(p.FORGET_ONE.iter_unpack(rest[: count * p.FORGET_ONE.size])),)


def _more_flags(opcode: int, fields: tuple[Any, ...], rest: memoryview) -> tuple[int]:
    # Before 7.36 the structure ended here.
    return p.INIT_IN_FLAGS2.unpack_from(rest) if len(rest) >= p.INIT_IN_FLAGS2.size else (0,)


SHAPES: dict[Opcode, Shape] = {
    Opcode.LOOKUP: Shape(p.NOTHING, _name),
    Opcode.FORGET: Shape(p.FORGET_IN, None),
    Opcode.GETATTR: Shape(p.GETATTR_IN, None),
    Opcode.SETATTR: Shape(p.SETATTR_IN, None),
    Opcode.READLINK: Shape(p.NOTHING, None),
    Opcode.SYMLINK: Shape(p.NOTHING, _two_names),
    Opcode.MKNOD: Shape(p.MKNOD_IN, _name),
    Opcode.MKDIR: Shape(p.MKDIR_IN, _name),
    Opcode.UNLINK: Shape(p.NOTHING, _name),
    Opcode.RMDIR: Shape(p.NOTHING, _name),
    Opcode.RENAME: Shape(p.RENAME_IN, _two_names),
    Opcode.LINK: Shape(p.LINK_IN, _name),
    Opcode.OPEN: Shape(p.OPEN_IN, None),
    Opcode.READ: Shape(p.READ_IN, None),
    Opcode.WRITE: Shape(p.WRITE_IN, _written),
    Opcode.STATFS: Shape(p.NOTHING, None),
    Opcode.RELEASE: Shape(p.RELEASE_IN, None),
    Opcode.FSYNC: Shape(p.FSYNC_IN, None),
    Opcode.SETXATTR: Shape(p.SETXATTR_IN, _name_and_value),
    Opcode.GETXATTR: Shape(p.GETXATTR_IN, _name),
    Opcode.LISTXATTR: Shape(p.GETXATTR_IN, None),
    Opcode.REMOVEXATTR: Shape(p.NOTHING, _name),
    Opcode.FLUSH: Shape(p.FLUSH_IN, None),
    Opcode.INIT: Shape(p.INIT_IN, _more_flags),
    Opcode.OPENDIR: Shape(p.OPEN_IN, None),
    Opcode.READDIR: Shape(p.READ_IN, None),
    Opcode.RELEASEDIR: Shape(p.RELEASE_IN, None),
    Opcode.FSYNCDIR: Shape(p.FSYNC_IN, None),
    Opcode.ACCESS: Shape(p.ACCESS_IN, None),
    Opcode.CREATE: Shape(p.CREATE_IN, _name),
    Opcode.INTERRUPT: Shape(p.INTERRUPT_IN, None),
    Opcode.DESTROY: Shape(p.NOTHING, None),
    Opcode.BATCH_FORGET: Shape(p.BATCH_FORGET_IN, _forgotten),
    Opcode.FALLOCATE: Shape(p.FALLOCATE_IN, None),
    Opcode.READDIRPLUS: Shape(p.READ_IN, None),
    Opcode.RENAME2: Shape(p.RENAME2_IN, _two_names),
    Opcode.LSEEK: Shape(p.LSEEK_IN, None),
    Opcode.STATX: Shape(p.STATX_IN, None),
    Opcode.COPY_FILE_RANGE: Shape(p.COPY_FILE_RANGE_IN, None),
    Opcode.COPY_FILE_RANGE_64: Shape(p.COPY_FILE_RANGE_IN, None),
}
"""Every kind of request that is read; the others are answered ENOSYS unread."""
_BY_NUMBER = {int(opcode): shape for opcode, shape in SHAPES.items()}


def shape_of(opcode: int) -> Shape | None:
    """Return how a kind of request is laid out; None if it is not read."""
    return _BY_NUMBER.get(opcode)
