"""What is wrong with a decoded root or page of a tree index, if anything is.

Rows come from clients and from disks.  Whoever follows them computes inode numbers and names, so a row that lies must
be found before it is believed: a number outside of its range would be somebody else's inode, and a directory that holds
itself would be walked for ever.  What single fields may be is in their types (`tvfs.content.tree_index`).
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from itertools import islice
from operator import lt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tvfs.content.tree_index import IndexEntry, TreeIndexRoot

PAGE_ENTRIES = 256
MAX_NAME_BYTES = 255
"""Longest name that a directory may hold, before escaping; the kernel's limit."""
MAX_HARD_LINKS = 1_000_000
"""Names of hard links below one root, which is decoded whole."""
_DIRECTORY = stat.S_IFDIR >> 12
_REGULAR = stat.S_IFREG >> 12
_SYMLINK = stat.S_IFLNK >> 12
_SPECIAL = frozenset(kind >> 12 for kind in (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK))
_HASH_BYTES = 32
_EMPTY = 0


def fault_of_root(root: TreeIndexRoot) -> str | None:
    """Return what no true root can say, or None."""
    pages = -(-root.entries // PAGE_ENTRIES)
    names, preorders = root.page_names, root.page_preorders
    if len(names) != pages or len(preorders) != pages:
        return "a table of pages that does not fit its count of entries"
    if not root.subdirectories <= root.entries <= root.below or root.files > root.below:
        return "counts that contradict each other"
    if pages:
        if preorders[0] != 1 or preorders[-1] > root.below or not all(map(lt, preorders, islice(preorders, 1, None))):
            return "pages whose numbers are not in order"
        if not all(map(lt, names, islice(names, 1, None))):
            return "pages whose names are not in order"
    elif root.below:
        return "something below and no entries"
    if root.hard_links and sum(map(len, root.hard_links)) > MAX_HARD_LINKS:
        return f"more than {MAX_HARD_LINKS} names of hard links"
    return None


def fault_of_entries(entries: Sequence[IndexEntry]) -> str | None:
    """Return what no entries of one directory can be, or None; on whole lists where possible, 40 µs a page of files."""
    if not entries:
        return None
    if len(entries) > PAGE_ENTRIES:
        return f"more than {PAGE_ENTRIES} entries in a page"
    names = [entry.name for entry in entries]
    joined = b"/".join(names)
    if joined.count(b"/") > len(names) - 1 or b"\0" in joined or any(map(names.__contains__, (b"", b".", b".."))):
        return "a name that no entry of a directory can have"
    if max(map(len, names)) > MAX_NAME_BYTES:
        return f"a name of more than {MAX_NAME_BYTES} bytes"
    if not all(map(lt, names, islice(names, 1, None))):
        return "names that are not in order"
    kinds = {entry.kind for entry in entries}
    lengths = {len(entry.content_hash) for entry in entries}
    if kinds == {_REGULAR} and lengths == {_HASH_BYTES} and not any([entry.below for entry in entries]):  # noqa: C419
        return None  # the usual page; a list is faster than a generator
    return _fault_of_kinds(entries)


def _fault_of_kinds(entries: Sequence[IndexEntry]) -> str | None:
    for entry in entries:
        kind = entry.kind
        if kind == _REGULAR:
            if len(entry.content_hash) != _HASH_BYTES and (entry.content_kind != _EMPTY or entry.size):
                return "a file without content"
        elif kind == _DIRECTORY:
            if len(entry.child) != _HASH_BYTES:
                return "a directory without an index"
        elif kind == _SYMLINK:
            if not entry.target or b"\0" in entry.target:
                return "a symlink whose target no symlink can have"
        elif kind not in _SPECIAL:
            return "an entry that is nothing that there is"
        if entry.below and kind != _DIRECTORY:
            return "something below what is no directory"
    return None


def fault_of_page(root: TreeIndexRoot, number: int, entries: Sequence[IndexEntry]) -> str | None:
    """Return how a page contradicts its root, or None: its names and numbers must be those that the root tells."""
    names, preorders = root.page_names, root.page_preorders
    if not 0 <= number < len(names) or len(entries) != min(PAGE_ENTRIES, root.entries - number * PAGE_ENTRIES):
        return "another count of entries than the root says"
    last = number + 1 == len(names)
    if entries[0].name != names[number] or not (last or entries[-1].name < names[number + 1]):
        return "other names than the root says"
    following = preorders[number]
    for entry in entries:
        if entry.preorder != following:
            return "inode numbers that do not follow each other"
        following += 1 + entry.below
    if following != (root.below + 1 if last else preorders[number + 1]):
        return "other inode numbers than the root says"
    return None
