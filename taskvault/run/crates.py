"""How rustc finds crates in the directory in which cargo keeps all that it builds.  Pure.

It lists the directory, whose names come and go while others compile.  But in one that it is told of by `-L dependency=`
it only searches for crates that other crates were compiled with: each by its whole name, `lib<crate>-<hash>`, and by
the digest that is written in the other.  So names that begin otherwise are nothing to it; those that begin so and are
none of the crate's own count.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence

_CRATE = re.compile(r"(lib.+-[0-9a-f]{16})\.(?:rlib|rmeta|so)\Z", re.DOTALL)
_OWN = frozenset({b".rlib", b".rmeta", b".so", b".d"})
_BY_DIGEST = "dependency"
_NO_CRATES = frozenset({"native", "framework"})


def searched_by_digest(arguments: Sequence[str] | None) -> frozenset[str]:
    """Return the directories in which a rustc with these arguments only looks for crates of crates.

    None, for arguments that are not known, and a file of arguments may name anything.
    """
    if arguments is None or any(each.startswith("@") for each in arguments):
        return frozenset()
    found: set[str] = set()
    others: set[str] = set()
    for value in _paths(arguments):
        kind, equals, path = value.partition("=")
        if not equals or kind not in _NO_CRATES | {_BY_DIGEST}:
            others.add(os.path.normpath(path if equals else value))
        elif kind == _BY_DIGEST and os.path.isabs(path):
            found.add(os.path.normpath(path))
    # A directory that is not absolute may be any of them.
    return frozenset(found - others) if all(map(os.path.isabs, others)) else frozenset()


def stem_of(path: str) -> str:
    """Return how the names of a crate's files begin, with their directory; empty for what is none of cargo's."""
    directory, name = os.path.split(path)
    match = _CRATE.match(name)
    return os.path.join(directory, match[1]) if match else ""


def others_alike(stem: bytes, names: Iterable[bytes]) -> list[bytes]:
    """Return those of the names in its directory that begin like a crate's, and are not the crate's."""
    start = os.path.basename(stem)
    return sorted(name for name in names if name.startswith(start) and name[len(start) :] not in _OWN)


def _paths(arguments: Sequence[str]) -> Iterator[str]:
    following = iter(arguments)
    for argument in following:
        if argument == "-L":
            yield next(following, "")
        elif argument.startswith("-L"):
            yield argument[2:]
