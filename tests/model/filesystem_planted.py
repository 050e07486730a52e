"""Faults of a filesystem, each as somebody might make it, planted from outside: the model must notice every one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from tests.model.planted import Planted, replaced
from tvfs.catalog.catalog import Family
from tvfs.content.tree_builder import Subdirectory
from tvfs.filesystem import files, staging
from tvfs.filesystem.change import Change
from tvfs.filesystem.directories import Directories
from tvfs.filesystem.evictables import Evictables
from tvfs.filesystem.files import Files
from tvfs.filesystem.inode import NO_HASH, Inode, changed
from tvfs.filesystem.model import RENAME_NOREPLACE
from tvfs.filesystem.namespace import Namespace
from tvfs.filesystem.ranges import Ranges
from tvfs.filesystem.snapshots import Snapshots
from tvfs.filesystem.staged_file import StagedFile
from tvfs.filesystem.staging import Staging


def _base_shows_again() -> AbstractContextManager[None]:
    truncate = Staging.truncate

    def changed_one(self: Staging, file: StagedFile, size: int) -> None:
        limit = file.base_limit
        truncate(self, file, size)
        file.base_limit = limit

    return replaced(Staging, "truncate", changed_one)


def _not_copied_up() -> AbstractContextManager[None]:
    return replaced(staging, "uncovered", lambda file, missing, offset, end: iter(()))


def _map_not_written() -> AbstractContextManager[None]:
    def note(self: Staging, file: StagedFile, missing: list[int]) -> None:
        if file.blocks is not None:
            file.blocks.update(dict.fromkeys(missing))

    return replaced(Staging, "_note_blocks", note)


def _replaced_stays() -> AbstractContextManager[None]:
    release_name = Namespace.release_name

    def changed_one(self: Namespace, change: Change, ino: int) -> None:
        inode = change.inode(ino)
        if inode.is_directory or inode.nlink != 2:
            release_name(self, change, ino)

    return replaced(Namespace, "release_name", changed_one)


def _below_itself() -> AbstractContextManager[None]:
    return replaced(Namespace, "_check_not_below", lambda self, directory, moved: None)


def _replaces_all_the_same() -> AbstractContextManager[None]:
    rename = Namespace.rename

    def changed_one(self: Namespace, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int) -> None:
        rename(self, parent, name, new_parent, new_name, flags & ~RENAME_NOREPLACE)

    return replaced(Namespace, "rename", changed_one)


def _moved_is_not_marked() -> AbstractContextManager[None]:
    return replaced(Ranges, "mark_moved", lambda self, change, ino: None)


def _no_whiteout() -> AbstractContextManager[None]:
    """A name that was removed from an attached directory comes back."""

    def remove(self: Directories, change: Change, parent: int, name: bytes, seq: int) -> None:
        key = parent.to_bytes(8, "big") + name
        change.batch.delete(Family.DIRENT, key)

    return replaced(Directories, "remove", remove)


def _subdirectories_uncounted() -> AbstractContextManager[None]:
    count = Namespace._count

    def changed_one(self: Namespace, change: Change, ino: int, *, names: int, subdirectories: int) -> None:
        count(self, change, ino, names=names, subdirectories=max(0, subdirectories))

    return replaced(Namespace, "_count", changed_one)


def _purged_while_open() -> AbstractContextManager[None]:
    release_name = Namespace.release_name

    def changed_one(self: Namespace, change: Change, ino: int) -> None:
        with replaced_on(self, "in_use", lambda ino: False):
            release_name(self, change, ino)

    return replaced(Namespace, "release_name", changed_one)


@contextmanager
def replaced_on(one: Any, name: str, replacement: Any) -> Iterator[None]:
    """Have another attribute of one object for the length of the block."""
    old = getattr(one, name)
    setattr(one, name, replacement)
    try:
        yield
    finally:
        setattr(one, name, old)


def _open_is_evicted() -> AbstractContextManager[None]:
    return replaced(Evictables, "_is_in_use", lambda self, ino: False)


def _evicted_anywhere() -> AbstractContextManager[None]:
    return replaced(Evictables, "covers", lambda self, directory: True)


def _hard_link_is_evicted() -> AbstractContextManager[None]:
    let_go = Evictables.let_go

    def changed_one(self: Evictables, candidate: Any, /) -> int:
        found = self._found

        def alone(ino: int) -> Inode | None:
            inode = found(ino)
            return None if inode is None else changed(inode, nlink=min(inode.nlink, 1))

        with replaced_on(self, "_found", alone):
            return let_go(self, candidate)

    return replaced(Evictables, "let_go", changed_one)


def _permissions_lost() -> AbstractContextManager[None]:
    return replaced(files, "_PERMISSIONS", 0o777)


def _stale_content() -> AbstractContextManager[None]:
    def sealed(opened: Any, inode: Inode) -> Any:
        if opened.content is None:
            opened.content = inode.content
        return opened.content

    return replaced(files, "_sealed", sealed)


def _emptied_keeps_size() -> AbstractContextManager[None]:
    truncate_sealed = Files._truncate_sealed

    def changed_one(self: Files, ino: int, inode: Inode, size: int) -> None:
        truncate_sealed(self, ino, inode, size or min(inode.size, 1))

    return replaced(Files, "_truncate_sealed", changed_one)


def _reused_though_changed() -> AbstractContextManager[None]:
    """A snapshot takes an attached directory for unchanged that has other names by now."""

    def reusable(self: Snapshots, ino: int, inode: Inode) -> Subdirectory | None:
        if inode.hash == NO_HASH:
            return None
        root = self.nodes.trees.root(inode.hash)
        return Subdirectory(root.snapshot(inode.hash), root.own, root.below, root.height)

    return replaced(Snapshots, "reusable", reusable)


def _writers_unnamed() -> AbstractContextManager[None]:
    return replaced(Files, "writers", lambda self: set())


PLANTED: dict[str, Planted] = {
    "base shows again": Planted("a file that was cut and grows shows its old bytes", _base_shows_again),
    "not copied up": Planted("what surrounds a write to a sealed file is not kept", _not_copied_up),
    "map not written": Planted("after a kill nobody knows which blocks were overwritten", _map_not_written),
    "replaced stays": Planted("a second name that goes is not counted", _replaced_stays),
    "below itself": Planted("a directory can be moved below itself", _below_itself),
    "replaces all the same": Planted("RENAME_NOREPLACE replaces", _replaces_all_the_same),
    "moved is not marked": Planted("what left an attached tree goes with the tree", _moved_is_not_marked),
    "no whiteout": Planted("a name removed from an attached directory comes back", _no_whiteout),
    "links stay": Planted("a subdirectory that goes is not counted", _subdirectories_uncounted),
    "purged while open": Planted("a file that is open goes with its last name", _purged_while_open),
    "open is evicted": Planted("a file that is open is evicted", _open_is_evicted),
    "evicted anywhere": Planted("files are evicted from directories that are not evictable", _evicted_anywhere),
    "hard link is evicted": Planted("a file that has another name is evicted", _hard_link_is_evicted),
    "permissions lost": Planted("chmod forgets the set-user-id bit", _permissions_lost),
    "stale content": Planted("a handle goes on reading what was there before", _stale_content),
    "cut keeps a byte": Planted("a sealed file that is emptied keeps a byte", _emptied_keeps_size),
    "reused though changed": Planted("a snapshot misses what changed in an attached directory", _reused_though_changed),
    "writers unnamed": Planted("a snapshot does not name the files open for writing", _writers_unnamed),
}
