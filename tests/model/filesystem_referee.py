"""Compares a filesystem with the model: names, link counts, attributes and bytes."""

from __future__ import annotations

import stat
from collections import Counter
from typing import Any

from tests.model.filesystem_model import Directory, Link
from tvfs.testing.memory_vault import MemoryWorld


class Differs(AssertionError):
    """The filesystem is not as the model says."""


def demand(true: bool, what: str) -> None:
    """Raise `Differs` unless something is true."""
    if not true:
        raise Differs(what)


def nodes_below(directory: Directory, path: bytes = b"") -> list[tuple[bytes, Any]]:
    """Return path and node of everything below a directory; a node with two names twice."""
    found: list[tuple[bytes, Any]] = []
    for name, node in directory.names.items():
        at = path + b"/" + name if path else name
        found.append((at, node))
        if isinstance(node, Directory):
            found += nodes_below(node, at)
    return found


async def compare(
    world: MemoryWorld, path: bytes, directory: Directory, links: Counter[int], *, more_links: bool
) -> None:
    """Compare all below a directory; `more_links`: names that are in the trash may still count."""
    demand(world.names(path) == sorted(directory.names), f"{path!r} has other names")
    seen = world.stat(path)
    subdirectories = sum(isinstance(node, Directory) for node in directory.names.values())
    demand(seen.nlink == 2 + subdirectories, f"{path!r} has {seen.nlink} links")
    demand(not path or seen.mode == stat.S_IFDIR | directory.mode, f"{path!r} has mode {seen.mode:o}")
    for name, node in directory.names.items():
        at = path + b"/" + name if path else name
        if isinstance(node, Directory):
            await compare(world, at, node, links, more_links=more_links)
            continue
        found, expected = world.stat(at), links[id(node)]
        demand(found.nlink == expected or (more_links and found.nlink > expected), f"{at!r} has {found.nlink} links")
        if isinstance(node, Link):
            demand(world.filesystem.readlink(found.ino) == node.target, f"{at!r} leads elsewhere")
        else:
            demand(found.mode == stat.S_IFREG | node.mode, f"{at!r} has mode {found.mode:o}")
            demand(found.size == len(node.content), f"{at!r} has {found.size} bytes")
            demand(await world.read(at) == node.content, f"{at!r} has other content")
