"""What is below a path, without changing anything: how many files, how long, and what their rows refer to.

A subtree that is as it was attached is read from its index: its totals are there, and none of its inodes is looked at.
In slices; what changes meanwhile may count or not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from tvfs.catalog.catalog import Catalog, Family
from tvfs.content.tree_index import DIRECTORY, REGULAR, IndexEntry, TreeIndexMissing
from tvfs.filesystem.directories import Directories, Listed
from tvfs.filesystem.inode import HAS_DELTAS, NO_HASH, STAGED, Inode
from tvfs.filesystem.nodes import Nodes
from tvfs.filesystem.staging import Staging
from tvfs.vault.references import TREE_KEY, references_of
from tvfs.vault.weighing import Weigher

SLICE = 32
"""Names looked at in one step: well under 1 ms."""


@dataclass(slots=True)
class Found:
    """Totals; a file with several names counts once."""

    files: int = 0
    directories: int = 0
    logical_bytes: int = 0
    staged_bytes: int = 0


@dataclass(slots=True)
class _Linked:
    """A file with several names."""

    names: int
    """Found so far."""
    refers: list[bytes]


class Surveyor:
    """Looks at live trees; several looks may be under way at once."""

    def __init__(
        self, catalog: Catalog, nodes: Nodes, directories: Directories, staging: Staging, *, function: str
    ) -> None:
        """`function` names the vault's hash function."""
        self.catalog = catalog
        self.nodes = nodes
        self.directories = directories
        self.staging = staging
        self.function = function

    async def survey(self, ino: int, weigher: Weigher) -> Found:
        """Return the totals of an inode and everything below; `weigher` gets what it refers to.

        What would lose its reference if the path went is released, the rest, that of attached trees, only reached.
        """
        return await _Survey(self, weigher).run(ino)

    def references_of_rows(self, ino: int) -> list[bytes]:
        """Return what the rows of an inode refer to: they go when it goes."""
        key = ino.to_bytes(8, "big")
        families = [Family.INODE, Family.STAGING]
        attached = self.nodes.ranges.find(ino)
        if attached is not None and attached.first == ino and not attached.moved:
            families.append(Family.RANGE)
        rows = ((family, self.catalog.get(family, key)) for family in families)
        return [
            each for family, row in rows if row is not None for each in references_of(family, key, row, self.function)
        ]

    def as_attached(self, ino: int, directory: Inode) -> int | None:
        """Return how many inodes are below if nothing below was changed since it was attached; None otherwise."""
        if directory.hash == NO_HASH or directory.flags & HAS_DELTAS:
            return None
        below = self.nodes.trees.root(directory.hash).below
        start, end = (ino + 1).to_bytes(8, "big"), (ino + 1 + below).to_bytes(8, "big")
        changed = any(
            next(self.catalog.scan(family, start, end), None) is not None for family in (Family.INODE, Family.DIRENT)
        )
        return None if changed else below

    def reference_of_entry(self, entry: IndexEntry) -> list[bytes]:
        """Return what a file of an attached tree refers to."""
        if entry.kind != REGULAR or not entry.size:
            return []
        inode = Inode(
            entry.st_mode, 0, 0, 1, entry.size, 0, 0, 0, state=entry.content_kind + 1, hash=entry.content_hash
        )
        return references_of(Family.INODE, b"", inode.encode(), self.function)


class _Survey:
    """One look."""

    def __init__(self, of: Surveyor, weigher: Weigher) -> None:
        self._of = of
        self._weigher = weigher
        self._pace = weigher.pace
        self._found = Found()
        self._linked: dict[int, _Linked] = {}
        self._waiting: list[int] = []
        self._directories_below: dict[bytes, int] = {}

    async def run(self, ino: int) -> Found:
        inode = self._of.nodes.get(ino)
        if inode.is_directory:
            self._waiting.append(ino)
        else:
            await self._weigher.release(self._file(ino, inode))
        while self._waiting:
            below = self._waiting.pop()
            directory = self._of.nodes.find(below)
            if directory is not None:  # else removed meanwhile
                await self._directory(below, directory)
        return self._found

    async def _directory(self, ino: int, directory: Inode) -> None:
        found = self._found
        found.directories += 1
        await self._weigher.release(self._of.references_of_rows(ino))
        try:
            untouched = self._of.as_attached(ino, directory)
            if untouched is None:
                await self._list(ino, directory)
                return
            root = self._of.nodes.trees.root(directory.hash)
            found.files += root.files
            found.logical_bytes += root.bytes
            found.directories += await self._count_directories(directory.hash)
            self._weigher.reach([TREE_KEY + directory.hash])
        except TreeIndexMissing:  # damaged; what there is of it has been counted
            return

    async def _list(self, ino: int, directory: Inode) -> None:
        after: bytes = b""
        while True:
            part = list(islice(self._of.directories.listing(ino, directory, after), SLICE))
            refers = [each for listed in part for each in self._visit(ino, listed)]
            await self._pace.breathe()
            await self._weigher.release(refers)
            await self._pace.breathe()
            if len(part) < SLICE:
                return
            after = part[-1].name

    def _visit(self, parent: int, listed: Listed) -> Iterable[bytes]:
        """Count one name; return what would lose a reference."""
        if listed.kind == DIRECTORY:
            if listed.entry is not None:
                self._of.nodes.child(parent, listed.entry)
            self._waiting.append(listed.ino)
            return ()
        # Past the memory of inodes: those that programs use shall stay in it.
        row = self._of.catalog.get(Family.INODE, listed.ino.to_bytes(8, "big"))
        if row is None and listed.entry is not None:
            self._count(listed.entry.kind == REGULAR, listed.entry.size)
            self._weigher.reach(self._of.reference_of_entry(listed.entry))
            return ()
        return () if row is None else self._file(listed.ino, Inode.decode(row))

    def _file(self, ino: int, inode: Inode) -> list[bytes]:
        linked = self._linked.get(ino)
        if linked is None:
            staged = self._of.staging.files.get(ino) if inode.state == STAGED else None
            self._count(inode.is_regular, inode.size if staged is None else staged.size)
            if staged is not None:
                self._found.staged_bytes += staged.size if staged.in_row else staged.allocated_bytes
            refers = self._of.references_of_rows(ino)
            if inode.nlink <= 1:
                return refers
            linked = self._linked[ino] = _Linked(0, refers)
        linked.names += 1
        if linked.names == inode.nlink:
            return linked.refers
        if linked.names == 1:
            # Until all of its names were found it stays.
            self._weigher.reach(linked.refers)
        return []

    def _count(self, regular: bool, size: int) -> None:
        self._found.files += regular
        self._found.logical_bytes += size if regular else 0

    async def _count_directories(self, index: bytes) -> int:
        """Return how many directories are below one in an attached tree; equal trees are looked into once."""
        trees, known = self._of.nodes.trees, self._directories_below
        waiting = [index]
        while waiting:
            root = trees.root(waiting[-1])
            children: list[bytes] = []
            for number in range(len(root.page_names) if root.subdirectories else 0):
                page = trees.page(waiting[-1], number)
                children += [entry.child for entry in page if entry.kind == DIRECTORY]
                await self._pace.breathe()
            unknown = [child for child in dict.fromkeys(children) if child not in known]
            if unknown:
                waiting += unknown
            else:
                known[waiting.pop()] = len(children) + sum(map(known.__getitem__, children))
        return known[index]
