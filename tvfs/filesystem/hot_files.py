"""Copies of whole contents, decompressed, for the kernel to read past us: `HOME/hot/<hash>`.

A copy is made when a long file is opened for the second time, from chunks that were verified when they were loaded.  It
never changes while it is one, is made under another name first, and is not kept over a restart.  It serves one inode at
a time: whoever writes to that inode while somebody still reads the copy takes it over as the staging file, so that
reader and writer see the same bytes.  Copies are the first to go when room is needed.
"""

from __future__ import annotations

import fcntl
import os
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog
import trio

from tvfs.content.reader import ContentReader
from tvfs.content.reference import Content
from tvfs.errors import TaskVaultError
from tvfs.filesystem.recent import Recent

PIECE_BYTES = 1 << 20
_OPENED_REMEMBERED = 4096
_WANTED_MAX = 16
_log = structlog.get_logger()


@dataclass(slots=True)
class HotCopy:
    """One content, as an ordinary file."""

    content: Content
    path: Path
    allocated_bytes: int
    ino: int = 0
    """The inode whose readers use it, or did and may still have it mapped; 0 for none."""


class HotFiles:
    """The owner's trio thread only."""

    def __init__(
        self,
        directory: Path,
        reader: ContentReader,
        *,
        limit_bytes: int,
        least_bytes: int,
        free_bytes: Callable[[], int],
        changed: Callable[[int], None],
    ) -> None:
        """Contents shorter than `least_bytes` are not worth a copy.

        `free_bytes` says how much may be taken from the vault for copies; `changed` is told by how much they grew.
        """
        self._directory = directory
        self._reader = reader
        self._limit_bytes = limit_bytes
        self._least_bytes = least_bytes
        self._free_bytes = free_bytes
        self._changed = changed
        self._copies: OrderedDict[bytes, HotCopy] = OrderedDict()
        self._by_ino: dict[int, HotCopy] = {}
        self._direct: set[int] = set()
        """Inodes that the kernel reads past us now."""
        self._opened: Recent[int] = Recent(_OPENED_REMEMBERED)
        self._wanted: OrderedDict[bytes, Content] = OrderedDict()
        self._asked = trio.Event()
        self.tells_use = True
        """Whether the disk's filesystem says who uses a file; known after `start`."""
        self.total_bytes = 0
        """What all copies take of the disk."""

    def start(self, used: Iterable[tuple[int, Content]] = (), direct: Collection[int] = ()) -> None:
        """Remove what an earlier run left: nobody knows whether all of it reached the disk.

        Except in a session that was taken over: then the machine has been up ever since.  `used` are inodes that may
        still be read past us and their contents, `direct` those that are.
        """
        for ino, content in used:
            self._adopt(ino, content)
        self._direct |= set(direct)
        kept = {copy.path.name for copy in self._copies.values()}
        with suppress(FileNotFoundError), os.scandir(self._directory) as left:
            for entry in left:
                if entry.name not in kept:
                    self._changed(-entry.stat(follow_symlinks=False).st_blocks * 512)
                    os.unlink(entry.path)
        self._remove_empty_directory()
        if self._limit_bytes and not self._grants_leases():
            # Nobody could tell whether a copy is still mapped.
            _log.info("no copies of what is read often are kept", reason="the disk's filesystem grants no leases")
            self._limit_bytes, self.tells_use = 0, False

    def _adopt(self, ino: int, content: Content) -> None:
        path = self._directory / content.hash.hex()
        try:
            found = os.stat(path)
        except FileNotFoundError:
            return
        if found.st_size != content.size:
            return
        copy = self._copies.get(content.hash)
        if copy is None:
            copy = self._copies[content.hash] = HotCopy(content, path, found.st_blocks * 512)
            self.total_bytes += copy.allocated_bytes
        else:
            # It served another inode before this one.
            self._by_ino.pop(copy.ino, None)
        copy.ino = ino
        self._by_ino[ino] = copy

    def begin(self, ino: int, content: Content) -> int | None:
        """Return a descriptor of the content's copy, from now on used for `ino`; None if there is none to be had."""
        copy = self._copies.get(content.hash)
        if copy is None:
            self._note(content)
            return None
        if copy.ino not in (0, ino):
            if copy.ino in self._direct or not is_unused(copy.path):
                return None
            del self._by_ino[copy.ino]
        descriptor = self._open(copy)
        if descriptor is not None:
            copy.ino = ino
            self._by_ino[ino] = copy
            self._direct.add(ino)
            self._copies.move_to_end(content.hash)
        return descriptor

    def hold(self, ino: int) -> None:
        """The kernel reads the inode past us by another file than a copy: the staging file that was one."""
        self._direct.add(ino)

    def end(self, ino: int) -> None:
        """The kernel has closed what it read past us; it may still be mapped."""
        self._direct.discard(ino)

    def is_direct(self, ino: int) -> bool:
        """Whether the kernel reads the inode past us."""
        return ino in self._direct

    def is_used(self, ino: int) -> bool:
        """Whether a copy is read for the inode, or was and may still be mapped."""
        return ino in self._by_ino

    def take_over(self, ino: int) -> HotCopy | None:
        """Return the copy that readers of the inode use, which is no copy any more; None if nobody uses one.

        Called before the inode's content changes.
        """
        copy = self._by_ino.get(ino)
        if copy is None:
            return None
        del self._by_ino[ino]
        copy.ino = 0
        if ino not in self._direct and is_unused(copy.path):
            return None
        self._forget(copy)
        return copy

    def give_back(self, ino: int, copy: HotCopy) -> None:
        """Undo `take_over`: the content did not change."""
        copy.ino = ino
        self._by_ino[ino] = copy
        self._copies[copy.content.hash] = copy
        self._count(copy.allocated_bytes)

    def make_room(self, wanted_bytes: int) -> int:
        """Remove copies that nobody uses, the longest unused first; return how many bytes came free."""
        freed_bytes = 0
        for copy in list(self._copies.values()):
            if freed_bytes >= wanted_bytes:
                break
            if copy.ino in self._direct or (copy.ino and not is_unused(copy.path)):
                continue
            self._by_ino.pop(copy.ino, None)
            self._forget(copy)
            with suppress(FileNotFoundError):
                copy.path.unlink()
            freed_bytes += copy.allocated_bytes
        return freed_bytes

    async def run(self) -> None:
        """Make the copies that are wanted until cancelled."""
        while True:
            await self.copy_wanted()
            await self._asked.wait()

    async def copy_wanted(self) -> None:
        """Make the copies that are wanted by now, one after the other."""
        self._asked = trio.Event()
        while self._wanted:
            _, content = self._wanted.popitem(last=False)
            try:
                await self._make(content)
            except (TaskVaultError, OSError) as exc:
                # Best effort: the content itself is served as ever, and whoever reads it is told what is wrong.
                _log.info("no copy was made", hash=content.hash.hex(), reason=str(exc))

    def _grants_leases(self) -> bool:
        probe = self._directory / "lease"
        self._directory.mkdir(mode=0o700, exist_ok=True)
        probe.touch()
        try:
            return is_unused(probe)
        finally:
            probe.unlink()
            self._remove_empty_directory()

    def _remove_empty_directory(self) -> None:
        with suppress(OSError):
            self._directory.rmdir()

    def _note(self, content: Content) -> None:
        if content.size < self._least_bytes or content.hash in self._wanted:
            return
        # Two contents that share these bits get a copy one open early.
        short = int.from_bytes(content.hash[:8], "big")
        if self._opened.get(short) is None:
            self._opened.put(short, 1)
        elif len(self._wanted) < _WANTED_MAX:
            self._wanted[content.hash] = content
            self._asked.set()

    async def _make(self, content: Content) -> None:
        if content.hash in self._copies or not self._room_for(content.size):
            return
        path = self._directory / content.hash.hex()
        being_made = path.with_suffix(".new")
        self._directory.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(being_made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._count(content.size)
        try:
            for offset in range(0, content.size, PIECE_BYTES):
                # Verified by the reader, chunk by chunk.
                piece = await self._reader.read(content, offset, min(PIECE_BYTES, content.size - offset))
                await trio.to_thread.run_sync(_write_all, descriptor, piece, offset)
            written = os.fstat(descriptor)
            if written.st_size != content.size:
                raise OSError(f"{written.st_size} of {content.size} bytes were written")
        except BaseException:
            being_made.unlink()
            self._count(-content.size)
            raise
        finally:
            os.close(descriptor)
        being_made.rename(path)
        copy = HotCopy(content, path, written.st_blocks * 512)
        self._copies[content.hash] = copy
        self._count(copy.allocated_bytes - content.size)

    def _room_for(self, size_bytes: int) -> bool:
        if size_bytes > self._limit_bytes:
            return False
        over_bytes = self.total_bytes + size_bytes - self._limit_bytes
        if over_bytes > 0:
            self.make_room(over_bytes)
        return self.total_bytes + size_bytes <= self._limit_bytes and size_bytes <= self._free_bytes()

    def _open(self, copy: HotCopy) -> int | None:
        try:
            descriptor = os.open(copy.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._forget(copy)
            return None
        if os.fstat(descriptor).st_size == copy.content.size:
            return descriptor
        os.close(descriptor)
        self._forget(copy)
        return None

    def _forget(self, copy: HotCopy) -> None:
        if self._copies.pop(copy.content.hash, None) is not None:
            self._count(-copy.allocated_bytes)

    def _count(self, delta_bytes: int) -> None:
        self.total_bytes += delta_bytes
        self._changed(delta_bytes)


def is_unused(path: Path) -> bool:
    """Whether nobody but us has the file open or mapped: only then the kernel grants a lease for writing on it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _write_all(descriptor: int, piece: bytes, offset: int) -> None:
    view = memoryview(piece)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
