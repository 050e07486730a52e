"""What an inode takes and what it is, for whoever asks about space."""

from __future__ import annotations

import stat
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import trio

from tvfs.catalog.catalog import Family
from tvfs.content.reader import ContentReader
from tvfs.content.tree_index import TreeIndexMissing
from tvfs.digest import Digest
from tvfs.filesystem.directories import Directories
from tvfs.filesystem.files import Files
from tvfs.filesystem.inode import NO_HASH, STAGED, ContentState, Inode
from tvfs.filesystem.model import KEYS, PREPARED, ROOT, RUNS, SNAPSHOTS, TRASH, WORK
from tvfs.filesystem.nodes import MAX_LEVELS, Nodes
from tvfs.filesystem.staging import Staging
from tvfs.filesystem.survey import SLICE, Found, Surveyor
from tvfs.vault.pace import Pace
from tvfs.vault.references import TREE_KEY
from tvfs.vault.vault import Vault
from tvfs.vault.weighing import Weigher, Weight

_SLICES_AT_ONCE = 200_000 // SLICE
"""A second's worth."""
_ELSEWHERE = (KEYS, RUNS, SNAPSHOTS, TRASH, PREPARED)


@dataclass(frozen=True, slots=True)
class Description:
    """Everything about one inode."""

    ino: int
    kind: str
    """`file`, `directory`, `symlink`, `special`."""
    state: str
    """`sealed`, `staged`, `empty`, `attached` (a directory with a base tree), `plain`."""
    digest: Digest | None
    found: Found
    weight: Weight
    shared_chunks: int
    content: bytes | None
    """Key of the object that is its content, or of the tree it was attached from; None if there is none."""
    own_references: int
    """How many of the references to that object are rows of the inode itself."""
    is_open: bool
    open_for_writing: bool
    codecs: dict[str, int] = field(default_factory=dict)


class Inspection:
    """Measures and describes; one at a time, so that what it keeps in mind stays bounded."""

    def __init__(
        self,
        vault: Vault,
        nodes: Nodes,
        directories: Directories,
        staging: Staging,
        reader: ContentReader,
        files: Files,
    ) -> None:
        self._vault = vault
        self._nodes = nodes
        self._directories = directories
        self._reader = reader
        self._files = files
        self._staging = staging
        self.surveyor = Surveyor(vault.catalog, nodes, directories, staging, function=vault.hash_function.name)
        self._turn = trio.Lock()

    def staged_in_rows_bytes(self) -> int:
        """How many bytes of files that are not sealed yet are in the catalog, and in no staging file."""
        return sum(file.size for file in self._staging.files.values() if file.in_row)

    async def measure(self, ino: int, also: Sequence[bytes] = ()) -> tuple[Found, Weight]:
        """Return what an inode and everything below take; `also` are references that would go together with it."""
        async with self._turn:
            weigher = self._weigher()
            await weigher.release(also)
            found = await self.surveyor.survey(ino, weigher)
            return found, await weigher.finish()

    async def describe(self, ino: int) -> Description:
        """Return everything about an inode; raise `NotFound`."""
        inode = self._nodes.get(ino)
        content, own = self._content(ino, inode)
        async with self._turn:
            weigher = self._weigher()
            if content is not None and not own and not inode.is_directory:
                # Of an attached tree: as if the tree's reference were its own.
                await weigher.release([content])
                found = Found(1, 0, inode.size, 0)
            else:
                found = await self.surveyor.survey(ino, weigher)
            weight = await weigher.finish()
        shared = weight.chunks if self._tree_is_shared(ino) else weight.chunks - weight.freed_chunks
        return Description(
            ino=ino,
            kind=_kind(inode),
            state=_state(inode),
            digest=self._digest(ino, inode),
            found=found,
            weight=weight,
            shared_chunks=shared,
            content=content,
            own_references=own,
            is_open=self._files.is_open(ino),
            open_for_writing=self._files.has_writer(ino),
            codecs={self._codec(number): count for number, count in weight.codecs.items()},
        )

    def settled(self, ino: int) -> tuple[Inode, bytes] | None:
        """Return a file and the hash of its content; None where a reader may see something else, or what is not sealed.

        Whoever has it open for writing may have bytes that were not sent to us yet, and of whoever had the kernel may
        keep bytes that we refused, and shows them to readers.
        """
        inode = self._nodes.find(ino)
        if inode is None or not inode.is_regular or inode.state == STAGED:
            return None
        if self._files.has_writer(ino) or ino in self._files.written:
            return None
        return inode, self._reader.digest_of(inode.content).hash

    async def path_of(self, ino: int, pace: Pace | None = None) -> bytes | None:
        """Return the path of a directory below the mount; None if it is not reachable, or in a view of the owner's."""
        chain = [ino]
        while chain[-1] not in (ROOT, WORK):
            inode = self._nodes.find(chain[-1])
            if inode is None or not inode.parent or inode.parent in _ELSEWHERE:
                return None
            chain.append(inode.parent)
        names = [b"work"] if chain[-1] == WORK else []
        for parent, child in zip(reversed(chain), list(reversed(chain))[1:], strict=False):
            name = await self._name_in(parent, child, pace or Pace())
            if name is None:
                return None
            names.append(name)
        return b"/".join(names)

    def place_of(self, number: int, *, is_handle: bool) -> bytes | None:
        """Return the path of an inode, or of what a handle is of, without waiting; None if none is found soon.

        For whoever wants to know what holds everything up: a file's name is looked for among all of them, for a second.
        """
        search = self._search(number, is_handle=is_handle)
        for _ in range(_SLICES_AT_ONCE):
            try:
                next(search)
            except StopIteration as found:
                path: bytes | None = found.value
                return path
        return None

    async def find_place(self, number: int, *, is_handle: bool) -> bytes | None:
        """Do the same to the end, and let others have their turn meanwhile."""
        search = self._search(number, is_handle=is_handle)
        while True:
            try:
                next(search)
            except StopIteration as found:
                path: bytes | None = found.value
                return path
            await trio.lowlevel.checkpoint()

    def _search(self, number: int, *, is_handle: bool) -> Generator[None, None, bytes | None]:
        """Yield after each slice of names that were looked through, and return the path."""
        ino = self._files.inode_of(number) if is_handle else number
        names: list[bytes] = []
        while ino is not None and ino not in (ROOT, WORK):
            found = yield from self._name_and_parent(ino)
            if found is None or found[1] in _ELSEWHERE or len(names) > MAX_LEVELS:
                return None
            name, ino = found
            names.append(name)
        if ino is None:
            return None
        return b"/".join([*([b"work"] if ino == WORK else []), *reversed(names)])

    def _name_and_parent(self, ino: int) -> Generator[None, None, tuple[bytes, int] | None]:
        of_tree = self._nodes.entry(ino)
        if of_tree is not None:
            return of_tree[0].name, of_tree[1]
        inode = self._nodes.find(ino)
        # Only of a directory is the parent known, so that its names are all that has to be looked through.
        start = inode.parent.to_bytes(8, "big") if inode is not None and inode.is_directory and inode.parent else b""
        child = ino.to_bytes(8, "big")
        while True:
            rows = list(islice(self._vault.catalog.scan(Family.DIRENT, start), SLICE))
            for key, row in rows:
                if row[4:12] == child:
                    return key[8:], int.from_bytes(key[:8], "big")
            if len(rows) < SLICE:
                return None
            start = rows[-1][0] + b"\0"
            yield

    async def _name_in(self, parent: int, child: int, pace: Pace) -> bytes | None:
        after = b""
        while True:
            directory = self._nodes.find(parent)
            if directory is None:
                return None
            part = list(islice(self._directories.listing(parent, directory, after), SLICE))
            for listed in part:
                if listed.ino == child:
                    return listed.name
            if len(part) < SLICE:
                return None
            after = part[-1].name
            await pace.breathe()

    def _weigher(self) -> Weigher:
        return Weigher(self._vault.catalog, self._vault.hash_function.name, self._vault.leases.is_leased)

    def _content(self, ino: int, inode: Inode) -> tuple[bytes | None, int]:
        """Return the object that the content is, and how many rows of the inode refer to it."""
        if inode.is_directory:
            key = TREE_KEY + inode.hash if inode.hash != NO_HASH else None
            return key, self.surveyor.references_of_rows(ino).count(key) if key else 0
        rows = self.surveyor.references_of_rows(ino)
        if rows:
            return rows[0], rows.count(rows[0])
        entry = self._nodes.entry(ino)
        refers = [] if entry is None else self.surveyor.reference_of_entry(entry[0])
        return (refers[0], 0) if refers else (None, 0)

    def _digest(self, ino: int, inode: Inode) -> Digest | None:
        if inode.is_regular:
            return None if inode.state == STAGED else self._reader.digest_of(inode.content)
        try:
            if inode.is_directory and self.surveyor.as_attached(ino, inode) is not None:
                return self._nodes.trees.root(inode.hash).snapshot(inode.hash).tree
        except TreeIndexMissing:  # damaged; it has no digest that could be shown
            return None
        return None

    def _tree_is_shared(self, ino: int) -> bool:
        """Whether something else refers to the tree that the inode came with, or to one above it there."""
        count = self._vault.catalog.count
        attached = self._nodes.ranges.find(ino)
        if attached is None:
            return False
        # The range's own row, and that of the directory which it begins with.
        if count(TREE_KEY + attached.index) > self.surveyor.references_of_rows(attached.first).count(
            TREE_KEY + attached.index
        ):
            return ino == attached.first or self._nodes.entry(ino) is not None
        entry = self._nodes.entry(ino)
        while entry is not None:
            _, parent, attached = entry
            if parent == attached.first:
                return False
            above = self._nodes.entry(parent)
            if above is not None and count(TREE_KEY + above[0].child) > 1:
                return True
            entry = above
        return False

    def _codec(self, number: int) -> str:
        if not number:
            return "raw"
        codec = self._vault.codecs.get(number)
        return f"codec {number}" if codec is None else codec.name


def _kind(inode: Inode) -> str:
    if inode.is_directory:
        return "directory"
    if inode.is_regular:
        return "file"
    return "symlink" if stat.S_ISLNK(inode.mode) else "special"


def _state(inode: Inode) -> str:
    if inode.is_directory:
        return "plain" if inode.hash == NO_HASH else "attached"
    if not inode.is_regular:
        return "plain"
    return {ContentState.STAGED: "staged", ContentState.EMPTY: "empty"}.get(ContentState(inode.state), "sealed")
