"""Build what is stored of one directory from its entries: canonical form, attributes, index.

Pure, and one directory at a time, subdirectories first: whoever walks a local tree and whoever seals a live one use the
same function, so both give the same digests.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from tvfs.catalog.catalog import Family
from tvfs.content.attributes import VERSION as ATTRIBUTES_VERSION
from tvfs.content.attributes import (
    Attributes,
    EntryAttributes,
    OwnAttributes,
    SubdirectoryAttributes,
    encode_attributes,
)
from tvfs.content.reference import ContentKind
from tvfs.content.snapshot import Snapshot
from tvfs.content.tree_index import (
    DIRECTORY,
    MAX_SIZE,
    PAGE_ENTRIES,
    REGULAR,
    SYMLINK,
    IndexEntry,
    TreeIndexRoot,
    encode_index,
    tree_index_id,
)
from tvfs.content.tree_index import VERSION as INDEX_VERSION
from tvfs.content.trees import build_directory_message
from tvfs.digest import Digest
from tvfs.plugin_api import HashFunction

DEFAULT_DIRECTORY_MODE = 0o755


@dataclass(frozen=True, slots=True)
class Subdirectory:
    """A built directory, as its parent needs to know it."""

    snapshot: Snapshot
    own: OwnAttributes
    below: int
    """Inodes below, at any depth."""
    height: int = 0
    """Levels of directories below."""


@dataclass(frozen=True, slots=True)
class BuiltDirectory:
    """Everything that is stored of one directory."""

    directory: Subdirectory
    tree: bytes
    """The canonical form, to be stored as a blob under the digest of the snapshot."""
    attributes: bytes | None
    """The attributes object, likewise."""
    rows: list[tuple[Family, bytes, bytes]]
    """Index rows `(family, key, value)`."""


class TreeBuilder:
    """Builds directories for one vault; keeps nothing between calls, so several threads may use one."""

    def __init__(self, hash_function: HashFunction, *, with_attributes: bool = True) -> None:
        self._function = hash_function.name
        self._hash_of: Callable[[bytes], bytes] = hash_function.digest
        self._empty_hash = hash_function.digest(b"")
        self._with_attributes = with_attributes

    def build(
        self,
        own: OwnAttributes,
        entries: Sequence[IndexEntry],
        directories: Sequence[tuple[bytes, Subdirectory]] = (),
        hard_links: Sequence[Sequence[bytes]] = (),
    ) -> BuiltDirectory:
        """Return what to store of a directory with these entries, in any order, all names different.

        `entries` are files, symlinks and special files; they are numbered in copies.  `hard_links` are
        groups of paths below, for the root of a snapshot only.
        """
        tree = self._canonical(entries, directories)
        tree_hash = self._hash_of(tree)
        attributes = self._attributes(own, entries, directories, hard_links) if self._with_attributes else None
        attributes_hash = None if attributes is None else self._hash_of(attributes)
        index = tree_index_id(self._hash_of, tree_hash, attributes_hash)
        numbered, below = _numbered([*entries, *(_directory_entry(name, child) for name, child in directories)])
        snapshot = Snapshot(
            Digest(self._function, tree_hash, len(tree)),
            Digest(self._function, attributes_hash, len(attributes)) if attributes and attributes_hash else None,
            index,
            *_totals(entries, directories),
        )
        height = max((child.height + 1 for _, child in directories), default=0)
        root = replace(_index_root(snapshot, own, numbered, below, len(directories)), height=height)
        if hard_links:
            root = replace(root, hard_links=sorted(sorted(group) for group in hard_links))
        directory = Subdirectory(snapshot, own, below, height)
        return BuiltDirectory(directory, tree, attributes, encode_index(root, index, numbered))

    def _canonical(self, entries: Sequence[IndexEntry], directories: Sequence[tuple[bytes, Subdirectory]]) -> bytes:
        empty, empty_hash = ContentKind.EMPTY, self._empty_hash
        return build_directory_message(
            (
                (
                    entry.name,
                    empty_hash if entry.content_kind == empty else entry.content_hash,
                    entry.size,
                    # Any execute bit: what a tool without owners would do with the file.
                    bool(entry.mode & 0o111),
                )
                for entry in entries
                if entry.kind == REGULAR
            ),
            ((name, child.snapshot.tree.hash, child.snapshot.tree.size) for name, child in directories),
            ((entry.name, entry.target) for entry in entries if entry.kind == SYMLINK),
        )

    def _attributes(
        self,
        own: OwnAttributes,
        entries: Sequence[IndexEntry],
        directories: Sequence[tuple[bytes, Subdirectory]],
        hard_links: Sequence[Sequence[bytes]],
    ) -> bytes:
        rows = [EntryAttributes(e.name, e.kind, e.mode, e.uid, e.gid, e.mtime_ns, e.rdev, e.xattrs) for e in entries]
        rows.sort(key=lambda row: row.name)
        children = []
        for name, child in sorted(directories, key=lambda named: named[0]):
            digest = child.snapshot.attributes
            children.append(SubdirectoryAttributes(name, digest.hash if digest else b"", digest.size if digest else 0))
        groups = sorted(sorted(group) for group in hard_links)
        return encode_attributes(Attributes(ATTRIBUTES_VERSION, own, rows, children, groups))


def _totals(entries: Sequence[IndexEntry], directories: Sequence[tuple[bytes, Subdirectory]]) -> tuple[int, int]:
    sizes = [entry.size for entry in entries if entry.kind == REGULAR]
    files = len(sizes) + sum(child.snapshot.files for _, child in directories)
    # Sparse files of the longest kind can add up to more than the row can tell.
    return files, min(sum(sizes) + sum(child.snapshot.size for _, child in directories), MAX_SIZE)


def _directory_entry(name: bytes, child: Subdirectory) -> IndexEntry:
    own = child.own
    return IndexEntry(
        name, DIRECTORY, own.mode, own.uid, own.gid, own.mtime_ns,
        child=child.snapshot.index, below=child.below, xattrs=own.xattrs,
    )  # fmt: skip


def _numbered(entries: list[IndexEntry]) -> tuple[list[IndexEntry], int]:
    entries.sort(key=lambda entry: entry.name)
    preorder = 1
    for position, entry in enumerate(entries):
        # Copied, never changed: an entry may come from a page that others are reading.
        if entry.preorder != preorder:
            entries[position] = replace(entry, preorder=preorder)
        preorder += 1 + entry.below
    return entries, preorder - 1


def _index_root(
    snapshot: Snapshot, own: OwnAttributes, entries: list[IndexEntry], below: int, subdirectories: int
) -> TreeIndexRoot:
    attributes = snapshot.attributes
    return TreeIndexRoot(
        version=INDEX_VERSION,
        function=snapshot.tree.function,
        tree_hash=snapshot.tree.hash,
        tree_size=snapshot.tree.size,
        attributes_hash=attributes.hash if attributes else b"",
        attributes_size=attributes.size if attributes else 0,
        mode=own.mode,
        uid=own.uid,
        gid=own.gid,
        mtime_ns=own.mtime_ns,
        xattrs=own.xattrs,
        entries=len(entries),
        below=below,
        files=snapshot.files,
        bytes=snapshot.size,
        subdirectories=subdirectories,
        page_names=[entry.name for entry in entries[::PAGE_ENTRIES]],
        page_preorders=[entry.preorder for entry in entries[::PAGE_ENTRIES]],
    )


def kind_of(mode: int) -> int:
    """Return the `kind` of an `IndexEntry` for an `st_mode`."""
    return stat.S_IFMT(mode) >> 12
