"""A file of fixed size in which all processes of a user remember the digests of files, for as long as the system runs.

A row is what identifies a state of a file, its digest, and a check of both.  Nobody locks anything: a row that two have
written at once does not pass its check, and is no row.  After a crash of the system a file may hold something else than
its times tell, so a table of another boot is begun anew.
"""

from __future__ import annotations

import mmap
import os
import struct
from contextlib import suppress
from pathlib import Path

from taskvault.run.private_directory import NotPrivate, private_directory
from tvfs.plugin_api import HashFunction

Identity = tuple[int, int, int, int, int, int]
"""Device, inode, mode, size, mtime and ctime in nanoseconds."""

ROWS = 1 << 16
"""Of 96 bytes: 6 MiB; a build of thousands of files reads some ten thousand different ones."""

_MAGIC = b"taskvault digests 1 "
_HEADER_BYTES = 128
_ROW = struct.Struct("<6Q32s16s")
_IDENTITY = struct.Struct("<6Q")
_NUMBER = (1 << 64) - 1
"""Times may lie before 1970, or after 2554."""
_NEIGHBOURS = 4
"""Rows in which one identity may be."""


class DigestTable:
    """The open file."""

    def __init__(self, mapped: mmap.mmap, hash_function: HashFunction) -> None:
        """Use `DigestTable.open`."""
        self._mapped = mapped
        self._hash_function = hash_function

    @classmethod
    def open(cls, hash_function: HashFunction) -> DigestTable | None:
        """Open the user's table for a hash function; None where that is not possible."""
        with suppress(OSError, ValueError, NotPrivate):
            place = private_directory() / f"digests-{hash_function.name}"
            header = _header()
            mapped = _mapped(place)
            if mapped is None or mapped[:_HEADER_BYTES] != header:
                _make(place, header)
                mapped = _mapped(place)
            if mapped is not None and mapped[:_HEADER_BYTES] == header:
                return cls(mapped, hash_function)
        return None

    def get(self, identity: Identity) -> bytes | None:
        """Return the digest, if it is known."""
        wanted = _packed(identity)
        for start in _places(identity):
            row = self._mapped[start : start + _ROW.size]
            if row.startswith(wanted) and self._check(row[:-16]) == row[-16:]:
                return row[_IDENTITY.size : -16]
        return None

    def put(self, identity: Identity, digest: bytes) -> None:
        """Remember a digest, in the place of another one if there is no room."""
        row = _packed(identity) + digest
        places = _places(identity)
        empty = bytes(8)
        # The inode is never 0, and comes second.
        free = next((start for start in places if self._mapped[start + 8 : start + 16] == empty), None)
        if free is None:
            free = places[digest[0] % _NEIGHBOURS]
        self._mapped[free : free + _ROW.size] = row + self._check(row)

    def _check(self, row: bytes) -> bytes:
        return self._hash_function.digest(row)[:16]


def _packed(identity: Identity) -> bytes:
    return _IDENTITY.pack(*[number & _NUMBER for number in identity])


def _places(identity: Identity) -> list[int]:
    # The hash of numbers is the same in every process.
    first = hash(identity) % (ROWS // _NEIGHBOURS) * _NEIGHBOURS
    return [_HEADER_BYTES + (first + number) * _ROW.size for number in range(_NEIGHBOURS)]


def _header() -> bytes:
    boot = Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    return (_MAGIC + boot).ljust(_HEADER_BYTES, b"\0")


def _mapped(place: Path) -> mmap.mmap | None:
    try:
        descriptor = os.open(place, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        size = _HEADER_BYTES + ROWS * _ROW.size
        return mmap.mmap(descriptor, size) if os.fstat(descriptor).st_size == size else None
    finally:
        os.close(descriptor)


def _make(place: Path, header: bytes) -> None:
    unfinished = place.with_name(f"{place.name}.{os.getpid()}")
    descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, _HEADER_BYTES + ROWS * _ROW.size)
        os.pwrite(descriptor, header, 0)
    finally:
        os.close(descriptor)
    os.rename(unfinished, place)
