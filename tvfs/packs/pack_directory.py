"""The directory of packs: their files, open descriptors for reading, and how much disk they take."""

from __future__ import annotations

import errno
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tvfs.errors import TaskVaultError
from tvfs.packs.pack_writer import write_failure
from tvfs.packs.record import PackHeader, encode_pack_header

MAX_OPEN_PACKS = 128
"""Descriptors kept open for reading, beyond those being read from at the moment."""

_FILE_NAME = re.compile(r"([0-9a-f]{16})\.pack")
_BLOCK_BYTES = 512
"""Unit of `st_blocks`, whatever the filesystem's own block is."""


class PackMissing(TaskVaultError):
    """A pack that something refers to has no file."""

    def __init__(self, number: int) -> None:
        super().__init__(f"Pack {number:016x} is not there; save again what was in it.")
        self.number = number


@dataclass(slots=True)
class _Reader:
    """An open pack. Closed by whoever is last: the one who drops it from the table, or its last user."""

    fd: int
    users: int = 0
    dropped: bool = False


class PackDirectory:
    """The packs of one vault.

    Threads: every method may be called from any thread.  One lock guards the tables; it is never held during a system
    call that waits for the disk.
    """

    def __init__(self, path: Path, vault_uuid: bytes, *, max_open_packs: int = MAX_OPEN_PACKS) -> None:
        """Look at what the directory (which must exist) holds."""
        self.path = path
        self.vault_uuid = vault_uuid
        self._max_open_packs = max_open_packs
        self._lock = threading.Lock()
        self._readers: OrderedDict[int, _Reader] = OrderedDict()
        self._allocated: dict[int, int] = {}
        self._allocated_bytes = 0
        for number in self.numbers():
            self.refresh(number)

    def create(self, number: int) -> int:
        """Return a read-write descriptor, the caller's to close, of a new pack whose header is written.

        The name is durable on return, the header after the first sync.  Raises `PackWriteFailed` (`DiskFull`), leaving
        nothing behind.
        """
        path = self._path(number)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise  # a number issued twice is a bug, and the pack that has it must not be touched
        except OSError as exc:
            raise write_failure(number, exc) from exc
        try:
            os.pwrite(fd, encode_pack_header(PackHeader(number, self.vault_uuid)), 0)
            self._sync_names()
        except OSError as exc:
            os.close(fd)
            path.unlink()
            raise write_failure(number, exc) from exc
        self.refresh(number)
        return fd

    @contextmanager
    def open_reader(self, number: int, *, wait: bool = True) -> Iterator[int]:
        """Give a descriptor that stays open for the length of the block, whatever happens to the pack.

        Raises `PackMissing`; with `wait=False`, `BlockingIOError` if the pack would have to be opened first.
        """
        reader = self._acquire(number, wait=wait)
        try:
            yield reader.fd
        finally:
            self._release(reader)

    def truncate(self, number: int, length: int) -> None:
        """Cut the pack at `length` bytes; raise `PackMissing`."""
        try:
            os.truncate(self._path(number), length)
        except FileNotFoundError as exc:
            raise PackMissing(number) from exc
        self.refresh(number)

    def remove(self, number: int) -> None:
        """Delete the pack, if it is there; whoever is reading from it may finish."""
        self._path(number).unlink(missing_ok=True)
        with self._lock:
            reader = self._readers.pop(number, None)
            idle = self._drop(reader) if reader else None
        if idle is not None:
            os.close(idle)
        self.refresh(number)

    def numbers(self) -> list[int]:
        """Return the packs that have a file, in ascending order."""
        matches = (_FILE_NAME.fullmatch(name) for name in os.listdir(self.path))
        return sorted(int(match[1], 16) for match in matches if match)

    def size(self, number: int) -> int:
        """Return the length of a pack in bytes; raise `PackMissing`."""
        try:
            return os.stat(self._path(number)).st_size
        except FileNotFoundError as exc:
            raise PackMissing(number) from exc

    def refresh(self, number: int) -> int:
        """Look at what a pack takes on disk and return it: to be called when its writer has synced or ended."""
        try:
            allocated = os.stat(self._path(number)).st_blocks * _BLOCK_BYTES
        except FileNotFoundError:
            allocated = 0
        with self._lock:
            self._allocated_bytes += allocated - self._allocated.pop(number, 0)
            if allocated:
                self._allocated[number] = allocated
        return allocated

    def allocated_bytes(self, number: int | None = None) -> int:
        """Return what one pack, or all of them, took on disk when last refreshed."""
        with self._lock:
            return self._allocated_bytes if number is None else self._allocated.get(number, 0)

    def close(self) -> None:
        """Close all descriptors for reading that nobody is using; the others when their users are done."""
        with self._lock:
            idle = [self._drop(reader) for reader in self._readers.values()]
            self._readers.clear()
        for fd in idle:
            if fd is not None:
                os.close(fd)

    def _acquire(self, number: int, *, wait: bool) -> _Reader:
        with self._lock:
            reader = self._readers.get(number)
            if reader is not None:
                reader.users += 1
                self._readers.move_to_end(number)
                return reader
        if not wait:
            raise BlockingIOError(errno.EAGAIN, "the pack is not open")
        try:
            fd = os.open(self._path(number), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as exc:
            raise PackMissing(number) from exc
        return self._register(number, fd)

    def _register(self, number: int, fd: int) -> _Reader:
        superfluous: list[int | None] = []
        with self._lock:
            reader = self._readers.get(number)
            if reader is None:
                reader = self._readers[number] = _Reader(fd)
            else:  # another thread opened it at the same time
                superfluous.append(fd)
            reader.users += 1
            while len(self._readers) > self._max_open_packs:
                superfluous.append(self._drop(self._readers.popitem(last=False)[1]))
        for unwanted in superfluous:
            if unwanted is not None:
                os.close(unwanted)
        return reader

    def _release(self, reader: _Reader) -> None:
        with self._lock:
            reader.users -= 1
            last = reader.dropped and reader.users == 0
        if last:
            os.close(reader.fd)

    def _drop(self, reader: _Reader) -> int | None:
        """With the lock held: return the descriptor if it can be closed now."""
        reader.dropped = True
        return None if reader.users else reader.fd

    def _sync_names(self) -> None:
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _path(self, number: int) -> Path:
        return self.path / f"{number:016x}.pack"
