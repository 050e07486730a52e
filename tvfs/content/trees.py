"""The canonical form of one directory: a REAPI v2 `Directory`, built in one way only and believed only after a check.

Only this form is in keys, results and on the wire: names, content digests, executable bits, symlinks; no times, no
owners (those are in `tvfs.content.attributes`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter

from tvfs.content import reapi
from tvfs.content.directory_message import MAX_TARGET_BYTES as MAX_TARGET_BYTES
from tvfs.content.directory_message import TreeDirectory, TreeFile, TreeSymlink, merged, surveyed
from tvfs.content.directory_message import TreeInvalid as TreeInvalid
from tvfs.content.directory_message import TreeLimits as TreeLimits
from tvfs.content.names import escape


@dataclass(frozen=True, slots=True)
class TreeListing:
    """What one directory holds, each list in the order of the message."""

    files: list[TreeFile]
    directories: list[TreeDirectory]
    symlinks: list[TreeSymlink]


def build_directory_message(
    files: Iterable[tuple[bytes, bytes, int, bool]],
    directories: Iterable[tuple[bytes, bytes, int]],
    symlinks: Iterable[tuple[bytes, bytes]],
) -> bytes:
    """Return the canonical bytes; the order in which entries come does not matter.

    Files are `(name, hash, size, executable)`, directories `(name, hash, size)`, symlinks `(name, target)`.  Names are
    trusted to be valid and different: they come from a file system.
    """
    message = reapi.Directory()
    digest, add_file = reapi.Digest, message.files.add
    by_name = itemgetter(0)
    # Sorted by the escaped name: code point order and UTF-8 byte order are the same.
    for name, hash_, size, executable in sorted(((escape(raw), h, s, x) for raw, h, s, x in files), key=by_name):
        add_file(name=name, digest=digest(hash=hash_.hex(), size_bytes=size), is_executable=executable)
    for name, hash_, size in sorted(((escape(raw), h, s) for raw, h, s in directories), key=by_name):
        message.directories.add(name=name, digest=digest(hash=hash_.hex(), size_bytes=size))
    for name, target in sorted(((escape(raw), t) for raw, t in symlinks), key=by_name):
        message.symlinks.add(name=name, target=escape(target))
    return reapi.serialise(message)


def parse_directory(encoded: bytes, limits: TreeLimits | None = None) -> TreeListing:
    """Check a `Directory` message from anywhere and return what it holds; raise `TreeInvalid`.

    Node properties are allowed and left out: they are no part of the canonical form.
    """
    nodes, survey = surveyed(encoded, limits)
    for _ in merged(encoded, survey):  # finds a name that two kinds of entries share
        pass
    return TreeListing(
        [node for node in nodes if isinstance(node, TreeFile)],
        [node for node in nodes if isinstance(node, TreeDirectory)],
        [node for node in nodes if isinstance(node, TreeSymlink)],
    )
