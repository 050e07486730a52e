"""Sections of programs and objects that a compiler has compressed: what they hold cannot be searched as it lies.

Pure.  Known are ELF files of 64 bits, little-endian, and archives of them; what is damaged has no sections.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

_ELF = b"\x7fELF\x02\x01"
_ARCHIVE = b"!<arch>\n"
_COMPRESSED = 0x800
_ZLIB, _ZSTD = 1, 2
_MOST_BYTES = 1 << 30


class SectionUnreadable(Exception):
    """A section is compressed in a way that is not known, or is damaged."""


class _Section(NamedTuple):
    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    more: int
    alignment: int
    entry_size: int


def may_have_sections(start: bytes) -> bool:
    """Whether a file that begins so is looked into."""
    return start.startswith((_ELF, _ARCHIVE))


def compressed_sections(content: memoryview) -> Iterator[bytes]:
    """Yield the content of every compressed section; raise `SectionUnreadable`."""
    try:
        if content[:8] == _ARCHIVE:
            for member in _members(content):
                yield from _of_object(member)
        else:
            yield from _of_object(content)
    except (struct.error, zlib.error, ValueError, IndexError, OverflowError) as exc:
        raise SectionUnreadable(str(exc)) from exc


def _members(content: memoryview) -> Iterator[memoryview]:
    at = len(_ARCHIVE)
    while at + 60 <= len(content):
        size = int(bytes(content[at + 48 : at + 58]))
        yield content[at + 60 : at + 60 + size]
        at += 60 + size + size % 2


def _of_object(content: memoryview) -> Iterator[bytes]:
    if content[:6] != _ELF:
        return
    (table,) = struct.unpack_from("<Q", content, 40)
    entry_size, count, names_at = struct.unpack_from("<HHH", content, 58)
    sections = [_Section(*struct.unpack_from("<IIQQQQIIQQ", content, table + n * entry_size)) for n in range(count)]
    names = sections[names_at] if names_at < count else None
    for section in sections:
        part = content[section.offset : section.offset + section.size]
        if section.flags & _COMPRESSED:
            kind, _, size = struct.unpack_from("<IIQ", part)
            yield _expanded(kind, bytes(part[24:]), size)
        elif names is not None and bytes(content[names.offset + section.name :][:8]) == b".zdebug_":
            yield _expanded(_ZLIB, bytes(part[12:]), int.from_bytes(part[4:12], "big"))


def _expanded(kind: int, part: bytes, size: int) -> bytes:
    if size > _MOST_BYTES:
        raise SectionUnreadable("it is too large")
    if kind == _ZLIB:
        return zlib.decompressobj().decompress(part, size)
    if kind == _ZSTD:
        import zstandard

        try:
            return zstandard.ZstdDecompressor().decompress(part, max_output_size=size)
        except zstandard.ZstdError as exc:
            raise SectionUnreadable(str(exc)) from exc
    raise SectionUnreadable(f"its compression {kind} is not known")
