"""A live directory as content: sealed from the bottom up, what did not change reused whole.

Each file is in a state that it really had; that all files had theirs at one moment is not promised.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field

import trio

from tvfs import failpoints
from tvfs.catalog.catalog import Family
from tvfs.content.attributes import UNKNOWN, OwnAttributes
from tvfs.content.reference import Content
from tvfs.content.snapshot import Snapshot
from tvfs.content.tree_builder import BuiltDirectory, Subdirectory, TreeBuilder
from tvfs.content.tree_index import IndexEntry
from tvfs.filesystem.directories import Directories, Listed
from tvfs.filesystem.inode import HAS_DELTAS, NO_HASH, OWN_XATTRS, STAGED, Inode
from tvfs.filesystem.nodes import Nodes
from tvfs.filesystem.posix_error import NotADirectory, NotFound, PosixError
from tvfs.filesystem.sealer import Sealer
from tvfs.filesystem.selection import Selection
from tvfs.filesystem.staging import Staging
from tvfs.filesystem.xattrs import ExtendedAttributes
from tvfs.vault.vault import Vault

_SLICE = 256
_KEPT_BYTES = 8 << 20
"""Built directories wait in memory for a commit up to this."""
_INLINE_ENTRIES = 64
"""Directories up to here are built at once; that takes less than handing them to a thread."""
CLOSING_PATIENCE_S = 1.0
"""How long to wait for closes to arrive: the kernel tells of a close after it has returned to the program."""


class OpenForWriting(PosixError):
    """Files have bytes that may not have arrived: closing them, or flushing the mount, sends them."""

    def __init__(self, paths: list[bytes]) -> None:
        names = ", ".join(repr(path.decode("utf-8", "backslashreplace")) for path in paths[:3])
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        super().__init__(f"Still open for writing: {names}{more}; close them first, or allow open files.")
        self.paths = paths


@dataclass(frozen=True, slots=True)
class SnapshotOutcome:
    """What a snapshot came to."""

    snapshot: Snapshot
    open_for_writing: list[bytes]
    """Paths of files that somebody had open for writing: their content is what had arrived."""


@dataclass(slots=True)
class _Frame:
    """A directory that is being built."""

    ino: int
    inode: Inode
    name: bytes
    path: bytes
    whole: bool
    """Everything in it is wanted, save what is excluded."""
    listed: bool = False
    entries: list[IndexEntry] = field(default_factory=list)
    directories: list[tuple[bytes, Subdirectory]] = field(default_factory=list)
    waiting: list[tuple[bytes, int]] = field(default_factory=list)
    """Subdirectories still to be visited."""


class Snapshots:
    """Takes snapshots; several may be under way at once."""

    def __init__(  # noqa: PLR0913 - everything that a tree is made of
        self,
        vault: Vault,
        nodes: Nodes,
        directories: Directories,
        staging: Staging,
        sealer: Sealer,
        xattrs: ExtendedAttributes,
        *,
        writers: Callable[[], Collection[int]],
    ) -> None:
        """`writers` returns the inodes that somebody has open for writing now."""
        self.catalog = vault.catalog
        self.leases = vault.leases
        self.builder = TreeBuilder(vault.hash_function)
        self.nodes = nodes
        self.directories = directories
        self.staging = staging
        self.sealer = sealer
        self.xattrs = xattrs
        self.writers = writers
        self._closings = trio.lowlevel.ParkingLot()

    def closed(self) -> None:
        """The last writer of a file has closed it."""
        self._closings.unpark_all()

    async def take(
        self,
        ino: int,
        *,
        paths: Sequence[bytes] | None,
        excluded: Sequence[bytes],
        allow_open: bool,
        holder: Hashable = None,
    ) -> SnapshotOutcome:
        """Return the directory `ino` as content, durable; `holder` holds it from then on, or nobody for long.

        `paths`, relative to it, are what is wanted, with everything below them (None: all); `excluded` are left out.
        Raises `NotADirectory`, `NotFound` for a path that is not there, `OpenForWriting` unless `allow_open`, after a
        wait for closes that are on their way, and what sealing raises.
        """
        inode = self.nodes.get(ino)
        if not inode.is_directory:
            raise NotADirectory("Only a directory becomes a tree.")
        survey = await self._survey(ino, paths, excluded, allow_open=allow_open)
        await self.sealer.seal(survey.staged)
        failpoints.reach("snapshot.after_seal")
        walk = _Walk(self, Selection(paths, excluded), build=True)
        try:
            built = await walk.run(ino, self.nodes.get(ino))
            failpoints.reach("snapshot.after_build")
            walk.check_complete()
            if built is not None and holder is not None:
                self.leases.hold(holder, [built.snapshot.index])
        finally:
            self.leases.release(walk)
        if walk.opened and not allow_open:
            raise OpenForWriting(sorted(walk.opened))
        assert built is not None, "a walk that builds ends with the directory that it began with"
        return SnapshotOutcome(built.snapshot, sorted(walk.opened))

    async def _survey(
        self, ino: int, paths: Sequence[bytes] | None, excluded: Sequence[bytes], *, allow_open: bool
    ) -> _Walk:
        """Return a survey that has met nothing open for writing, or all that is with `allow_open`.

        Raise `OpenForWriting` if there has been something for too long.
        """
        deadline: float | None = None
        while True:
            survey = _Walk(self, Selection(paths, excluded), build=False)
            await survey.run(ino, self.nodes.get(ino))
            survey.check_complete()
            if allow_open or not survey.opened:
                return survey
            deadline = trio.current_time() + CLOSING_PATIENCE_S if deadline is None else deadline
            if trio.current_time() >= deadline:
                raise OpenForWriting(sorted(survey.opened))
            with trio.move_on_at(deadline):
                # No checkpoint between the look and the wait: no close comes unnoticed between them.
                while not survey.written_inos.isdisjoint(self.writers()):
                    await self._closings.park()

    def reusable(self, ino: int, inode: Inode) -> Subdirectory | None:
        """Return an attached directory as the vault has it already, if nothing in it was changed."""
        if inode.hash == NO_HASH or inode.flags & (HAS_DELTAS | OWN_XATTRS):
            return None
        root = self.nodes.trees.root(inode.hash)
        if self.own(ino, inode) != root.own:
            return None
        after = ino + 1 + root.below
        if any(ino < writer < after for writer in self.writers()):
            return None  # what it wrote may not have arrived: the file must be looked at, and named
        start, end = (ino + 1).to_bytes(8, "big"), after.to_bytes(8, "big")
        for family in (Family.INODE, Family.DIRENT, Family.XATTR):
            if next(self.catalog.scan(family, start, end), None) is not None:
                return None
        return Subdirectory(root.snapshot(inode.hash), root.own, root.below, root.height)

    def own(self, ino: int, inode: Inode) -> OwnAttributes:
        """Return a directory's attributes; where they are as attached, those of the tree, which may say "unknown"."""
        actual = OwnAttributes(inode.mode & 0o7777, inode.uid, inode.gid, inode.mtime_ns, self.xattrs.all(ino))
        attached = self.nodes.ranges.find(ino)
        if inode.hash == NO_HASH or attached is None:
            return actual
        own = self.nodes.trees.root(inode.hash).own
        uid = attached.uid if attached.override or own.uid == UNKNOWN else own.uid
        gid = attached.gid if attached.override or own.gid == UNKNOWN else own.gid
        mtime_ns = attached.attached_ns if own.mtime_ns == UNKNOWN else own.mtime_ns
        return OwnAttributes(
            actual.mode,
            own.uid if actual.uid == uid else actual.uid,
            own.gid if actual.gid == gid else actual.gid,
            own.mtime_ns if actual.mtime_ns == mtime_ns else actual.mtime_ns,
            actual.xattrs,
        )


class _Walk:
    """One pass over a directory: a survey of what must be sealed first, or the building.

    A building one holds what it will refer to, in the step that finds it: the live tree may let go of it meanwhile.
    """

    def __init__(self, snapshots: Snapshots, selection: Selection, *, build: bool) -> None:
        self._of = snapshots
        self._selection = selection
        self._build = build
        self.opened: list[bytes] = []
        self.written_inos: set[int] = set()
        self.staged: list[int] = []
        self._links: dict[int, list[bytes]] = {}
        self._blobs: list[bytes] = []
        self._rows: list[tuple[Family, bytes, bytes]] = []
        self._kept_bytes = 0

    async def run(self, ino: int, inode: Inode) -> Subdirectory | None:
        """Visit everything; return the directory, built and stored, if this builds."""
        stack = [_Frame(ino, inode, b"", b"", self._selection.whole)]
        if (reused := self._reused(stack[0])) is not None:
            return reused
        done: Subdirectory | None = None
        while stack:
            frame = stack[-1]
            if not frame.listed:
                await self._list(frame)
                frame.listed = True
            if frame.waiting:
                self._enter(frame, stack)
                continue
            stack.pop()
            if self._build:
                done = await self._finish(frame, stack)
                if stack:
                    stack[-1].directories.append((frame.name, done))
        return done

    def check_complete(self) -> None:
        """Raise `NotFound` for a path that is wanted and was not met."""
        if missing := self._selection.missing():
            raise NotFound(f"There is no {missing.decode('utf-8', 'backslashreplace')!r} to take a snapshot of.")

    def _enter(self, frame: _Frame, stack: list[_Frame]) -> None:
        name, ino = frame.waiting.pop()
        inode = self._of.nodes.find(ino)
        if inode is None:  # removed since its directory was listed
            return
        path = frame.path + name
        child = _Frame(ino, inode, name, path + b"/", frame.whole or self._selection.takes_all(path))
        reused = self._reused(child)
        if reused is None:
            stack.append(child)
        else:
            frame.directories.append((name, reused))

    def _reused(self, frame: _Frame) -> Subdirectory | None:
        if not frame.whole or self._selection.excludes_below(frame.path[:-1]):
            return None
        reused = self._of.reusable(frame.ino, frame.inode)
        if reused is not None and self._build:
            self._hold(reused.snapshot.index)
        return reused

    def _hold(self, id_: bytes) -> None:
        self._of.leases.hold(self, [id_])

    def _hold_only_waiting(self, stack: Sequence[_Frame]) -> None:
        """Everything built is stored: hold what directories that are not finished will refer to, and nothing else."""
        waiting = [entry.content_hash for frame in stack for entry in frame.entries if entry.content_hash]
        children = [child.snapshot.index for frame in stack for _, child in frame.directories]
        self._of.leases.replace(self, [*waiting, *children])

    async def _list(self, frame: _Frame) -> None:
        after = b""
        while True:
            frozen: list[tuple[Listed, Inode]] = []
            count = 0
            for listed in self._of.directories.listing(frame.ino, frame.inode, after):
                after = listed.name
                count += 1
                self._visit(frame, listed, frozen)
                if count == _SLICE:
                    break
            for listed, inode in frozen:
                await self._add_open(frame, listed, inode)
            await trio.lowlevel.checkpoint()
            if count < _SLICE:
                return

    def _visit(self, frame: _Frame, listed: Listed, frozen: list[tuple[Listed, Inode]]) -> None:
        path = frame.path + listed.name
        if not self._selection.takes(path, whole=frame.whole):
            return
        nodes = self._of.nodes
        inode = nodes.get(listed.ino) if listed.entry is None else nodes.child(frame.ino, listed.entry)[1]
        if inode.is_directory:
            frame.waiting.append((listed.name, listed.ino))
            return
        if inode.nlink > 1:
            self._links.setdefault(listed.ino, []).append(path)
        if listed.ino in self._of.writers():
            self.opened.append(path)
            self.written_inos.add(listed.ino)
        if not self._build:
            if inode.state == STAGED:
                self.staged.append(listed.ino)
        elif inode.state == STAGED:
            frozen.append((listed, inode))
        elif listed.entry is not None and not nodes.has_row(listed.ino):
            self._add(frame, listed.entry)
        else:
            self._add(frame, self._entry(listed, inode, inode.content if inode.is_regular else None))

    def _add(self, frame: _Frame, entry: IndexEntry) -> None:
        frame.entries.append(entry)
        if entry.content_hash:
            self._hold(entry.content_hash)

    async def _add_open(self, frame: _Frame, listed: Listed, inode: Inode) -> None:
        # Staged still: somebody writes to it, or did since the survey.
        file = self._of.staging.files.get(listed.ino)
        content = await self._of.sealer.content_of_open(file, self._hold) if file is not None else None
        current = self._of.nodes.find(listed.ino)
        if current is None:  # removed meanwhile; it was there when the directory was listed
            current = inode
        if content is None:
            if current.state == STAGED:
                return
            content = current.content
        self._add(frame, self._entry(listed, current, content))

    def _entry(self, listed: Listed, inode: Inode, content: Content | None) -> IndexEntry:
        size = content.size if content is not None else len(inode.target)
        return IndexEntry(
            listed.name, inode.kind, inode.mode & 0o7777, inode.uid, inode.gid, inode.mtime_ns, size,
            int(content.kind) if content is not None else 0,
            content.hash if content is not None else b"",
            inode.target, inode.rdev, xattrs=self._of.xattrs.all(listed.ino),
        )  # fmt: skip

    async def _finish(self, frame: _Frame, stack: Sequence[_Frame]) -> Subdirectory:
        last = not stack
        own = self._of.own(frame.ino, frame.inode)
        groups = [sorted(paths) for paths in self._links.values() if len(paths) > 1] if last else []
        if len(frame.entries) + len(frame.directories) <= _INLINE_ENTRIES:
            built = self._of.builder.build(own, frame.entries, frame.directories, groups)
        else:
            built = await trio.to_thread.run_sync(self._of.builder.build, own, frame.entries, frame.directories, groups)
        self._keep(built)
        self._hold(built.directory.snapshot.index)
        if last or self._kept_bytes > _KEPT_BYTES:
            blobs, rows = self._blobs, self._rows
            self._blobs, self._rows, self._kept_bytes = [], [], 0
            await self._of.sealer.store(blobs, rows)
            self._hold_only_waiting(stack)
            self._hold(built.directory.snapshot.index)
        return built.directory

    def _keep(self, built: BuiltDirectory) -> None:
        self._blobs.append(built.tree)
        if built.attributes is not None:
            self._blobs.append(built.attributes)
        self._rows += built.rows
        self._kept_bytes += len(built.tree) + len(built.attributes or b"") + sum(len(row[2]) for row in built.rows)
