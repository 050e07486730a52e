"""Listings that continue at a cookie, whatever happened to the names in between and whoever began them.

The kernel says which directory it lists and where it goes on, nothing else: there are no handles, and nobody says when
a listing ends.  What is remembered of it is for names that go meanwhile, and is bounded; a cookie that nobody knows any
more goes on at the start of the directory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

from tvfs.filesystem.directories import Directories, Listed
from tvfs.filesystem.inode import Inode
from tvfs.filesystem.model import DirectoryEntry, Found
from tvfs.filesystem.nodes import Nodes
from tvfs.filesystem.posix_error import NotADirectory
from tvfs.filesystem.views import OWNER_CHANGES

_NAMES_OF_ONE = 8192
"""Cookies of one directory whose names are known; more than one answer to the kernel can hold."""
_NAMES_OF_ALL = 65_536
_DIRECTORIES = 1024


class Listings:
    """Directories that were listed of late."""

    def __init__(self, nodes: Nodes, directories: Directories, *, timeout_s: Callable[[int], float]) -> None:
        """`timeout_s` says how long the kernel may believe a directory's names."""
        self._nodes = nodes
        self._directories = directories
        self._timeout_s = timeout_s
        self._recent: OrderedDict[int, dict[int, bytes]] = OrderedDict()
        """Name of each cookie given out of late: where a listing continues even if that name is gone."""
        self._names = 0
        """How many there are, but for those of the last directory."""
        directories.is_listed = self._recent.__contains__

    def read(self, ino: int, cookie: int) -> Iterator[DirectoryEntry]:
        """Yield what comes after a cookie (0: all).  Do not await while it is open."""
        directory = self._nodes.get(ino)
        if not directory.is_directory:
            raise NotADirectory(f"Inode {ino} is no directory.")
        names = self._recall(ino)
        after = b""
        if cookie:
            after = names.get(cookie) or self._directories.name_of_cookie(ino, directory, cookie)
        if len(names) > _NAMES_OF_ONE:
            names.clear()
        return self._entries(ino, names, directory, after)

    def _entries(self, ino: int, names: dict[int, bytes], directory: Inode, after: bytes) -> Iterator[DirectoryEntry]:
        nodes = self._nodes
        timeout_s = self._timeout_s(ino)
        for listed in self._directories.listing(ino, directory, after):
            inode = _inode(nodes, ino, listed)
            names[listed.cookie] = listed.name
            believed_s = 0.0 if listed.ino in OWNER_CHANGES else timeout_s
            yield DirectoryEntry(listed.name, Found(nodes.attributes(listed.ino, inode), believed_s), listed.cookie)

    def _recall(self, ino: int) -> dict[int, bytes]:
        """Return the names of a directory's cookies, and let it be the last directory."""
        recent = self._recent
        if recent:
            self._names += len(recent[next(reversed(recent))])
        names = recent.get(ino)
        if names is None:
            names = recent[ino] = {}
        else:
            self._names -= len(names)
            recent.move_to_end(ino)
        while self._names > _NAMES_OF_ALL or len(recent) > _DIRECTORIES:
            oldest, forgotten = recent.popitem(last=False)
            self._names -= len(forgotten)
            self._directories.listed_no_more(oldest)
        return names


def _inode(nodes: Nodes, parent: int, listed: Listed) -> Inode:
    return nodes.get(listed.ino) if listed.entry is None else nodes.child(parent, listed.entry)[1]
