"""Names: each operation is one batch, written inline in one synchronous block, so nobody sees half of one.

Permissions and the sticky bit are the kernel's (`default_permissions`); what this refuses, it refuses to root as well.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from typing import Protocol

from tvfs.catalog.catalog import Catalog, Family
from tvfs.clock import Clock
from tvfs.filesystem.change import Change, RequestMark
from tvfs.filesystem.directories import Directories, Dirent
from tvfs.filesystem.inode import MAX_LINKS, READ_ONLY, STAGED, ContentState, Inode, changed
from tvfs.filesystem.model import PREPARED, RENAME_EXCHANGE, RENAME_NOREPLACE, Caller
from tvfs.filesystem.nodes import Nodes
from tvfs.filesystem.posix_error import (
    Exists,
    Invalid,
    IsADirectory,
    NameTooLong,
    NoSpace,
    NotADirectory,
    NotEmpty,
    NotFound,
    NotPermitted,
    ReadOnly,
    TooManyLinks,
)
from tvfs.filesystem.staging import Staging
from tvfs.vault.counters import NEXT_INO, NEXT_SEQ, Counters

MAX_NAME_BYTES = 255
MAX_TARGET_BYTES = 4095
_PERMISSIONS = 0o7777


class Follower(Protocol):
    """Who must know what becomes of names; adds to the change that makes it so."""

    def entered(self, change: Change, parent: int, name: bytes, ino: int, inode: Inode) -> None:
        """An inode gets a name."""
        ...

    def one_name_left(self, change: Change, ino: int) -> None:
        """A file that had several names has one."""
        ...

    def gone(self, change: Change, ino: int, inode: Inode) -> None:
        """An inode is removed."""
        ...

    def range_left(self, change: Change, first: int) -> None:
        """The root of an attached tree is removed, and something of the tree may be elsewhere."""
        ...


class Namespace:
    """Makes, removes and moves names; keeps link counts, times and orphans right."""

    def __init__(
        self,
        catalog: Catalog,
        counters: Counters,
        nodes: Nodes,
        directories: Directories,
        staging: Staging,
        clock: Clock,
    ) -> None:
        self._catalog = catalog
        self._counters = counters
        self._nodes = nodes
        self._directories = directories
        self._staging = staging
        self._clock = clock
        self.in_use: Callable[[int], bool] = _nobody
        """Whether the kernel knows an inode or somebody has it open: then it outlives its last name."""

        self.follower: Follower | None = None
        """Set once."""
        self.mark = RequestMark()
        """Set by whoever answers requests."""

    def change(self) -> Change:
        """Start a change."""
        return Change(self._catalog, self._nodes, self._clock.now_ns(), self.mark.current)

    def directory(self, ino: int) -> Inode:
        """Return a directory; raise `NotFound` or `NotADirectory`."""
        inode = self._nodes.get(ino)
        if not inode.is_directory:
            raise NotADirectory(f"Inode {ino} is no directory.")
        return inode

    def child(self, parent: int, name: bytes) -> tuple[int, Inode]:
        """Return number and inode of a name; raise `NotFound`."""
        found = self._directories.find(parent, self.directory(parent), name)
        if found is None:
            raise NotFound(f"There is no {_text(name)} here.")
        return found

    def make(
        self, parent: int, name: bytes, mode: int, caller: Caller, *, rdev: int = 0, target: bytes = b""
    ) -> tuple[int, Inode]:
        """Make a file, directory, symlink or special file, as `mode` says; return its number and inode."""
        check_name(name)
        if len(target) > MAX_TARGET_BYTES:
            raise NameTooLong(f"A symlink's target has at most {MAX_TARGET_BYTES} bytes, this has {len(target)}.")
        directory = self._writable(parent)
        if self._directories.find(parent, directory, name) is not None:
            raise Exists(f"{_text(name)} exists already.")
        if not self._staging.room.for_names():
            raise NoSpace
        change = self.change()
        made = self.add(change, parent, name, _new_inode(directory, parent, mode, caller, change.now_ns, rdev, target))
        change.commit()
        return made

    def add(self, change: Change, parent: int, name: bytes, inode: Inode) -> tuple[int, Inode]:
        """Give a new inode a number and its first name."""
        ino = self._counters.take(NEXT_INO)
        change.put(ino, inode)
        self.enter(change, parent, name, ino, inode)
        return ino, inode

    def enter(self, change: Change, parent: int, name: bytes, ino: int, inode: Inode) -> None:
        """Add a name that was not there to a directory, and count it."""
        self._directories.put(change, parent, name, Dirent(inode.kind, ino, self._counters.take(NEXT_SEQ)))
        self._count(change, parent, names=1, subdirectories=1 if inode.is_directory else 0)
        if self.follower is not None:
            self.follower.entered(change, parent, name, ino, inode)

    def leave(self, change: Change, parent: int, name: bytes, inode: Inode) -> None:
        """Take a name out of a directory; the inode is left alone."""
        self._directories.remove(change, parent, name, self._counters.take(NEXT_SEQ))
        self._count(change, parent, names=-1, subdirectories=-1 if inode.is_directory else 0)

    def link(self, ino: int, parent: int, name: bytes) -> Inode:
        """Give a file one more name."""
        check_name(name)
        inode = self._nodes.get(ino)
        if inode.is_directory:
            raise NotPermitted("A directory has one name; make a symlink instead.")
        directory = self._writable(parent)
        if inode.read_only:
            raise ReadOnly("The file")
        if inode.nlink == 0:
            raise NotFound("The file has been removed.")
        if inode.nlink >= MAX_LINKS:
            raise TooManyLinks(f"The file has {inode.nlink} names, no more are possible.")
        if self._directories.find(parent, directory, name) is not None:
            raise Exists(f"{_text(name)} exists already.")
        if not self._staging.room.for_names():
            raise NoSpace
        change = self.change()
        linked = changed(inode, nlink=inode.nlink + 1, ctime_ns=change.now_ns)
        change.put(ino, linked)
        self.enter(change, parent, name, ino, linked)
        self._nodes.ranges.mark_moved(change, ino)
        change.commit()
        return linked

    def unlink(self, parent: int, name: bytes) -> None:
        """Remove the name of something that is no directory."""
        check_name(name)
        self._writable(parent)
        ino, inode = self.child(parent, name)
        if inode.is_directory:
            raise IsADirectory(f"{_text(name)} is a directory; use rmdir.")
        change = self.change()
        self.leave(change, parent, name, inode)
        self.release_name(change, ino)
        change.commit()

    def rmdir(self, parent: int, name: bytes) -> None:
        """Remove an empty directory."""
        if name in (b".", b".."):
            raise Invalid("'.' cannot be removed.") if name == b"." else NotEmpty("'..' is not empty.")
        check_name(name)
        self._writable(parent)
        ino, inode = self.child(parent, name)
        if not inode.is_directory:
            raise NotADirectory(f"{_text(name)} is no directory.")
        self._check_empty(name, inode)
        change = self.change()
        self.leave(change, parent, name, inode)
        self.release_name(change, ino)
        change.commit()

    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int) -> None:
        """Move a name, over another if there is one; with `RENAME_EXCHANGE` the two change places."""
        if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE) or flags == RENAME_NOREPLACE | RENAME_EXCHANGE:
            raise Invalid("These rename flags are not supported together or at all.")
        check_name(name)
        check_name(new_name)
        self._writable(parent)
        new_directory = self._writable(new_parent)
        ino, inode = self.child(parent, name)
        target = self._directories.find(new_parent, new_directory, new_name)
        if inode.is_directory and parent != new_parent:
            self._check_not_below(new_parent, ino)
        if flags & RENAME_NOREPLACE and target is not None:
            raise Exists(f"{_text(new_name)} exists already.")
        if new_parent != PREPARED and not self._staging.room.for_moves():  # that is how trees are removed at once
            raise NoSpace
        if flags & RENAME_EXCHANGE:
            self._exchange(parent, name, new_parent, new_name)
            return
        if target is not None:
            if target[0] == ino:
                return
            _check_replaceable(new_name, inode, target[1])
            if target[1].is_directory:
                self._check_empty(new_name, target[1])
        change = self.change()
        self.leave(change, parent, name, inode)
        if target is not None:
            self.leave(change, new_parent, new_name, target[1])
            self.release_name(change, target[0])
        self.place(change, new_parent, new_name, ino, moved=parent != new_parent)
        change.commit()

    def place(self, change: Change, parent: int, name: bytes, ino: int, *, moved: bool) -> None:
        """Give an inode that has left its name a new one."""
        inode = change.inode(ino)
        inode = changed(inode, ctime_ns=change.now_ns, parent=parent if inode.is_directory else 0)
        change.put(ino, inode)
        self.enter(change, parent, name, ino, inode)
        if moved:
            self._nodes.ranges.mark_moved(change, ino)

    def release_name(self, change: Change, ino: int) -> None:
        """One name of the inode was removed: count it, and let go of the inode if that was the last one."""
        inode = change.inode(ino)
        links = 0 if inode.is_directory else inode.nlink - 1
        if links or self.in_use(ino):
            change.put(ino, changed(inode, nlink=links, ctime_ns=change.now_ns))
            if not links:
                change.batch.put(Family.ORPHAN, ino.to_bytes(8, "big"), b"")
            elif links == 1 and self.follower is not None:
                self.follower.one_name_left(change, ino)
        else:
            self.purge(change, ino)

    def purge(self, change: Change, ino: int) -> None:
        """Remove everything about an inode that has no name."""
        inode = change.inode(ino)
        change.drop(ino)
        if self.follower is not None:
            self.follower.gone(change, ino, inode)
        if inode.state == STAGED:
            self._staging.drop(change, ino)
        if inode.is_directory:
            self._directories.remove_all(change, ino)
            attached = self._nodes.ranges.find(ino)
            if attached is not None and attached.first == ino:
                # What was thrown away of the tree is still read by it, until it is swept.
                if not attached.moved and not self._directories.any_in_trash(ino + 1, attached.end):
                    self._nodes.ranges.remove(change, attached)
                elif self.follower is not None:
                    self.follower.range_left(change, ino)

    def _exchange(self, parent: int, name: bytes, new_parent: int, new_name: bytes) -> None:
        ino, inode = self.child(parent, name)
        other_ino, other = self.child(new_parent, new_name)
        if ino == other_ino:
            return
        if other.is_directory and parent != new_parent:
            self._check_not_below(parent, other_ino)
        change = self.change()
        self.leave(change, parent, name, inode)
        self.leave(change, new_parent, new_name, other)
        self.place(change, new_parent, new_name, ino, moved=parent != new_parent)
        self.place(change, parent, name, other_ino, moved=parent != new_parent)
        change.commit()

    def _writable(self, parent: int) -> Inode:
        directory = self.directory(parent)
        if directory.read_only:
            raise ReadOnly("The directory")
        if directory.nlink == 0:
            raise NotFound("The directory has been removed.")
        return directory

    def _check_empty(self, name: bytes, directory: Inode) -> None:
        if directory.entries:
            raise NotEmpty(f"{_text(name)} has {directory.entries} names in it.")

    def _check_not_below(self, directory: int, moved: int) -> None:
        ino = directory
        while ino:
            if ino == moved:
                raise Invalid("A directory cannot be moved into itself or below.")
            above = self._nodes.get(ino).parent
            ino = 0 if above == ino else above

    def _count(self, change: Change, ino: int, *, names: int, subdirectories: int) -> None:
        directory = change.inode(ino)
        mtime_ns = change.now_ns
        if directory.flags & READ_ONLY:
            # The owner changed it, and the kernel tells by the time whether the listing that it keeps is old.
            mtime_ns = max(mtime_ns, directory.mtime_ns + 1)
        change.put(
            ino,
            changed(
                directory,
                entries=directory.entries + names,
                nlink=directory.nlink + subdirectories,
                mtime_ns=mtime_ns,
                ctime_ns=change.now_ns,
            ),
        )


def check_name(name: bytes) -> None:
    """Refuse what cannot be the name of anything."""
    if len(name) > MAX_NAME_BYTES:
        raise NameTooLong(f"A name has at most {MAX_NAME_BYTES} bytes, this has {len(name)}.")
    if name in (b".", b".."):
        raise Exists("'.' and '..' are always there.")
    if not name:
        raise NotFound("The empty name names nothing.")
    if b"/" in name or b"\0" in name:
        raise Invalid(f"{_text(name)} cannot be a name: it has a slash or a NUL in it.")


def _new_inode(  # noqa: PLR0913 - what the kernel tells of a new inode
    directory: Inode, parent: int, mode: int, caller: Caller, now_ns: int, rdev: int, target: bytes
) -> Inode:
    kind = stat.S_IFMT(mode)
    gid = caller.gid
    if directory.mode & stat.S_ISGID:
        gid = directory.gid
        if kind == stat.S_IFDIR:
            mode |= stat.S_ISGID
    made = Inode(kind | mode & _PERMISSIONS, caller.uid, gid, 1, 0, now_ns, now_ns, now_ns, born_ns=now_ns)
    match kind:
        case stat.S_IFDIR:
            return changed(made, nlink=2, parent=parent)
        case stat.S_IFREG:
            return changed(made, state=int(ContentState.EMPTY))
        case stat.S_IFLNK:
            return changed(made, size=len(target), target=target)
        case stat.S_IFIFO | stat.S_IFSOCK | stat.S_IFCHR | stat.S_IFBLK:
            return changed(made, rdev=rdev)
    raise Invalid(f"{mode:o} is no type of file.")


def _check_replaceable(name: bytes, inode: Inode, target: Inode) -> None:
    if inode.is_directory and not target.is_directory:
        raise NotADirectory(f"{_text(name)} is no directory, and a directory was to replace it.")
    if target.is_directory and not inode.is_directory:
        raise IsADirectory(f"{_text(name)} is a directory, and a file was to replace it.")


def _text(name: bytes) -> str:
    return repr(name.decode("utf-8", "backslashreplace"))


def _nobody(ino: int) -> bool:
    return False
