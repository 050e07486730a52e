"""Write a snapshot, or a part of it, into a local directory.

Nothing is written through a symlink: every directory is opened relative to the one above it, and a symlink where a
directory should be is an error.  A file appears under its name complete or not at all, and so does a whole directory
that did not exist; one that did is merged, entry by entry, and keeps its own attributes.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from tvfs.content.attributes import OwnAttributes
from tvfs.content.reference import ContentKind
from tvfs.content.snapshot import Snapshot
from tvfs.content.tree_index import DIRECTORY, REGULAR, SYMLINK, IndexEntry
from tvfs.digest import ChunkId
from tvfs.errors import TaskVaultError
from tvfs.ingest.local_target import (
    CREATE_FILE,
    OPEN_DIRECTORY,
    remove_tree,
    set_attributes,
    set_attributes_by_name,
    write_all,
)
from tvfs.ingest.one_file import write_content
from tvfs.ingest.snapshot_source import ContentDamaged, SnapshotSource

BATCH_BYTES = 4 << 20
BATCH_FILES = 256
"""How many small files, and bytes of them, are fetched at a time."""

KEPT_OPEN = 64
"""Directories on the way down that stay open; one further up is closed, and found again from the one below."""

_TEMPORARY = b".tv-partial-"


class TargetUnwritable(TaskVaultError):
    """A path could not be written."""

    def __init__(self, path: bytes, error: OSError) -> None:
        super().__init__(
            f"{os.fsdecode(path)} could not be written ({error.strerror}); what was complete before stays."
        )
        self.path = path
        self.errno = error.errno


class TargetInTheWay(TaskVaultError):
    """Something of another type has the name that is to be written."""

    def __init__(self, path: bytes) -> None:
        super().__init__(
            f"{os.fsdecode(path)} is in the way: it is a directory and should not be one, or the other way round, or a "
            f"symlink; move it away and try again."
        )
        self.path = path


class SubpathMissing(TaskVaultError):
    """The snapshot has no such path."""

    def __init__(self, path: bytes) -> None:
        super().__init__(f"The snapshot does not hold {os.fsdecode(path)}; list it to see what it holds.")
        self.path = path


def materialise(
    source: SnapshotSource,
    snapshot: Snapshot,
    target: str | bytes,
    *,
    subpath: str | bytes = b"",
    temporary: str | bytes = _TEMPORARY,
) -> int:
    """Write the snapshot to the directory `target`, or what is at `subpath` in it to the path `target`.

    `temporary` is how the names begin under which things are until they are complete, where others can see them.

    Returns the number of files written.  Owners are restored for root only.  Raises `TargetUnwritable`,
    `TargetInTheWay`, `SubpathMissing`, `ContentDamaged`, `TreeIndexMissing`, and what the source raises.
    """
    path = os.path.abspath(os.fsencode(target))
    wanted = os.fsencode(subpath).strip(b"/")
    writer = _Writer(source, path, _links_of(source, snapshot, wanted), os.fsencode(temporary))
    if not wanted:
        entry = _entry_of(source, snapshot.index)
    else:
        found = source.lookup(snapshot.index, wanted)
        if found is None:
            raise SubpathMissing(wanted)
        entry = found
    writer.write(entry)
    return writer.files


def _entry_of(source: SnapshotSource, index: bytes) -> IndexEntry:
    root = source.root(index)
    return IndexEntry(
        b"", DIRECTORY, root.mode, root.uid, root.gid, root.mtime_ns,
        child=index, below=root.below, xattrs=root.xattrs,
    )  # fmt: skip


def _own(entry: IndexEntry) -> OwnAttributes:
    return OwnAttributes(entry.mode, entry.uid, entry.gid, entry.mtime_ns, entry.xattrs)


@dataclass(slots=True)
class _LinkGroup:
    """Names of one file; the first that is written is what the others are linked to."""

    path: bytes | None = None
    inode: tuple[int, int] | None = None


def _links_of(source: SnapshotSource, snapshot: Snapshot, subpath: bytes) -> dict[bytes, _LinkGroup]:
    """Groups by path below `subpath`."""
    links: dict[bytes, _LinkGroup] = {}
    prefix = subpath + b"/" if subpath else b""
    for paths in source.root(snapshot.index).hard_links:
        group = _LinkGroup()
        links.update((path[len(prefix) :], group) for path in paths if path.startswith(prefix))
    return links


@dataclass(slots=True)
class _Directory:
    """An open directory that is being filled."""

    path: bytes
    """Relative to the target, as the snapshot has it."""
    fd: int
    new: bool
    """Nobody else sees it yet: files are written under their own names."""
    own: OwnAttributes | None
    """To be set at the end; None for a directory that existed."""
    entries: Iterator[IndexEntry]
    publish_as: bytes | None = None
    """The name that a new directory takes in its parent when it is complete; None if it has it already."""
    temporary: bytes = b""
    parent: _Directory | None = None
    """Where it is to be published; stays open until then."""
    identity: tuple[int, int] = (0, 0)
    """Device and inode, while it is closed."""
    small: list[IndexEntry] = field(default_factory=list)
    small_bytes: int = 0

    def path_of(self, name: bytes) -> bytes:
        return self.path + b"/" + name if self.path else name


class _Writer:
    def __init__(self, source: SnapshotSource, target: bytes, links: dict[bytes, _LinkGroup], temporary: bytes) -> None:
        self._source = source
        self._temporary = temporary
        self._target = target
        self._links = links
        self._root = os.geteuid() == 0
        self._serial = 0
        self._unpublished: tuple[bytes, bytes] | None = None
        """Path of the new directory that is not published yet, and its temporary name."""
        self._top_fd = -1
        self.files = 0

    def write(self, entry: IndexEntry) -> None:
        """Write an entry at the target path."""
        parent, name = os.path.split(self._target)
        if entry.kind == DIRECTORY:
            self._make_parents(parent)
        with self._errors(b""):
            parent_fd = os.open(parent or b"/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if entry.kind != DIRECTORY:
                self._top_fd = parent_fd
                top = _Directory(b"", parent_fd, False, None, iter(()))
                self._write_other(top, entry, name) if entry.kind != REGULAR else self._write_file(top, entry, name)
                return
            self._fill(self._open_target(entry, parent_fd, name))
        finally:
            os.close(parent_fd)

    def _make_parents(self, parent: bytes) -> None:
        with self._errors(b""):
            os.makedirs(parent or b"/", exist_ok=True)

    def _open_target(self, entry: IndexEntry, parent_fd: int, name: bytes) -> _Directory:
        """Open the target, which the user named and may be reached through symlinks."""
        if os.path.isdir(self._target):
            with self._errors(b""):
                fd = os.open(self._target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            return _Directory(b"", fd, False, None, self._entries(entry))
        holder = _Directory(b"", parent_fd, False, None, iter(()))
        return self._make_directory(holder, entry, name, b"")

    def _fill(self, top: _Directory) -> None:
        stack = [top]
        self._top_fd = top.fd
        try:
            while stack:
                directory = stack[-1]
                child = self._advance(directory)
                if child is not None:
                    stack.append(child)
                    self._rest(stack)
                    continue
                self._write_small(directory)
                if len(stack) > 1:
                    # Before it has its attributes, with which it might not be left any more.
                    self._wake(stack[-2], directory)
                self._finish(directory)
                stack.pop()
        except BaseException:
            self._abandon(stack)
            raise

    def _advance(self, directory: _Directory) -> _Directory | None:
        """Write entries up to the next subdirectory, and return that one opened; None at the end."""
        for entry in directory.entries:
            if entry.kind == DIRECTORY:
                return self._open_child(directory, entry)
            if entry.kind != REGULAR:
                self._write_other(directory, entry, entry.name)
            elif entry.content_kind == ContentKind.CHUNK:
                directory.small.append(entry)
                directory.small_bytes += entry.size
                if directory.small_bytes >= BATCH_BYTES or len(directory.small) >= BATCH_FILES:
                    self._write_small(directory)
            else:
                self._write_file(directory, entry, entry.name)
        return None

    def _rest(self, stack: list[_Directory]) -> None:
        """Close a directory far above, so that any depth takes few descriptors; never the top, nor a publisher."""
        position = len(stack) - 1 - KEPT_OPEN
        if position > 0 and stack[position + 1].parent is None:
            directory = stack[position]
            status = os.fstat(directory.fd)
            directory.identity = (status.st_dev, status.st_ino)
            os.close(directory.fd)
            directory.fd = -1

    def _wake(self, directory: _Directory, below: _Directory) -> None:
        """Open a directory again; raise `TargetInTheWay` if the one below it was moved out of it meanwhile."""
        if directory.fd >= 0:
            return
        with self._errors(directory.path):
            fd = os.open(b"..", OPEN_DIRECTORY, dir_fd=below.fd)
            status = os.fstat(fd)
            if (status.st_dev, status.st_ino) != directory.identity:
                os.close(fd)
                raise TargetInTheWay(self._shown(below.path))
            directory.fd = fd

    def _finish(self, directory: _Directory) -> None:
        with self._errors(directory.path):
            if directory.own is not None:
                set_attributes(directory.fd, directory.own, owner=self._root)
            os.close(directory.fd)
            directory.fd = -1
            if directory.publish_as is not None:
                self._rename_directory(directory)

    def _rename_directory(self, directory: _Directory) -> None:
        assert directory.publish_as is not None
        assert directory.parent is not None
        fd = directory.parent.fd
        os.rename(directory.temporary, directory.publish_as, src_dir_fd=fd, dst_dir_fd=fd)
        self._unpublished = None

    def _abandon(self, stack: list[_Directory]) -> None:
        """Close everything, and remove the new directory that nobody has seen."""
        for directory in reversed(stack):
            if directory.fd >= 0:
                os.close(directory.fd)
            if directory.parent is not None:
                remove_tree(directory.parent.fd, directory.temporary)

    def _open_child(self, directory: _Directory, entry: IndexEntry) -> _Directory:
        path = directory.path_of(entry.name)
        if not directory.new:
            existing = self._status(directory.fd, entry.name, path)
            if existing is not None:
                if not stat.S_ISDIR(existing.st_mode):
                    raise TargetInTheWay(self._shown(path))
                with self._errors(path):
                    fd = os.open(entry.name, OPEN_DIRECTORY, dir_fd=directory.fd)
                return _Directory(path, fd, False, None, self._entries(entry))
        return self._make_directory(directory, entry, entry.name, path)

    def _make_directory(self, directory: _Directory, entry: IndexEntry, name: bytes, path: bytes) -> _Directory:
        temporary = name if directory.new else self._temporary_name()
        with self._errors(path):
            # Ours alone until it is complete, whatever its mode will be.
            os.mkdir(temporary, 0o700, dir_fd=directory.fd)
            fd = os.open(temporary, OPEN_DIRECTORY, dir_fd=directory.fd)
        made = _Directory(path, fd, True, _own(entry), self._entries(entry))
        if not directory.new:
            made.publish_as, made.temporary, made.parent = name, temporary, directory
            self._unpublished = (path, temporary)
        return made

    def _entries(self, entry: IndexEntry) -> Iterator[IndexEntry]:
        return self._source.entries(entry.child, self._source.child_root(entry))

    # --- files ---

    def _write_small(self, directory: _Directory) -> None:
        entries, directory.small, directory.small_bytes = directory.small, [], 0
        if not entries:
            return
        chunks = self._source.chunks([ChunkId(entry.content_hash) for entry in entries])
        for entry, raw in zip(entries, chunks, strict=True):
            if len(raw) != entry.size:
                raise ContentDamaged(entry.content_hash.hex(), "it has another length than the tree says")
            self._write_file(directory, entry, entry.name, raw)

    def _write_file(self, directory: _Directory, entry: IndexEntry, name: bytes, raw: bytes | None = None) -> None:
        path = directory.path_of(entry.name)
        if self._link(directory, name, path):
            return
        with self._errors(path), self._named(directory, name, path) as created:
            fd = os.open(created, CREATE_FILE, 0o600, dir_fd=directory.fd)
            try:
                if raw is not None:
                    write_all(fd, raw, 0)
                else:
                    write_content(fd, self._source, entry)
                set_attributes(fd, _own(entry), owner=self._root)
                self._remember(path, os.fstat(fd))
            finally:
                os.close(fd)
        self.files += 1

    def _write_other(self, directory: _Directory, entry: IndexEntry, name: bytes) -> None:
        path = directory.path_of(entry.name)
        if self._link(directory, name, path):
            return
        with self._errors(path), self._named(directory, name, path) as created:
            if entry.kind == SYMLINK:
                os.symlink(entry.target, created, dir_fd=directory.fd)
            else:
                os.mknod(created, entry.st_mode, entry.rdev, dir_fd=directory.fd)
            set_attributes_by_name(directory.fd, created, entry, owner=self._root)
            self._remember(path, os.stat(created, dir_fd=directory.fd, follow_symlinks=False))

    @contextmanager
    def _named(self, directory: _Directory, name: bytes, path: bytes) -> Iterator[bytes]:
        """Give the name to create: a temporary one, renamed at the end, where others can see the directory."""
        if directory.new:
            yield name
            return
        existing = self._status(directory.fd, name, path)
        if existing is not None and stat.S_ISDIR(existing.st_mode):
            raise TargetInTheWay(self._shown(path))
        temporary = self._temporary_name()
        try:
            yield temporary
            os.rename(temporary, name, src_dir_fd=directory.fd, dst_dir_fd=directory.fd)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=directory.fd)
            raise

    # --- hard links ---

    def _remember(self, path: bytes, status: os.stat_result) -> None:
        group = self._links.get(path)
        if group is not None and group.path is None:
            group.path, group.inode = path, (status.st_dev, status.st_ino)

    def _link(self, directory: _Directory, name: bytes, path: bytes) -> bool:
        """Link the name to the file of its group that was written before; False if there is none."""
        group = self._links.get(path)
        if group is None or group.path is None:
            return False
        with self._errors(path):
            fd, first = self._open_parent_of(group.path)
            try:
                found = os.stat(first, dir_fd=fd, follow_symlinks=False)
                if (found.st_dev, found.st_ino) != group.inode:
                    return False  # somebody replaced it: a copy is right, a link would not be
                with self._named(directory, name, path) as created:
                    os.link(first, created, src_dir_fd=fd, dst_dir_fd=directory.fd, follow_symlinks=False)
            finally:
                os.close(fd)
        return True

    def _open_parent_of(self, path: bytes) -> tuple[int, bytes]:
        parts = self._now_at(path).split(b"/")
        fd = os.dup(self._top_fd)
        for part in parts[:-1]:
            below = os.open(part, OPEN_DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = below
        return fd, parts[-1]

    def _now_at(self, path: bytes) -> bytes:
        """Where a path of the snapshot lies as long as the new directory it is in has its temporary name."""
        if self._unpublished is None or not self._unpublished[0]:
            return path
        unpublished, temporary = self._unpublished
        if not path.startswith(unpublished + b"/"):
            return path
        return os.path.join(os.path.dirname(unpublished), temporary, path[len(unpublished) + 1 :])

    # --- names and errors ---

    def _status(self, fd: int, name: bytes, path: bytes) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise TargetUnwritable(self._shown(path), exc) from exc

    def _temporary_name(self) -> bytes:
        self._serial += 1
        return self._temporary + b"%d-%s-%d" % (os.getpid(), os.urandom(4).hex().encode(), self._serial)

    def _shown(self, path: bytes) -> bytes:
        return os.path.join(self._target, path) if path else self._target

    @contextmanager
    def _errors(self, path: bytes) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            if exc.errno in (errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY):
                raise TargetInTheWay(self._shown(path)) from exc
            raise TargetUnwritable(self._shown(path), exc) from exc
