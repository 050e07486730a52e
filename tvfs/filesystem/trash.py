"""Removing trees: a move to the trash, which is swept in slices.

An attached tree of which nothing has another name and nothing is in use goes in a few range deletions.  Anything else
is walked, name by name.  Until then its names still count as links of files that have others elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import islice

import trio

from tvfs.catalog.catalog import Catalog, Family, prefix_end
from tvfs.content.tree_index import DIRECTORY
from tvfs.filesystem.change import Change
from tvfs.filesystem.directories import Directories, decode_dirent, trash_key, trash_name
from tvfs.filesystem.inode import HAS_DELTAS, NO_HASH, STAGED, Inode, changed
from tvfs.filesystem.model import TRASH
from tvfs.filesystem.namespace import Namespace
from tvfs.filesystem.nodes import Nodes
from tvfs.filesystem.ranges import AttachedRange
from tvfs.filesystem.staging import Staging
from tvfs.vault.slices import Slices

_ROWS_OF_A_MEMBER = (Family.INODE, Family.DIRENT, Family.XATTR, Family.ORPHAN)

MOST_REMEMBERED = 65_536
"""Trees in the trash; the others are found by listing it when these have gone."""


class Trash:
    """The children of the trash directory; each is called by its inode number."""

    def __init__(  # noqa: PLR0913 - everything that an inode leaves behind
        self,
        catalog: Catalog,
        nodes: Nodes,
        directories: Directories,
        namespace: Namespace,
        staging: Staging,
        *,
        slices: Slices,
        slice_names: int,
        range_in_use: Callable[[int, int], bool],
        range_gone: Callable[[Change, int, int], None],
    ) -> None:
        """`range_gone` is told in the change that removes a range of inodes."""
        self._catalog = catalog
        self._nodes = nodes
        self._directories = directories
        self._namespace = namespace
        self._staging = staging
        self._slices = slices
        self._slice = slice_names
        self._range_in_use = range_in_use
        self.tell: Callable[[int, bytes, int], None] = lambda _parent, _name, _ino: None
        """Called with parent and name of what was discarded, for the kernel; must not wait."""
        self._range_gone = range_gone
        self._sweeping = trio.Lock()
        self._thrown: dict[int, None] = {}
        """What was thrown and not removed since; to list the trash takes ever longer, as rows that were removed lie at
        its head."""
        self._unlisted = True
        """Whether the trash may hold more than that."""

    def discard(self, parent: int, name: bytes) -> None:
        """Take a name away with everything below it; raise `NotFound`.  The parent may be read-only.

        The kernel is told: as long as it remembers names below, they are in use, and nothing of them is let go.
        """
        ino, inode = self._namespace.child(parent, name)
        change = self._namespace.change()
        self._namespace.leave(change, parent, name, inode)
        if inode.is_directory:
            self._throw(change, ino)
        else:
            self._namespace.release_name(change, ino)
        change.commit()
        # What the kernel does not refer to it has no name of: then the number says so.
        self.tell(parent, name, 0 if self._range_in_use(ino, ino + 1) else ino)

    async def sweep(self) -> int:
        """Remove what can be removed now, in slices; return how many trees are left because they are in use.

        Several may ask; one sweeps at a time.
        """
        async with self._sweeping:
            return await self._sweep_all()

    async def _sweep_all(self) -> int:
        in_use: set[int] = set()
        while True:
            if self._unlisted:
                await self._list()
            # What is below a tree that is removed may be thrown meanwhile, and has its turn in the next round.
            waiting = [ino for ino in self._thrown if ino not in in_use]
            if not waiting:
                return len(in_use)
            await self._slices.next()
            began_s = time.perf_counter()
            for ino in waiting:
                # It may have been removed by another way.
                if not self._is_thrown(ino) or await self._sweep_tree(ino, trash_name(ino)):
                    self._thrown.pop(ino, None)
                else:
                    in_use.add(ino)
                began_s = await self._slices.go_on(began_s)

    async def _list(self) -> None:
        self._unlisted = False
        names: list[bytes] = [b""]
        try:
            while names and not self._unlisted:
                listing = self._directories.listing(TRASH, self._trash(), names[-1])
                names = [listed.name for listed in islice(listing, self._slice)]
                for name in names:
                    self._remember(int(name, 16))
                await self._slices.next()
        except BaseException:
            self._unlisted = True  # whoever waited for the sweep has gone, and it ended before the list did
            raise

    def _is_thrown(self, ino: int) -> bool:
        return self._catalog.get(Family.DIRENT, trash_key(ino)) is not None

    def _remember(self, ino: int) -> None:
        if len(self._thrown) < MOST_REMEMBERED:
            self._thrown[ino] = None
        else:
            self._unlisted = True

    async def _sweep_tree(self, ino: int, name: bytes) -> bool:
        """Remove one directory of the trash; return False if it is in use."""
        if self._nodes.find(ino) is None:
            change = self._namespace.change()
            self._forget_name(change, name)
            change.commit()
            return True
        attached = self._nodes.ranges.find(ino)
        if attached is not None and not attached.moved:
            return await self._sweep_range(ino, attached, name)
        if self._range_in_use(ino, ino + 1):
            return False
        await self._empty(ino)
        if self._range_in_use(ino, ino + 1):
            return False
        change = self._namespace.change()
        self._forget_name(change, name)
        self._namespace.purge(change, ino)
        change.commit()
        return True

    async def _sweep_range(self, ino: int, attached: AttachedRange, name: bytes) -> bool:
        end = self._end_of(ino, attached)
        if self._range_in_use(ino, end):
            return False
        await self._throw_out_strangers(ino, end)
        # Nobody finds the way to a member any more, so none comes into use that is not.  Directories are the last: a
        # file may have several names in one of them, all of which go with its row.
        for are_directories in (False, True):
            await self._take_changes_back(ino, end, are_directories=are_directories)
        if self._range_in_use(ino, end):
            return False
        self._remove_range(ino, end, attached, name)
        return True

    def _end_of(self, ino: int, attached: AttachedRange) -> int:
        """Return the end of the numbers of a directory and what it was attached with."""
        if ino == attached.first:
            return attached.end
        found = self._nodes.entry(ino)
        assert found is not None, "a member of a range is in its tree"
        return ino + 1 + found[0].below

    async def _throw_out_strangers(self, first: int, end: int) -> None:
        """Let go of what was put into an attached tree later."""
        key, stop = first.to_bytes(8, "big"), end.to_bytes(8, "big")
        while True:
            change = self._namespace.change()
            seen = 0
            for found, row in self._catalog.scan(Family.DIRENT, key, stop):
                dirent = decode_dirent(row)
                seen += 1
                key = found + b"\0"
                if dirent.kind and not first <= dirent.child < end:
                    stranger = change.inode(dirent.child)
                    self._namespace.leave(change, int.from_bytes(found[:8], "big"), found[8:], stranger)
                    if stranger.is_directory:
                        self._throw(change, dirent.child)
                    else:
                        self._namespace.release_name(change, dirent.child)
                if seen == self._slice:
                    break
            change.commit()
            if seen < self._slice:
                break
            await self._slices.next()

    async def _take_changes_back(self, first: int, end: int, *, are_directories: bool) -> None:
        """Let changed members be again as the tree has them, in slices; not the top, which leads to the others.

        What their rows refer to is counted, row by row, so they must not all go with the range.
        """
        start, stop = (first + 1).to_bytes(8, "big"), end.to_bytes(8, "big")
        while True:
            rows = list(islice(self._catalog.scan(Family.INODE, start, stop), self._slice))
            change = self._namespace.change()
            for key, row in rows:
                ino, inode = int.from_bytes(key, "big"), Inode.decode(row)
                if inode.is_directory == are_directories:
                    change.drop(ino)
                    if inode.state == STAGED:
                        self._staging.drop(change, ino)
                    # One that was detached from its tree has rows for all names.
                    if inode.is_directory and (inode.flags & HAS_DELTAS or inode.hash == NO_HASH):
                        change.batch.delete_range(Family.DIRENT, key, prefix_end(key) or b"")
            change.commit()
            if len(rows) < self._slice:
                return
            start = rows[-1][0] + b"\0"
            await self._slices.next()

    def _remove_range(self, first: int, end: int, attached: AttachedRange, name: bytes) -> None:
        change = self._namespace.change()
        key, stop = first.to_bytes(8, "big"), end.to_bytes(8, "big")
        for family in _ROWS_OF_A_MEMBER:
            change.batch.delete_range(family, key, stop)
        if first == attached.first:
            self._nodes.ranges.remove(change, attached)
        self._range_gone(change, first, end)
        self._forget_name(change, name)
        change.afterwards.append(self._nodes.forget_range)
        change.commit()

    async def _empty(self, ino: int) -> None:
        """Remove the names of a directory, in slices; subdirectories become trees of the trash themselves."""
        after = b""
        while True:
            directory = self._nodes.get(ino)
            change = self._namespace.change()
            listed = 0
            for each in self._directories.listing(ino, directory, after):
                if listed == self._slice:
                    break
                after = each.name
                listed += 1
                if each.entry is not None and each.kind != DIRECTORY and not self._nodes.has_row(each.ino):
                    continue  # nothing is kept of it
                child = change.inode(each.ino) if each.entry is None else self._nodes.child(ino, each.entry)[1]
                self._namespace.leave(change, ino, each.name, child)
                if child.is_directory:
                    self._throw(change, each.ino)
                else:
                    self._namespace.release_name(change, each.ino)
            change.commit()
            if listed < self._slice:
                return
            await self._slices.next()

    def _throw(self, change: Change, ino: int) -> None:
        self._namespace.place(change, TRASH, trash_name(ino), ino, moved=False)
        change.afterwards.append(partial(self._remember, ino))

    def _forget_name(self, change: Change, name: bytes) -> None:
        # By hand: the inode may have been removed already, with the range that it is in.
        change.batch.delete(Family.DIRENT, TRASH.to_bytes(8, "big") + name)
        trash = change.inode(TRASH)
        change.put(TRASH, changed(trash, entries=trash.entries - 1, nlink=trash.nlink - 1))

    def _trash(self) -> Inode:
        return self._nodes.get(TRASH)
