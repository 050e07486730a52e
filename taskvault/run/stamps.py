"""Files in which ninja wrote down when it made the others: a replay makes all of them anew, and says so there.

Without that ninja would find every output older than what it was made from, or its dependencies out of date.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

LOG, DEPENDENCIES = ".ninja_log", ".ninja_deps"

_LOG_VERSIONS = (b"# ninja log v5\n", b"# ninja log v6\n", b"# ninja log v7\n")
_DEPENDENCIES_HEADER = b"# ninjadeps\n\x04\0\0\0"
_IS_DEPENDENCIES = 1 << 31

StampOf = Callable[[bytes], int | None]
"""Returns the time of a path in ns, None for what this result did not make."""


def restamp(place: Path, path: str, root: Path) -> None:
    """Write the times of what lies in `place`, which is to become `root`, into ninja's file there; raise `OSError`."""
    file = place / path

    def stamp_of(name: bytes) -> int | None:
        named = os.path.join(root, os.path.dirname(path), os.fsdecode(name))
        try:
            return os.lstat(place / os.path.relpath(named, root)).st_mtime_ns
        except OSError:
            return None

    content = file.read_bytes()
    changed = _RESTAMPED[file.name](content, stamp_of)
    if changed != content:
        stamp_ns = os.lstat(file).st_mtime_ns
        with open(file, "r+b") as opened:
            opened.write(changed)
            opened.truncate()
        os.utime(file, ns=(stamp_ns, stamp_ns))


def restamped_log(content: bytes, stamp_of: StampOf) -> bytes:
    """Return a log with other times: lines of start, end, time of the output in ns, output, hash of the command."""
    if not content.startswith(_LOG_VERSIONS):
        return content
    lines = content.split(b"\n")
    for number, line in enumerate(lines[1:], 1):
        fields = line.split(b"\t")
        stamp = stamp_of(fields[3]) if len(fields) == 5 and fields[2] != b"0" else None
        if stamp is not None:
            fields[2] = b"%d" % stamp
            lines[number] = b"\t".join(fields)
    return b"\n".join(lines)


def restamped_dependencies(content: bytes, stamp_of: StampOf) -> bytes:
    """Return dependencies with other times; what cannot be read is left as it is."""
    if not content.startswith(_DEPENDENCIES_HEADER):
        return content
    changed, names, at = bytearray(content), [], len(_DEPENDENCIES_HEADER)
    while at + 4 <= len(content):
        (size,) = struct.unpack_from("<I", content, at)
        at, length = at + 4, size & ~_IS_DEPENDENCIES
        if at + length > len(content):
            return content
        if not size & _IS_DEPENDENCIES:
            # A path, filled up with zero bytes, and a check of its number.
            names.append(content[at : at + length - 4].rstrip(b"\0"))
        else:
            (number,) = struct.unpack_from("<I", content, at)
            stamp = stamp_of(names[number]) if length >= 12 and number < len(names) else None
            if stamp is not None:
                struct.pack_into("<Q", changed, at + 4, stamp)
        at += length
    return bytes(changed)


_RESTAMPED: Mapping[str, Callable[[bytes, StampOf], bytes]] = {LOG: restamped_log, DEPENDENCIES: restamped_dependencies}
