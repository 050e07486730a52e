"""Save local directories as a snapshot.

Directories are held open and entries opened relative to them, so that neither long paths nor directories that are moved
meanwhile lead astray.  What belongs together in one directory is kept until it is complete, then built, sent and
forgotten; so memory does not grow with the tree, only with its widest directory.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial

from tvfs.content.attributes import OwnAttributes, Xattrs
from tvfs.content.reference import Content
from tvfs.content.snapshot import Snapshot
from tvfs.content.tree_builder import Subdirectory, TreeBuilder, kind_of
from tvfs.content.tree_index import IndexEntry
from tvfs.digest import Digest
from tvfs.errors import TaskVaultError
from tvfs.ingest.ingest import Ingest
from tvfs.ingest.local_file import OPEN_FILE, PathUnreadable, StoredFile, XattrReader, store_file, unchanged
from tvfs.ingest.port import IngestSettings, NullPort
from tvfs.ingest.save_plan import PlannedPath, plan_paths

Select = Callable[[bytes, bool], bool]
"""Whether to keep an entry: `(path relative to the snapshot's root, is it a directory)`.  Asked for every entry."""

INLINE_FILE_BYTES = 256 << 10
"""Longer files are worth handing to a worker."""
UNFINISHED_DIRECTORIES = 64
"""So many directories may wait for their files before the walk does."""
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class PathMissing(TaskVaultError):
    """A path that was to be saved does not exist."""

    def __init__(self, path: bytes) -> None:
        super().__init__(f"{os.fsdecode(path)} does not exist; check the name and the directory it is relative to.")
        self.path = path


def save_paths(
    ingest: Ingest,
    base_dir: str | bytes,
    paths: Sequence[str | bytes],
    *,
    select: Select | None = None,
    cross_mounts: bool = False,
) -> Snapshot:
    """Save paths and return the snapshot, all of it committed.

    Each path lies where it lies below `base_dir`; one outside lies at the root under its last name; `.` saves what is
    in `base_dir`.  What is mounted below is left out (its directory is empty) unless `cross_mounts`.  Raises
    `PathMissing`, `PathUnreadable`, `FileChanged`, `PathsConflict`, and what the ingest raises.
    """
    snapshot = _Walk(ingest, select, cross_mounts).save(plan_paths(base_dir, paths))
    ingest.finish()
    return snapshot


def hash_paths(
    settings: IngestSettings,
    base_dir: str | bytes,
    paths: Sequence[str | bytes],
    *,
    select: Select | None = None,
    cross_mounts: bool = False,
) -> Digest:
    """Return the digest that the tree of `save_paths` would have, without a vault; raises the same."""
    with Ingest(NullPort(), replace(settings, chunker=_WholeWindows())) as ingest:
        return save_paths(ingest, base_dir, paths, select=select, cross_mounts=cross_mounts).tree


class _WholeWindows:
    """Where nothing is stored, looking for good places to cut is wasted."""

    name = "none"
    parameters: Mapping[str, int | str] = {}
    max_chunk_bytes = 1 << 20

    def cut(self, content: bytes | bytearray | memoryview, /) -> list[int]:
        full, rest = divmod(len(content), self.max_chunk_bytes)
        return [self.max_chunk_bytes] * full + ([rest] if rest else [])


@dataclass(slots=True)
class _Place:
    """Where an entry is opened: a path, relative to a directory unless that is None."""

    path: bytes
    dir_fd: int | None
    planned: PlannedPath | None = None
    """Named by the caller, or on the way to what is; None for what was found."""


@dataclass(slots=True)
class _Directory:
    """A directory of which some entries are not complete yet."""

    parent: _Directory | None
    name: bytes
    path: bytes
    """Relative to the root of the snapshot; empty for the root."""
    fd: int
    status: os.stat_result
    xattrs: Xattrs
    entries: list[IndexEntry] = field(default_factory=list)
    waiting: list[tuple[bytes, Xattrs, Future[StoredFile]]] = field(default_factory=list)
    directories: list[tuple[bytes, Subdirectory]] = field(default_factory=list)
    to_visit: list[tuple[bytes, _Place]] = field(default_factory=list)

    def path_of(self, name: bytes) -> bytes:
        return self.path + b"/" + name if self.path else name

    def is_complete(self) -> bool:
        return all(future.done() for _, _, future in self.waiting)


@dataclass(slots=True)
class _Linked:
    """A file with several names: read once."""

    status: os.stat_result
    stored: Future[StoredFile] | None
    paths: list[bytes]


class _Walk:
    def __init__(self, ingest: Ingest, select: Select | None, cross_mounts: bool) -> None:
        self._ingest = ingest
        self._select = select
        self._cross_mounts = cross_mounts
        self._builder = TreeBuilder(ingest.settings.hash_function)
        self._xattrs = XattrReader()
        self._links: dict[tuple[int, int], _Linked] = {}
        # In the order in which they are built: every directory after those below it.
        self._unfinished: deque[_Directory] = deque()

    def save(self, plan: PlannedPath) -> Snapshot:
        root = self._open(None, b"", _Place(plan.source, None, plan))
        assert root is not None, "a planned directory is opened or an error is raised"
        stack = [root]
        try:
            while stack:
                directory = stack[-1]
                if directory.to_visit:
                    name, place = directory.to_visit.pop()
                    child = self._open(directory, name, place)
                    if child is not None:
                        stack.append(child)
                    continue
                stack.pop()
                os.close(directory.fd)
                self._unfinished.append(directory)
                if stack:
                    self._build_complete()
        finally:
            for directory in stack:
                os.close(directory.fd)
        while len(self._unfinished) > 1:
            self._build(self._unfinished.popleft())
        return self._build(root).snapshot

    # --- reading ---

    def _open(self, parent: _Directory | None, name: bytes, place: _Place) -> _Directory | None:
        path = parent.path_of(name) if parent is not None else b""
        planned = place.planned
        # Who names a path may name it through symlinks; what is found is never followed.
        flags = _OPEN_DIRECTORY if planned is not None and not planned.whole else _OPEN_DIRECTORY | os.O_NOFOLLOW
        if parent is None:
            flags = _OPEN_DIRECTORY
        try:
            fd = os.open(place.path, flags, dir_fd=place.dir_fd)
        except FileNotFoundError as exc:
            if planned is not None:
                raise PathMissing(place.path) from exc
            return None
        except OSError as exc:
            raise PathUnreadable(planned.source if planned else path, exc) from exc
        try:
            status = os.fstat(fd)
            directory = _Directory(parent, name, path, fd, status, self._xattrs.read(fd, status))
            mounted = parent is not None and planned is None and status.st_dev != parent.status.st_dev
            if planned is not None and not planned.whole:
                self._scan_planned(directory, planned)
            elif self._cross_mounts or not mounted:
                self._scan(directory, planned)
        except BaseException:
            os.close(fd)
            raise
        return directory

    def _scan_planned(self, directory: _Directory, planned: PlannedPath) -> None:
        for name, child in planned.children.items():
            place = _Place(child.source, None, child)
            if not child.whole:
                directory.to_visit.append((name, place))
                continue
            try:
                status = os.lstat(child.source)
            except FileNotFoundError as exc:
                raise PathMissing(child.source) from exc
            except OSError as exc:
                raise PathUnreadable(child.source, exc) from exc
            self._add(directory, name, place, stat.S_ISDIR(status.st_mode), stat.S_ISREG(status.st_mode))

    def _scan(self, directory: _Directory, planned: PlannedPath | None) -> None:
        try:
            with os.scandir(directory.fd) as found:
                for item in found:
                    name = os.fsencode(item.name)
                    place = _Place(name, directory.fd)
                    self._add(
                        directory, name, place, item.is_dir(follow_symlinks=False), item.is_file(follow_symlinks=False)
                    )
        except OSError as exc:
            raise PathUnreadable(planned.source if planned else directory.path, exc) from exc

    def _add(self, directory: _Directory, name: bytes, place: _Place, is_directory: bool, is_file: bool) -> None:
        if self._select is not None and not self._select(directory.path_of(name), is_directory):
            return
        if is_directory:
            directory.to_visit.append((name, place))
        elif is_file:
            self._add_file(directory, name, place)
        else:
            self._add_other(directory, name, place)

    def _add_file(self, directory: _Directory, name: bytes, place: _Place) -> None:
        try:
            fd = os.open(place.path, OPEN_FILE, dir_fd=place.dir_fd)
        except FileNotFoundError as exc:
            if place.planned is not None:
                raise PathMissing(place.path) from exc
            return  # removed since it was listed: as if it had been a moment earlier
        except OSError as exc:
            raise PathUnreadable(directory.path_of(name), exc) from exc
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            self._add_other(directory, name, place)
            return
        xattrs = self._xattrs.read(fd, status)
        path = directory.path_of(name)
        if status.st_nlink > 1:
            self._add_linked(directory, name, xattrs, fd, status)
        elif status.st_size <= INLINE_FILE_BYTES:
            stored = store_file(self._ingest, fd, path)
            directory.entries.append(_entry(name, stored.status, xattrs, stored.content))
        else:
            future = self._ingest.run(partial(store_file, self._ingest, fd, path))
            directory.waiting.append((name, xattrs, future))

    def _add_linked(self, directory: _Directory, name: bytes, xattrs: Xattrs, fd: int, status: os.stat_result) -> None:
        path = directory.path_of(name)
        linked = self._links.get((status.st_dev, status.st_ino))
        if linked is None or linked.stored is None or not unchanged(linked.status, status):
            stored = self._ingest.run(partial(store_file, self._ingest, fd, path))
            paths = linked.paths if linked is not None else []
            linked = self._links[status.st_dev, status.st_ino] = _Linked(status, stored, paths)
        else:
            os.close(fd)
        linked.paths.append(path)
        assert linked.stored is not None
        directory.waiting.append((name, xattrs, linked.stored))

    def _add_other(self, directory: _Directory, name: bytes, place: _Place) -> None:
        """Add a symlink or a special file."""
        target = b""
        try:
            status = os.stat(place.path, dir_fd=place.dir_fd, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                target = os.readlink(place.path, dir_fd=place.dir_fd)
        except FileNotFoundError as exc:
            if place.planned is not None:
                raise PathMissing(place.path) from exc
            return
        except OSError as exc:
            raise PathUnreadable(directory.path_of(name), exc) from exc
        if stat.S_ISDIR(status.st_mode):
            directory.to_visit.append((name, place))
            return
        if status.st_nlink > 1:
            linked = self._links.setdefault((status.st_dev, status.st_ino), _Linked(status, None, []))
            linked.paths.append(directory.path_of(name))
        directory.entries.append(_entry(name, status, (), None, target))

    # --- building ---

    def _build_complete(self) -> None:
        """Build what is complete, in order, and wait for the rest only if there is much of it."""
        while self._unfinished and (
            len(self._unfinished) > UNFINISHED_DIRECTORIES or self._unfinished[0].is_complete()
        ):
            self._build(self._unfinished.popleft())
        self._ingest.checkpoint_if_due()

    def _build(self, directory: _Directory) -> Subdirectory:
        for name, xattrs, future in directory.waiting:
            stored = self._ingest.result(future)
            directory.entries.append(_entry(name, stored.status, xattrs, stored.content))
        status, parent = directory.status, directory.parent
        own = OwnAttributes(
            stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, directory.xattrs
        )
        groups = [linked.paths for linked in self._links.values() if len(linked.paths) > 1] if parent is None else []
        built = self._builder.build(own, directory.entries, directory.directories, groups)
        self._ingest.add_directory(built)
        if parent is not None:
            parent.directories.append((directory.name, built.directory))
        return built.directory


def _entry(
    name: bytes, status: os.stat_result, xattrs: Xattrs, content: Content | None, target: bytes = b""
) -> IndexEntry:
    mode = status.st_mode
    kind, permissions = kind_of(mode), stat.S_IMODE(mode)
    if content is None:
        rdev = status.st_rdev if stat.S_ISBLK(mode) or stat.S_ISCHR(mode) else 0
        return IndexEntry(
            name, kind, permissions, status.st_uid, status.st_gid, status.st_mtime_ns, len(target),
            target=target, rdev=rdev, xattrs=xattrs,
        )  # fmt: skip
    return IndexEntry(
        name, kind, permissions, status.st_uid, status.st_gid, status.st_mtime_ns,
        content.size, content.kind, content.hash, xattrs=xattrs,
    )  # fmt: skip
