"""Records as the native tracer writes them."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tvplugins.tracer.native_record import FIRST_ENTRY

CLONED, EXECUTED, ENDED, TROUBLE, END = 1001, 1002, 1003, 1004, 1005


def native_entry(
    kind: int, tid: int, at_ns: int, result: int, flags: int, strings: Sequence[bytes | None] = ()
) -> bytes:
    """One entry; None is a string that could not be read."""
    body = b"".join(struct.pack("<H", 0xFFFF if raw is None else len(raw)) + (raw or b"") for raw in strings)
    padding = -(40 + len(body)) % 8
    head = (40 + len(body) + padding, kind, len(strings), tid, 0, at_ns, result, flags)
    return struct.pack("=IHHiIQqQ", *head) + body + bytes(padding)


def native_record(*entries: bytes) -> bytes:
    """A record of them."""
    body = b"".join(entries)
    return struct.pack("=QQ8xQ", FIRST_ENTRY + len(body), 0, 1 << 20).ljust(FIRST_ENTRY, b"\0") + body


@contextmanager
def in_a_file(record: bytes) -> Iterator[int]:
    """A descriptor of a file that holds it."""
    descriptor = os.memfd_create("record")
    try:
        os.write(descriptor, record)
        yield descriptor
    finally:
        os.close(descriptor)
