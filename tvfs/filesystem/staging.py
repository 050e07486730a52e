"""Bytes written but not yet sealed: in the staging file, at their own offsets (on-disk format §9).

A write that was acknowledged is in the page cache, and the row that leads to it in the catalog's log: the death of
this process loses nothing.  An fsync makes both last.  A file that is staged anew while its older content is being
sealed has another generation, hence other files.

The bytes of a short file are in its row until it grows: making a file of the disk costs more than all else that a
program's small file does, and one is made and removed for each.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path

import trio

from tvfs import failpoints
from tvfs.catalog.catalog import Batch, Catalog, Family
from tvfs.clock import Clock
from tvfs.content.reader import ContentReader
from tvfs.filesystem.change import Change
from tvfs.filesystem.descriptors import Descriptors
from tvfs.filesystem.disk_room import DiskRoom
from tvfs.filesystem.disk_space import punch
from tvfs.filesystem.inode import NO_HASH, STAGED, changed
from tvfs.filesystem.posix_error import IoFailed, NoMoreData, NoSpace, TooBig, VaultReadOnly
from tvfs.filesystem.settings import FilesystemSettings
from tvfs.filesystem.staged_file import BLOCK_BYTES, NO_PATH, StagedFile, growth, uncovered
from tvfs.filesystem.staged_rows import StagedRows
from tvfs.filesystem.staging_files import (
    GrowsMore,
    allocated_bytes_of,
    append_to_map,
    discard,
    discarded_on_error,
    make_file,
    map_of,
    read_at,
    remove_all,
    seek_in,
    sync_staged,
    translated,
    write_at,
)
from tvfs.plugin_api.buffer import Buffer
from tvfs.vault.counters import NEXT_SEQ, Counters
from tvfs.vault.layout import Layout
from tvfs.vault.room import Room
from tvfs.vault.usage import VaultUsage


class Staging:
    """The staged files of a vault, by inode.  The owner's only; a thread gets descriptors and bytes."""

    def __init__(  # noqa: PLR0913 - what a vault is made of
        self,
        *,
        catalog: Catalog,
        counters: Counters,
        layout: Layout,
        room: Room,
        usage: VaultUsage,
        reader: ContentReader,
        clock: Clock,
        settings: FilesystemSettings,
        boot: str,
    ) -> None:
        self._catalog = catalog
        self._counters = counters
        self._layout = layout
        self._vault_room = room
        self._usage = usage
        self._reader = reader
        self._clock = clock
        self._settings = settings
        self.boot = boot
        self.room = DiskRoom(layout.home, room)
        self.files: dict[int, StagedFile] = {}
        self.descriptors = Descriptors(settings.open_descriptors)
        self.rows = StagedRows(catalog, settings)
        self._doomed: list[tuple[Path, int]] = []
        self._threads = trio.CapacityLimiter(8)

    def extent(self, ino: int) -> tuple[int, int]:
        """Return the logical size of a staged file and how much of it takes room, in bytes."""
        file = self.files[ino]
        return file.size, file.occupied_bytes

    def stage(self, change: Change, ino: int, size: int) -> StagedFile:
        """Let the file be staged from now on with this size, upon the content it has; part of the change.

        The staging file is there before the row that names it: the other way round a kill in between would leave a row
        whose file's length, the size, is wrong.
        """
        inode = change.inode(ino)
        base = inode.content if inode.size and size else None
        generation = self._counters.take(NEXT_SEQ)
        path = self._layout.staged_file(ino, generation)
        file = StagedFile(ino, generation, path, base, min(base.size, size) if base else 0, size)
        with translated():
            failpoints.reach("stage.before_file")
            descriptor = self.descriptors.create(path)
            if size:
                os.ftruncate(descriptor, size)
        failpoints.reach("stage.after_file")
        change.put(ino, changed(inode, state=STAGED, size=0, hash=NO_HASH))
        change.batch.put(Family.STAGING, ino.to_bytes(8, "big"), file.row(self.boot))
        file.written_s = self._clock.monotonic_s()
        change.afterwards.append(lambda: self.files.__setitem__(ino, file))
        return file

    def stage_in_row(self, change: Change, ino: int, offset: int, data: Buffer) -> bool:
        """Let an empty file be staged from now on in its row, with these bytes; part of the change.

        False, and nothing has happened, if they are too many or there is no room for them now.
        """
        end = offset + len(data)
        if not self.rows.take(end) or end > self.room.for_bytes():
            return False
        with translated():
            failpoints.reach("stage.write")
        generation = self._counters.take(NEXT_SEQ)
        file = StagedFile(ino, generation, NO_PATH, None, 0, end)
        file.in_row = True
        change.put(ino, changed(change.inode(ino), state=STAGED, size=0, hash=NO_HASH))
        change.batch.put(Family.STAGING, ino.to_bytes(8, "big"), file.row_with(bytes(offset) + bytes(data)))
        file.written_s = self._clock.monotonic_s()
        change.afterwards.append(lambda: self.files.__setitem__(ino, file))
        return True

    def take_over(self, change: Change, ino: int, copy: Path) -> StagedFile:
        """Let a file with exactly the content of the inode be its staging file from now on; part of the change.

        As `stage`, with every block copied up.  After a power loss the base counts again: the map is not synced.
        """
        inode = change.inode(ino)
        base = inode.content
        generation = self._counters.take(NEXT_SEQ)
        path = self._layout.staged_file(ino, generation)
        file = StagedFile(ino, generation, path, base, base.size, base.size)
        assert file.blocks is not None
        file.blocks.update(dict.fromkeys(range(-(-base.size // BLOCK_BYTES))))
        with translated():
            path.parent.mkdir(exist_ok=True)
            map_of(path).write_bytes(b"".join(block.to_bytes(8, "big") for block in file.blocks))
            os.link(copy, path)
        change.put(ino, changed(inode, state=STAGED, size=0, hash=NO_HASH))
        change.batch.put(Family.STAGING, ino.to_bytes(8, "big"), file.row(self.boot))
        file.written_s = self._clock.monotonic_s()
        change.afterwards.append(lambda: self.files.__setitem__(ino, file))
        change.afterwards.append(copy.unlink)
        change.afterwards.append(lambda: self._count(file))
        return file

    def unstage(self, change: Change, ino: int) -> None:
        """The content is elsewhere from now on: forget the staged bytes as part of the change."""
        file = self.files[ino]
        change.batch.delete(Family.STAGING, ino.to_bytes(8, "big"))
        change.afterwards.append(lambda: self._doom(file))

    def drop(self, change: Change, ino: int) -> None:
        """Forget the staged bytes of a file that goes away."""
        if ino in self.files:
            self.unstage(change, ino)

    def returning_room(self) -> AbstractContextManager[None]:
        """Say that staged bytes are about to go: who finds no room waits for the block to end."""
        return self._vault_room.returning()

    async def reap(self) -> None:
        """Remove the staging files that nothing leads to any more, once that is certain even after a power loss."""
        # After a failure nothing is certain any more: the next start removes what no row leads to.
        if not self._doomed or self._catalog.failure is not None:
            return
        doomed, self._doomed = self._doomed, []
        try:
            await self._catalog.flush()
            failpoints.reach("seal.before_unlink")
            await trio.to_thread.run_sync(remove_all, [path for path, _ in doomed], limiter=self._threads)
            failpoints.reach("seal.after_unlink")
        except BaseException:
            self._doomed = doomed + self._doomed
            raise
        for _, allocated_bytes in doomed:
            self._usage.staging_changed(-allocated_bytes)

    # Reading.

    def read_nowait(self, file: StagedFile, offset: int, length: int) -> Buffer | None:
        """Return bytes, fewer only at the end of the file; None if that has to wait."""
        end = min(offset + length, file.size)
        if end <= offset:
            return b""
        if file.locked or end - offset > self._settings.inline_bytes:
            return None
        if file.in_row:
            return self.rows.content(file)[offset:end]
        parts: list[Buffer] = []
        for from_base, start, stop in file.pieces(offset, end):
            if from_base:
                assert file.base is not None
                part = self._reader.read_nowait(file.base, start, stop - start)
                if part is None:
                    return None
            else:
                part = read_at(self.descriptors.get(file.path), start, stop - start)
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def read(self, file: StagedFile, offset: int, length: int) -> Buffer | None:
        """Return bytes, fewer only at the end of the file; None if it was sealed or emptied before its turn came."""
        async with file.inode_lock():
            if self.files.get(file.ino) is not file:
                return None
            end = min(offset + length, file.size)
            if file.in_row:
                return self.rows.content(file)[offset:end]
            parts: list[Buffer] = []
            for from_base, start, stop in file.pieces(offset, end) if end > offset else ():
                if from_base:
                    assert file.base is not None
                    parts.append(await self._reader.read(file.base, start, stop - start))
                else:
                    with self.descriptors.lent(file.path) as descriptor:
                        parts.append(
                            await trio.to_thread.run_sync(
                                read_at, descriptor, start, stop - start, limiter=self._threads
                            )
                        )
            return parts[0] if len(parts) == 1 else b"".join(parts)

    # Writing.

    def write_nowait(self, file: StagedFile, offset: int, data: Buffer) -> int | None:
        """Write all of it and return its length; None, and nothing has happened, if that has to wait."""
        length = len(data)
        if file.locked or length > self._settings.inline_bytes:
            return None
        end = offset + length
        self.check_size(end)
        if file.in_row and self.rows.take_more(file, end) and self._admits_row(file, end):
            with self._changing(file), translated():
                failpoints.reach("stage.write")
                self.rows.splice(file, offset, data)
            return length
        missing = file.missing_blocks(offset, end)
        grown_bytes = growth(file, missing, offset, end)
        if grown_bytes and grown_bytes > self.room.for_bytes():
            return None
        if file.in_row:
            if file.promised:
                return None
            self._make_file(file)
            self._note_file(file)
        copies: list[tuple[int, Buffer]] = []
        for start, stop in uncovered(file, missing, offset, end):
            assert file.base is not None
            part = self._reader.read_nowait(file.base, start, stop - start)
            if part is None:
                return None
            copies.append((start, part))
        with self._changing(file):
            write_at(self.descriptors.get(file.path), [*copies, (offset, data)], file.size)
            self._note_blocks(file, missing)
            file.size = max(file.size, end)
        return length

    async def write(self, file: StagedFile, offset: int, data: Buffer) -> int | None:
        """Write all of it and return its length; None if the file was sealed or emptied before its turn came.

        Waits for room while some is being made; raises `VaultFull` or `NoSpace`.
        """
        end = offset + len(data)
        self.check_size(end)
        while True:
            promised_bytes = growth(file, file.missing_blocks(offset, end), offset, end)
            # Not with the inode's lock: what makes room must not wait for who waits for room.
            async with self._promised(promised_bytes):
                try:
                    return await self._write(file, offset, data, promised_bytes)
                except GrowsMore:  # something was cut off the file while this one waited
                    continue

    async def _write(self, file: StagedFile, offset: int, data: Buffer, promised_bytes: int) -> int | None:
        async with file.inode_lock():
            if self.files.get(file.ino) is not file:
                return None
            end = offset + len(data)
            missing = file.missing_blocks(offset, end)
            if growth(file, missing, offset, end) > promised_bytes:
                raise GrowsMore
            if not await self._has_file(file):
                return None
            copies: list[tuple[int, Buffer]] = []
            for start, stop in uncovered(file, missing, offset, end):
                assert file.base is not None
                copies.append((start, await self._reader.read(file.base, start, stop - start)))
            with self._changing(file), self.descriptors.lent(file.path) as descriptor:
                await trio.to_thread.run_sync(
                    write_at, descriptor, [*copies, (offset, data)], file.size, limiter=self._threads
                )
                self._note_blocks(file, missing)
                file.size = max(file.size, end)
            return len(data)

    def truncate(self, file: StagedFile, size: int) -> None:
        """Set the size, beyond the old one with zeros.  The caller holds the inode lock, and has called `make_fit`."""
        self.check_size(size)
        if file.in_row:
            with self._changing(file):
                self.rows.cut(file, size)
            return
        with self._changing(file), translated():
            os.ftruncate(self.descriptors.get(file.path), size)
            failpoints.reach("stage.after_truncate")
            file.size = size
            if size < file.base_limit:
                # After the file: of the two halves the shorter file is the one that recovery can tell.
                file.base_limit = size
                self._write_row(file)

    async def make_fit(self, file: StagedFile, size: int) -> bool:
        """Let the file be one that can have this size; False as for `write`.  The caller holds the inode lock."""
        return (file.in_row and self.rows.take_more(file, size)) or await self._has_file(file)

    async def allocate(self, file: StagedFile, offset: int, end: int) -> bool:
        """Have the disk set a range aside, and the file be at least that long; False as for `write`."""
        self.check_size(end)
        async with self._promised(end - offset), file.inode_lock():
            if self.files.get(file.ino) is not file or not await self._has_file(file):
                return False
            with self._changing(file), self.descriptors.lent(file.path) as descriptor, translated():
                await trio.to_thread.run_sync(
                    os.posix_fallocate, descriptor, offset, end - offset, limiter=self._threads
                )
                file.size = max(file.size, end)
            return True

    async def clear(self, file: StagedFile, offset: int, end: int) -> bool:
        """Let a range be zeros that take no room, as far as the file goes; False as for `write`."""
        async with file.inode_lock():
            if self.files.get(file.ino) is not file or not await self._has_file(file):
                return False
            end = min(end, file.size)
            if end <= offset:
                return True
            missing = file.missing_blocks(offset, end)
            copies: list[tuple[int, Buffer]] = []
            for start, stop in uncovered(file, missing, offset, end):
                assert file.base is not None
                copies.append((start, await self._reader.read(file.base, start, stop - start)))
            with self._changing(file), self.descriptors.lent(file.path) as descriptor, translated():
                await trio.to_thread.run_sync(write_at, descriptor, copies, file.size, limiter=self._threads)
                await trio.to_thread.run_sync(punch, descriptor, offset, end - offset, limiter=self._threads)
                self._note_blocks(file, missing)
            return True

    async def seek(self, file: StagedFile, offset: int, data: bool) -> int:
        """Return the next offset where data begin, or a hole does; raise `NoMoreData`."""
        async with file.inode_lock():
            if file.in_row:
                return offset if data else file.size
            for from_base, start, stop in file.pieces(offset, file.size):
                if from_base:
                    if data:
                        return start
                    continue
                with self.descriptors.lent(file.path) as descriptor:
                    found = await trio.to_thread.run_sync(seek_in, descriptor, start, data, limiter=self._threads)
                if found is not None and found < stop:
                    return found
            if data:
                raise NoMoreData("There is only a hole after that offset.")
            return file.size

    def check_size(self, size: int) -> None:
        """Refuse a size that no file may have."""
        if size > self._settings.max_file_bytes:
            raise TooBig(f"Files have at most {self._settings.max_file_bytes} bytes here.")

    async def sync(self, file: StagedFile) -> None:
        """Return when everything written before the call survives a power loss once its row does."""
        if file.in_row:
            file.promised = True
            return
        if file.sync_failed:
            raise IoFailed("An earlier sync of this file failed, so that none can be believed; write the file anew.")
        blocks = len(file.blocks) if file.blocks is not None else 0
        await self._sync_file(file, with_map=blocks > 0, with_directory=not file.directory_synced)
        # Not the name of a map that was made meanwhile.
        file.directory_synced = blocks > 0 or not file.blocks
        failpoints.reach("fsync.after_data")
        if blocks > file.synced_blocks and self.files.get(file.ino) is file:
            file.synced_blocks = blocks
            self._write_row(file)
        failpoints.reach("fsync.after_batch")

    async def _sync_file(self, file: StagedFile, *, with_map: bool, with_directory: bool) -> None:
        with self.descriptors.lent(file.path) as descriptor:
            await sync_staged(file, descriptor, self._catalog, self._threads, (with_map, with_directory))

    def close(self) -> None:
        """Close every descriptor."""
        self.descriptors.close_all()

    def adopt(self, file: StagedFile) -> None:
        """Take in a file that a start found."""
        self.files[file.ino] = file

    def _doom(self, file: StagedFile) -> None:
        if self.files.get(file.ino) is file:
            del self.files[file.ino]
        if file.in_row:
            return
        self.descriptors.close(file.path)
        self._doomed.append((file.path, file.allocated_bytes))

    @asynccontextmanager
    async def _promised(self, size_bytes: int) -> AsyncIterator[None]:
        """Keep so much set aside in the vault for the length of the block, if the disk has it."""
        if not size_bytes:
            yield
            return
        async with self._vault_room.reserved(size_bytes):
            if size_bytes > self.room.on_disk():
                raise NoSpace
            yield

    @contextmanager
    def _changing(self, file: StagedFile) -> Iterator[None]:
        """Count a change before and after, so that whoever reads the file meanwhile knows that it is torn."""
        if self._catalog.failure is not None:
            raise VaultReadOnly(self._catalog.failure)
        file.writes += 1
        file.busy += 1
        try:
            yield
        finally:
            file.busy -= 1
            file.writes += 1
            file.written_s = self._clock.monotonic_s()
            self._count(file)

    def _count(self, file: StagedFile) -> None:
        if self.files.get(file.ino) is file and not file.in_row:
            allocated_bytes = allocated_bytes_of(self.descriptors.get(file.path), file)
            self._usage.staging_changed(allocated_bytes - file.allocated_bytes)
            file.allocated_bytes = allocated_bytes

    def _admits_row(self, file: StagedFile, end: int) -> bool:
        # What does not grow is written also where there is no room for more.
        return self.room.for_names(end) if end <= file.size else end <= self.room.for_bytes()

    async def _has_file(self, file: StagedFile) -> bool:
        """Let the bytes be in a staging file; False if it has gone.  The caller holds the inode lock."""
        if not file.in_row:
            return True
        self._make_file(file)
        if file.promised:
            # The row that has the bytes has outlasted a power loss: what takes its place must be able to, before.
            with discarded_on_error(self.descriptors, file.path):
                await self._sync_file(file, with_map=False, with_directory=True)
            file.directory_synced = True
            if self.files.get(file.ino) is not file:
                discard(self.descriptors, file.path)
                return False
        self._note_file(file)
        return True

    def _make_file(self, file: StagedFile) -> None:
        """Copy what is in the row to a staging file, which nothing leads to yet."""
        content = self.rows.content(file)
        file.path = self._layout.staged_file(file.ino, file.generation)
        make_file(self.descriptors, file.path, content)

    def _note_file(self, file: StagedFile) -> None:
        """Let the row lead to the staging file, which has the bytes."""
        with discarded_on_error(self.descriptors, file.path):
            self._write_row(file)
        file.in_row = False
        self._count(file)

    def _note_blocks(self, file: StagedFile, missing: list[int]) -> None:
        if not missing:
            return
        assert file.blocks is not None
        append_to_map(file.path, missing)
        if not file.blocks:
            file.directory_synced = False
        file.blocks.update(dict.fromkeys(missing))

    def _write_row(self, file: StagedFile) -> None:
        batch = Batch()
        batch.put(Family.STAGING, file.ino.to_bytes(8, "big"), file.row(self.boot))
        self._catalog.write(batch)
