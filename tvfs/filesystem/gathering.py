"""Goes through directories that became evictable with files in them: marked, moved or attached so.

What is queued is in rows, so that it goes on after a kill; the greatest inode number first, so that of an attached tree
what is below comes before the root of its range.  Files of an attached tree have their content from the tree, and
removing one of them would give nothing back: each gets a row of its own here, and when all have one the range is
dissolved.  So is the range of an attached tree that was removed, parts of which were moved elsewhere before.  Nothing
of that can be seen through the mount.
"""

from __future__ import annotations

from itertools import islice

import structlog
import trio

from tvfs.catalog.catalog import Catalog, Family
from tvfs.content.tree_index import TreeIndexMissing
from tvfs.errors import RowDamaged, TaskVaultError
from tvfs.filesystem.change import Change
from tvfs.filesystem.directories import Directories, Listed, decode_dirent
from tvfs.filesystem.evictable_rows import NAMES_FIRST, RANGE_NEXT, TO_GATHER, file_row
from tvfs.filesystem.evictables import Evictables
from tvfs.filesystem.inode import HAS_DELTAS, NO_HASH, OWN_XATTRS, Inode, changed
from tvfs.filesystem.namespace import Namespace
from tvfs.filesystem.nodes import Nodes
from tvfs.filesystem.posix_error import NotFound
from tvfs.filesystem.ranges import AttachedRange
from tvfs.filesystem.scans import rows_of
from tvfs.vault.pace import Pace

SLICE = 16
"""Names in one batch: about 1 ms."""
INTERVAL_S = 0.25


class Gatherer:
    """The owner's trio thread only; one task runs it."""

    def __init__(
        self,
        catalog: Catalog,
        nodes: Nodes,
        directories: Directories,
        namespace: Namespace,
        evictables: Evictables,
    ) -> None:
        self._catalog = catalog
        self._nodes = nodes
        self._directories = directories
        self._namespace = namespace
        self._evictables = evictables
        self._damaged: set[int] = set()
        """Directories whose tree cannot be read: their ranges stay."""

    async def run(self) -> None:
        """Go through what is queued, until cancelled."""
        log = structlog.get_logger().bind(part="eviction")
        while True:
            try:
                await self.gather()
            except TaskVaultError as exc:
                # Tried again: a full vault, most likely, and what is known already can be evicted.
                log.warning("files in an evictable directory are not known yet", reason=str(exc))
                await trio.sleep(100 * INTERVAL_S)
            await trio.sleep(INTERVAL_S)

    async def gather(self) -> None:
        """Go through everything that is queued, up to a range of which a part is still in the trash."""
        pace = Pace()
        while True:
            queued = self._evictables.last_queued()
            if queued is None:
                return
            ino, state = queued
            if state == RANGE_NEXT and self._is_being_swept(ino):
                return
            try:
                await self._next(ino, state, pace)
            except (TreeIndexMissing, RowDamaged, NotFound):  # gone meanwhile, or damaged: nobody can list it
                self._damaged.add(ino)
                self._settle(ino)
            await pace.breathe()

    async def _next(self, ino: int, state: bytes, pace: Pace) -> None:
        directory = self._nodes.find(ino)
        attached = self._nodes.ranges.find(ino)
        wanted = self._evictables.covers(ino) or (attached is not None and self._is_being_dissolved(attached))
        if state == RANGE_NEXT:
            await self._dissolve(ino, attached, pace)
        elif directory is None or not directory.is_directory or not directory.nlink or not wanted:
            self._settle(ino)
        else:
            await self._go_through(ino, attached, pace)

    def _is_being_dissolved(self, attached: AttachedRange) -> bool:
        return self._catalog.get(Family.USAGE, file_row(TO_GATHER, attached.first)) is not None

    def _is_being_swept(self, first: int) -> bool:
        """Whether something of a range is in the trash: what the sweep has taken back of it, only the range knows."""
        attached = self._nodes.ranges.find(first)
        end = first + 1 if attached is None else attached.end
        return self._directories.any_in_trash(first, end)

    def _settle(self, ino: int) -> None:
        change = self._namespace.change()
        change.batch.delete(Family.USAGE, file_row(TO_GATHER, ino))
        change.commit()

    async def _go_through(self, ino: int, attached: AttachedRange | None, pace: Pace) -> None:
        after = b""
        while True:
            change = self._namespace.change()
            covered = self._evictables.covers(ino)
            listed = list(islice(self._directories.listing(ino, self._nodes.get(ino), after), SLICE))
            for each in listed:
                self._take(change, ino, each, covered=covered)
            if len(listed) < SLICE:
                break
            change.commit()
            after = listed[-1].name
            await pace.breathe()
        self._forget_base(change, ino)
        if attached is not None and attached.first == ino:
            self._evictables.queue(change, ino, RANGE_NEXT)
        else:
            change.batch.delete(Family.USAGE, file_row(TO_GATHER, ino))
        change.commit()

    def _take(self, change: Change, parent: int, listed: Listed, *, covered: bool) -> None:
        inode = self._owned(change, parent, listed)
        if inode is None:
            return
        if inode.is_directory:
            self._evictables.queue(change, listed.ino, NAMES_FIRST)
        elif covered and inode.is_regular:
            used_ns = min(change.now_ns, max(inode.atime_ns, inode.mtime_ns, 0))
            self._evictables.know(change, (parent, listed.name), listed.ino, inode, used_ns=used_ns)

    def _owned(self, change: Change, parent: int, listed: Listed) -> Inode | None:
        """Return the inode of a name; if the attached tree has it, name and inode get rows."""
        if listed.entry is None:
            return self._nodes.find(listed.ino)
        ino, inode = self._nodes.child(parent, listed.entry)
        inode = self._with_xattrs(change, ino, inode, listed.entry.xattrs)
        change.put(ino, inode)
        self._directories.own(change, parent, listed)
        return inode

    def _with_xattrs(self, change: Change, ino: int, inode: Inode, xattrs: tuple[tuple[bytes, bytes], ...]) -> Inode:
        if not xattrs or inode.flags & OWN_XATTRS:
            return inode
        for name, value in xattrs:
            change.batch.put(Family.XATTR, ino.to_bytes(8, "big") + name, value)
        return changed(inode, flags=inode.flags | OWN_XATTRS)

    def _forget_base(self, change: Change, ino: int) -> None:
        """All names have rows: let the directory be one that was never attached."""
        directory = change.inode(ino)
        if directory.hash == NO_HASH:
            return
        directory = self._with_xattrs(change, ino, directory, self._xattrs_of_root(ino))
        change.put(ino, changed(directory, hash=NO_HASH, flags=directory.flags & ~HAS_DELTAS))
        for key, row in rows_of(self._catalog, Family.DIRENT, ino):
            if not decode_dirent(row).kind:
                change.batch.delete(Family.DIRENT, key)

    def _xattrs_of_root(self, ino: int) -> tuple[tuple[bytes, bytes], ...]:
        attached = self._nodes.ranges.find(ino)
        if attached is None or attached.first != ino:
            return ()
        return self._nodes.trees.root(attached.index).xattrs

    async def _dissolve(self, ino: int, attached: AttachedRange | None, pace: Pace) -> None:
        """Remove the range if nothing needs it; what was moved out of the tree may."""
        if attached is None or attached.first != ino:
            self._settle(ino)
            return
        after, end = ino.to_bytes(8, "big"), attached.end.to_bytes(8, "big")
        is_needed = False
        while True:
            change = self._namespace.change()
            rows = list(islice(self._catalog.scan(Family.INODE, after, end), SLICE))
            for key, row in rows:
                is_needed |= self._settle_member(change, int.from_bytes(key, "big"), Inode.decode(row))
            if len(rows) < SLICE:
                break
            change.commit()
            after = rows[-1][0] + b"\0"
            await pace.breathe()
        if is_needed:
            change.commit()
            if any(attached.first <= damaged < attached.end for damaged in self._damaged):
                self._settle(ino)
            return
        if self._is_being_swept(ino):
            change.commit()
            return
        # No await since the last look at the rows: nothing of the range has come back.
        change.batch.delete(Family.USAGE, file_row(TO_GATHER, ino))
        self._nodes.ranges.remove(change, attached)
        change.commit()

    def _settle_member(self, change: Change, ino: int, inode: Inode) -> bool:
        """Let an inode with a row need nothing of its range; return whether that takes more than this."""
        if inode.is_directory and inode.hash != NO_HASH and inode.nlink:
            self._evictables.queue(change, ino, NAMES_FIRST)
            return True
        member = self._nodes.entry(ino)
        if member is not None:
            own = self._with_xattrs(change, ino, inode, member[0].xattrs)
            if own is not inode:
                change.put(ino, own)
        return False
