"""The directories that are always there, and `cas/`: any blob by its digest, found by name only, never listed."""

from __future__ import annotations

import stat
from collections.abc import Callable, Collection

import msgspec

from tvfs.content.reference import EMPTY, Content, ContentKind
from tvfs.digest import HASH_BYTES, Digest
from tvfs.filesystem.change import Change
from tvfs.filesystem.directories import Directories, Dirent
from tvfs.filesystem.inode import READ_ONLY, Inode
from tvfs.filesystem.model import CAS, KEYS, PREPARED, ROOT, RUNS, SNAPSHOTS, TRASH, WORK
from tvfs.filesystem.nodes import Nodes
from tvfs.filesystem.settings import FilesystemSettings
from tvfs.vault.counters import NEXT_INO, NEXT_SEQ, Counters
from tvfs.vault.leases import Leases

PREPARED_NAME = b".taskvault"
"""Name of the prepared directory at the root of the mount; reachable and not listed."""
FIXED = {b"work": WORK, b"keys": KEYS, b"runs": RUNS, b"snapshots": SNAPSHOTS, b"cas": CAS}
OWNER_CHANGES = frozenset({KEYS, RUNS, SNAPSHOTS, PREPARED, CAS})
"""Directories whose names come and go without the kernel's doing: it must ask each time."""


def make_fixed(change: Change, directories: Directories, counters: Counters, settings: FilesystemSettings) -> None:
    """Make the directories of a vault that is mounted for the first time."""
    shared = 0o555 if settings.share_views else 0o500
    modes = {
        ROOT: 0o555, WORK: 0o755, KEYS: shared, RUNS: shared, SNAPSHOTS: shared,
        CAS: 0o500, PREPARED: 0o700, TRASH: 0o700,
    }  # fmt: skip
    for ino, mode in modes.items():
        change.put(ino, _directory(change.now_ns, mode, settings, read_only=ino not in (WORK, PREPARED, TRASH)))
    root = _directory(change.now_ns, modes[ROOT], settings, read_only=True, names=len(FIXED))
    change.put(ROOT, root)
    for name, ino in FIXED.items():
        directories.put(change, ROOT, name, Dirent(stat.S_IFDIR >> 12, ino, counters.take(NEXT_SEQ)))


def let_publish(change: Change, nodes: Nodes, settings: FilesystemSettings) -> None:
    """Let those rename out of the prepared directory who may, whoever might before.

    It is sticky: what is prepared belongs to who asked for it, and nobody else can move it.
    """
    known = nodes.find(PREPARED)
    assert known is not None, "it was made with the others"
    shared = settings.sharing_gid
    mode = stat.S_IFDIR | (0o700 if shared is None else 0o1730)
    gid = settings.owner_gid if shared is None else shared
    if (known.mode, known.gid) != (mode, gid):
        change.put(PREPARED, msgspec.structs.replace(known, mode=mode, gid=gid))


def _directory(now_ns: int, mode: int, settings: FilesystemSettings, *, read_only: bool, names: int = 0) -> Inode:
    return Inode(
        stat.S_IFDIR | mode, settings.owner_uid, settings.owner_gid, 2 + names, 0, now_ns, now_ns, now_ns,
        flags=READ_ONLY if read_only else 0, parent=ROOT, entries=names,
    )  # fmt: skip


class ContentView:
    """`cas/<function>/<2 hex>/<hash>-<size>`.  Inodes exist from their look-up until the kernel forgets them.

    No row refers to what they show, so it is held as long.
    """

    def __init__(
        self,
        nodes: Nodes,
        counters: Counters,
        find: Callable[[Digest], Content | None],
        leases: Leases,
        *,
        functions: Collection[str],
        settings: FilesystemSettings,
    ) -> None:
        """`find` returns the content of a digest if the vault has all of it."""
        self._nodes = nodes
        self._counters = counters
        self._find = find
        self._leases = leases
        self._functions = functions
        self._settings = settings
        self._numbers: dict[tuple[int, bytes], int] = {}
        self._names: dict[int, tuple[int, bytes]] = {}
        self._levels: dict[int, tuple[str, ...]] = {CAS: ()}

    def shows(self, ino: int) -> bool:
        """Whether the inode is a directory of the view."""
        return ino in self._levels

    def lookup(self, parent: int, name: bytes) -> tuple[int, Inode] | None:
        """Return number and inode of a name in the view, or None."""
        known = self._numbers.get((parent, name))
        if known is not None:
            return known, self._nodes.get(known)
        level = self._levels[parent]
        text = name.decode("ascii", "replace")
        now_ns = self._nodes.get(CAS).mtime_ns
        if len(level) < 2:
            if not (text in self._functions if not level else len(text) == 2 and _is_hex(text)):
                return None
            ino = self._show(parent, name, _directory(now_ns, 0o500, self._settings, read_only=True))
            self._levels[ino] = (*level, text)
            return ino, self._nodes.get(ino)
        content = self._content(level, text)
        if content is None:
            return None
        inode = Inode(
            stat.S_IFREG | 0o400, self._settings.owner_uid, self._settings.owner_gid, 1, 0, now_ns, now_ns, now_ns,
            flags=READ_ONLY,
        ).with_content(content)  # fmt: skip
        return self._show(parent, name, inode), inode

    def forgotten(self, ino: int) -> None:
        """Nobody knows the inode any more."""
        place = self._names.pop(ino, None)
        if place is not None:
            del self._numbers[place]
            self._levels.pop(ino, None)
            self._leases.drop(self, self._nodes.get(ino).hash)  # a content has one name here
            self._nodes.hide(ino)

    def _show(self, parent: int, name: bytes, inode: Inode) -> int:
        ino = self._counters.take(NEXT_INO)
        self._numbers[parent, name] = ino
        self._names[ino] = (parent, name)
        self._leases.hold(self, [inode.hash])
        self._nodes.show(ino, inode)
        return ino

    def _content(self, level: tuple[str, ...], text: str) -> Content | None:
        function, prefix = level
        hash_hex, dash, size = text.partition("-")
        if not (dash and size.isdigit() and hash_hex.startswith(prefix)):
            return None
        if len(hash_hex) != 2 * HASH_BYTES or not _is_hex(hash_hex) or str(int(size)) != size:
            return None
        found = self._find(Digest(function, bytes.fromhex(hash_hex), int(size)))
        if found is None or found.kind is ContentKind.EMPTY:
            return None if found is None else EMPTY
        return found


def _is_hex(text: str) -> bool:
    return all(character in "0123456789abcdef" for character in text)
