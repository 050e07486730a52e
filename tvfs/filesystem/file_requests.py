"""What can be done with an open file beside reading and writing it."""

from __future__ import annotations

import os

from tvfs.errors import TaskVaultError
from tvfs.filesystem.disk_space import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE
from tvfs.filesystem.files import Files
from tvfs.filesystem.model import AttributeChanges, Caller, FileAttributes, Handle, Ino
from tvfs.filesystem.posix_error import Unsupported, as_posix
from tvfs.plugin_api.buffer import Buffer
from tvfs.vault.reservations import VaultFull
from tvfs.vault.vault import Vault

NAME_BYTES = 1024
"""What a name and an inode take at most for a moment: their rows, twice."""
_MODES = {0, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE}


class FileRequests:
    """The part of `Filesystem` that is about files, and about waiting for room: a facade too."""

    _files: Files
    _vault: Vault

    async def make_room_for_names(self) -> bool:
        """Wait while room is made for a name that was refused; return whether there is some now."""
        try:
            async with self._vault.room.reserved(NAME_BYTES):
                return True
        except VaultFull:
            return False

    def setattr_nowait(self, ino: Ino, changes: AttributeChanges, caller: Caller) -> FileAttributes | None:
        """Change attributes; None, and nothing has happened, if it has to wait."""
        return None if changes.size is not None else self._files.setattr_nowait(ino, changes)

    async def setattr(self, ino: Ino, changes: AttributeChanges, caller: Caller) -> FileAttributes:
        """Change attributes; a change of size truncates."""
        return await self._files.setattr(ino, changes)

    def written(self, ino: Ino) -> None:
        """Let the times be now: a kernel without a writeback cache leaves them to us."""
        self._files.touch(ino)

    def open_nowait(self, ino: Ino, flags: int, caller: Caller) -> Handle | None:
        """Open a file; None, and nothing has happened, if it has to wait."""
        if flags & os.O_TRUNC or self._files.waits_for_readers(ino, flags):
            return None
        return self._files.open_nowait(ino, flags)

    async def open(self, ino: Ino, flags: int, caller: Caller) -> Handle:
        """Open a file; with O_TRUNC it is emptied."""
        return await self._files.open(ino, flags)

    def read_nowait(self, handle: Handle, offset: int, length: int) -> Buffer | None:
        """Read at once; None if it has to wait."""
        try:
            return self._files.read_nowait(handle, offset, length)
        except TaskVaultError as exc:
            raise as_posix(exc) from exc

    async def read(self, handle: Handle, offset: int, length: int) -> Buffer:
        """Read; less than asked for only at the end of the file."""
        try:
            return await self._files.read(handle, offset, length)
        except TaskVaultError as exc:
            raise as_posix(exc) from exc

    def write_nowait(self, handle: Handle, offset: int, data: Buffer) -> int | None:
        """Write all of it at once; None, and nothing has happened, if it has to wait."""
        try:
            return self._files.write_nowait(handle, offset, data)
        except TaskVaultError as exc:
            raise as_posix(exc) from exc

    async def write(self, handle: Handle, offset: int, data: Buffer) -> int:
        """Write all of it.  Times do not change: with the writeback cache they are the kernel's."""
        try:
            return await self._files.write(handle, offset, data)
        except TaskVaultError as exc:
            raise as_posix(exc) from exc

    async def fsync(self, handle: Handle, data_only: bool) -> None:
        """Let what was written, and how the file is found, survive a power loss."""
        await self._files.sync(self._files.ino_of(handle))

    async def allocate(self, handle: Handle, mode: int, offset: int, length: int) -> None:
        """Reserve room, or let a range be zeros; modes as in fallocate(2), those without meaning here are refused."""
        if mode not in _MODES:
            raise Unsupported("Of the modes of fallocate there are 0, PUNCH_HOLE and ZERO_RANGE.")
        try:
            if mode & (PUNCH_HOLE | ZERO_RANGE):
                await self._files.clear(handle, offset, length, keep_size=bool(mode & KEEP_SIZE))
            else:
                await self._files.allocate(handle, offset, length)
        except TaskVaultError as exc:
            raise as_posix(exc) from exc

    def clone_nowait(self, source: Handle, target: Handle, length: int) -> int | None:
        """Let an empty file have the sealed content of another; return its size, or None if it cannot be had so."""
        return self._files.clone(source, target, length)

    async def seek(self, handle: Handle, offset: int, whence: int) -> int:
        """Return where the next data begin, or the next hole: SEEK_DATA and SEEK_HOLE of lseek(2)."""
        try:
            return await self._files.seek(handle, offset, whence == os.SEEK_DATA)
        except TaskVaultError as exc:
            raise as_posix(exc) from exc

    def begin_direct(self, handle: Handle) -> int | None:
        """Return a descriptor of an ordinary file that has the file's content and will have it until `end_direct`.

        None if there is none.  The caller closes the descriptor.
        """
        return self._files.begin_direct(handle)

    def end_direct(self, ino: Ino) -> None:
        """The kernel has closed what it read past us."""
        self._files.end_direct(ino)
