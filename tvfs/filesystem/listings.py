"""Open directories: listings that continue at a cookie, whatever happened to the names in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tvfs.filesystem.directories import Directories, Listed
from tvfs.filesystem.inode import Inode
from tvfs.filesystem.model import DirectoryEntry, Found, Handle
from tvfs.filesystem.nodes import Nodes
from tvfs.filesystem.posix_error import BadHandle, NotADirectory

_REMEMBERED = 8192
"""Cookies that a handle knows the names of; more than one answer to the kernel can hold."""


class OpenDirectory:
    """One handle."""

    __slots__ = ("ino", "names")

    def __init__(self, ino: int) -> None:
        self.ino = ino
        self.names: dict[int, bytes] = {}
        """Name of each cookie given out of late: where a listing continues even if that name is gone."""


class Listings:
    """Open directories by handle."""

    def __init__(
        self,
        nodes: Nodes,
        directories: Directories,
        *,
        next_handle: Callable[[], Handle],
        timeout_s: Callable[[int], float],
    ) -> None:
        self._nodes = nodes
        self._directories = directories
        self._next_handle = next_handle
        self._timeout_s = timeout_s
        self._handles: dict[int, OpenDirectory] = {}
        self._opened: dict[int, int] = {}
        directories.is_listed = self.is_open

    def is_open(self, ino: int) -> bool:
        """Whether anybody has the directory open."""
        return ino in self._opened

    def open_inodes(self) -> list[int]:
        """Return the directories that somebody has open."""
        return list(self._opened)

    def open(self, ino: int) -> Handle:
        """Open a directory."""
        if not self._nodes.get(ino).is_directory:
            raise NotADirectory(f"Inode {ino} is no directory.")
        handle = self._next_handle()
        self._handles[handle] = OpenDirectory(ino)
        self._opened[ino] = self._opened.get(ino, 0) + 1
        return handle

    def reopen(self, handle: int, ino: int) -> None:
        """Let a handle be open that another daemon opened; a directory that is no more fails when it is listed."""
        self._handles[handle] = OpenDirectory(ino)
        self._opened[ino] = self._opened.get(ino, 0) + 1

    def release(self, handle: Handle) -> int:
        """Close a handle and return the directory."""
        opened = self._handles.pop(handle, None)
        if opened is None:
            raise BadHandle(handle)
        count = self._opened[opened.ino] - 1
        if count:
            self._opened[opened.ino] = count
        else:
            del self._opened[opened.ino]
            self._directories.listed_no_more(opened.ino)
        return opened.ino

    def read(self, handle: Handle, cookie: int) -> Iterator[DirectoryEntry]:
        """Yield what comes after a cookie.  Do not await while it is open."""
        opened = self._handles.get(handle)
        if opened is None:
            raise BadHandle(handle)
        ino = opened.ino
        directory = self._nodes.get(ino)
        after = b""
        if cookie:
            after = opened.names.get(cookie) or self._directories.name_of_cookie(ino, directory, cookie)
        if len(opened.names) > _REMEMBERED:
            opened.names.clear()
        return self._entries(opened, directory, after)

    def _entries(self, opened: OpenDirectory, directory: Inode, after: bytes) -> Iterator[DirectoryEntry]:
        nodes = self._nodes
        timeout_s = self._timeout_s(opened.ino)
        names = opened.names
        for listed in self._directories.listing(opened.ino, directory, after):
            inode = _inode(nodes, opened.ino, listed)
            names[listed.cookie] = listed.name
            yield DirectoryEntry(listed.name, Found(nodes.attributes(listed.ino, inode), timeout_s), listed.cookie)


def _inode(nodes: Nodes, parent: int, listed: Listed) -> Inode:
    return nodes.get(listed.ino) if listed.entry is None else nodes.child(parent, listed.entry)[1]
