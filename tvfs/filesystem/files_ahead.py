"""Fetches the next files of an attached tree for whoever reads one whole file after another.

Programs that walk a tree read its files in the order of their numbers (preorder), and read each to its end.  While one
is copied to its reader, the next ones are decompressed on the other processors.
"""

from __future__ import annotations

from tvfs.content.reader import ContentReader
from tvfs.errors import TaskVaultError
from tvfs.filesystem.inode import NO_HASH, STAGED, Inode
from tvfs.filesystem.nodes import Nodes
from tvfs.filesystem.posix_error import PosixError

LEAST_BYTES = 128 << 10
"""Shorter files are read at once as they are asked for."""
STEP = 8
"""So many numbers further on the next file may be: names of directories and shorter files lie between."""
FILES_AHEAD = 3
"""Each has one piece of at most 1 MiB fetched, so that few bytes are fetched for nothing."""


class FilesAhead:
    """Called with each read of sealed bytes; never waits."""

    def __init__(self, nodes: Nodes, reader: ContentReader) -> None:
        self._nodes = nodes
        self._reader = reader
        self._finished = 0
        """The file that was read to its end last."""
        self._in_order = 0
        """How many files in a row were begun right after the one before was finished."""
        self._fetched_to = 0
        """The highest number of those that were asked for since somebody reads in order."""

    def note(self, ino: int, inode: Inode, offset: int, end: int) -> None:
        """A file of at least `LEAST_BYTES` is read from `offset` to `end`."""
        if offset == 0:
            if 0 < ino - self._finished <= STEP:
                self._in_order += 1
                self._fetch_after(ino)
            else:
                self._in_order = self._fetched_to = 0
        if end >= inode.size:
            self._finished = ino

    def _fetch_after(self, ino: int) -> None:
        wanted = min(self._in_order, FILES_AHEAD)
        for number in range(ino + 1, ino + 1 + STEP):
            if not wanted:
                return
            try:
                inode = self._nodes.find(number)
            except (PosixError, TaskVaultError):
                return  # whoever reads it is told
            if inode is None or not inode.is_regular or inode.state == STAGED or inode.size < LEAST_BYTES:
                continue
            if inode.hash == NO_HASH:
                continue
            wanted -= 1
            if number > self._fetched_to:
                self._fetched_to = number
                self._reader.fetch(inode.content)
