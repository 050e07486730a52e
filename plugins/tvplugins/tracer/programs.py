"""What the kernel itself reads to execute a program: the interpreter of a script, the loader of a dynamic program."""

from __future__ import annotations

import struct

_ELF_LOADER = 3
"""The program header of type PT_INTERP."""
_ROW = {1: (struct.Struct("<I I I I I I I I"), 28, 42), 2: (struct.Struct("<I I Q Q Q Q Q Q"), 32, 54)}
"""By ELF class: a program header, and where the ELF header says where they begin and how long one is."""


class HeaderUnclear(ValueError):
    """The first bytes of a program do not tell what it is interpreted by."""


def interpreter_of(header: bytes) -> str | None:
    """Return what runs the program that begins so, None for a static one; raise `HeaderUnclear`."""
    if header.startswith(b"#!"):
        line, end, _ = header[2:256].partition(b"\n")
        words = line.split()
        if not words or (not end and len(header) >= 256):
            raise HeaderUnclear("a script whose first line is empty or too long")
        return _decoded(words[0])
    if header[:4] != b"\x7fELF":
        # A format of binfmt_misc; the kernel would not have run anything else.
        raise HeaderUnclear("neither a script nor an ELF file")
    return _loader(header)


def _loader(header: bytes) -> str | None:
    try:
        row, table_at, size_at = _ROW[header[4]]
        first = struct.unpack_from("<Q" if header[4] == 2 else "<I", header, table_at)[0]
        size, count = struct.unpack_from("<HH", header, size_at)
        for number in range(count):
            fields = row.unpack_from(header, first + number * size)
            if fields[0] == _ELF_LOADER:
                # In 64 bits the flags come second, in 32 bits last.
                offset, length = (fields[2], fields[5]) if header[4] == 2 else (fields[1], fields[4])
                if length < 2 or offset + length > len(header):
                    raise HeaderUnclear("the name of its loader is not at its beginning")
                return _decoded(header[offset : offset + length - 1])
    except (KeyError, IndexError, struct.error) as exc:
        raise HeaderUnclear("a damaged ELF file") from exc
    return None


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
