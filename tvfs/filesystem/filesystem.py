"""The filesystem: what POSIX means upon a vault.

No FUSE here; the adapter in `tvfs.fuse` translates and decides nothing.  A facade: each method is a line or two over
the module that does the work.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path

import trio

from tvfs.clock import Clock
from tvfs.content.reader import ContentReader
from tvfs.content.snapshot import Snapshot
from tvfs.content.tree_index import TreeIndexReader
from tvfs.digest import FUNCTION_CODES
from tvfs.filesystem.attach import Attacher
from tvfs.filesystem.directories import Directories
from tvfs.filesystem.evictables import Evictables
from tvfs.filesystem.file_requests import NAME_BYTES, FileRequests
from tvfs.filesystem.files import Files
from tvfs.filesystem.gathering import Gatherer
from tvfs.filesystem.hot_files import HotFiles
from tvfs.filesystem.inheritance import reopen
from tvfs.filesystem.inode import Inode
from tvfs.filesystem.inspection import Inspection
from tvfs.filesystem.listings import Listings
from tvfs.filesystem.lookups import LookupCounts
from tvfs.filesystem.model import (
    KEYS,
    LONG_TIMEOUT_S,
    PREPARED,
    ROOT,
    Absent,
    Caller,
    DirectoryEntry,
    FileAttributes,
    FilesystemStatistics,
    Found,
    Handle,
    Ino,
)
from tvfs.filesystem.namespace import MAX_NAME_BYTES, Namespace
from tvfs.filesystem.nodes import Nodes
from tvfs.filesystem.owner_port import OwnerPort
from tvfs.filesystem.posix_error import Invalid, NameTooLong, NotFound
from tvfs.filesystem.sealer import Sealer
from tvfs.filesystem.session_record import SessionRecord
from tvfs.filesystem.settings import FilesystemSettings
from tvfs.filesystem.snapshots import SnapshotOutcome, Snapshots
from tvfs.filesystem.staging import Staging
from tvfs.filesystem.startup import put_in_order
from tvfs.filesystem.trash import Trash
from tvfs.filesystem.views import OWNER_CHANGES, PREPARED_NAME, ContentView
from tvfs.filesystem.xattrs import ExtendedAttributes
from tvfs.vault.vault import Vault

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SEAL_INTERVAL_S = 0.25
_FILES = 1 << 32
"""What statfs says about inodes: there is no limit but room."""
_KEPT_FROM_COPIES = 8
"""An eighth of the capacity is never taken by copies of content."""
MAX_PATH_BYTES = 4096
"""The kernel's limit."""


class Filesystem(FileRequests):
    """One vault's names and files.  The owner's trio thread only.

    Methods that are not `async` are atomic: they never await, and what they change is one batch.  Refusals are
    `PosixError`.  Inode numbers are never reused; the adapter counts the kernel's references in `lookups`, and says
    `forgotten` when there are none left.
    """

    def __init__(
        self,
        vault: Vault,
        *,
        clock: Clock,
        settings: FilesystemSettings,
        lookups: LookupCounts,
        reader: ContentReader | None = None,
        boot: str | None = None,
    ) -> None:
        """`reader` may be one that prefetches; `boot` names the boot of the machine, which is asked otherwise."""
        self._vault = vault
        self._settings = settings
        self._lookups = lookups
        self._reader = reader or ContentReader(vault.catalog, vault.chunks, vault.hash_function)
        self._nodes = Nodes(vault.catalog, TreeIndexReader(vault.catalog.get), remembered=settings.remembered_inodes)
        self._directories = Directories(vault.catalog, self._nodes)
        self._staging = Staging(
            catalog=vault.catalog,
            counters=vault.counters,
            layout=vault.layout,
            room=vault.room,
            usage=vault.usage,
            reader=self._reader,
            clock=clock,
            settings=settings,
            boot=_BOOT_ID.read_text().strip() if boot is None else boot,
        )
        self._nodes.staged_extent = self._staging.extent
        self._namespace = Namespace(vault.catalog, vault.counters, self._nodes, self._directories, self._staging, clock)
        self._namespace.in_use = self._in_use
        self.mark = self._namespace.mark
        start_change = self._namespace.change
        self._port = OwnerPort(vault, "sealer")
        self._files = Files(
            vault.catalog, self._nodes, self._staging, self._reader, start_change=start_change, closed=self._closed
        )
        self._hot = self._new_hot_files()
        self.inspection = Inspection(vault, self._nodes, self._directories, self._staging, self._reader, self._files)
        """What paths take and what they are."""
        self.evictables = self._new_evictables(clock)
        """Which directories may lose files when room is needed, and which files go first."""
        self._sealer = self._new_sealer(clock)
        self._listings = Listings(
            self._nodes, self._directories, timeout_s=lambda ino: self.attribute_timeout_s(Ino(ino))
        )
        self._xattrs = ExtendedAttributes(
            vault.catalog, self._nodes, start_change, has_room=self._staging.room.for_names
        )
        owner = Caller(settings.owner_uid, settings.owner_gid)
        self._attacher = Attacher(self._nodes, self._directories, self._namespace, vault.counters, default_owner=owner)
        self._trash = self._new_trash()
        self._view = self._new_view()
        self._snapshots = Snapshots(
            vault,
            self._nodes,
            self._directories,
            self._staging,
            self._sealer,
            self._xattrs,
            writers=self._files.writers,
        )

    def _new_view(self) -> ContentView:
        return ContentView(
            self._nodes,
            self._vault.counters,
            self._reader.content_of,
            self._vault.leases,
            functions={self._vault.hash_function.name, *FUNCTION_CODES},
            settings=self._settings,
        )

    def _new_evictables(self, clock: Clock) -> Evictables:
        vault = self._vault
        evictables = Evictables(
            *(vault.catalog, self._nodes, self._namespace, self._staging, vault.entries.ranks, clock),
            is_open=self._files.is_open,
            is_known=lambda ino: self._lookups.holds(Ino(ino)),
            sharers=vault.catalog.count,
            function=vault.hash_function.name,
        )
        self._namespace.follower, self._files.opened = evictables, evictables.opened
        self.gatherer = Gatherer(vault.catalog, self._nodes, self._directories, self._namespace, evictables)
        return evictables

    def _new_hot_files(self) -> HotFiles:
        vault, settings = self._vault, self._settings
        hot = HotFiles(
            vault.layout.hot,
            self._reader,
            limit_bytes=int(vault.superblock.capacity_bytes * settings.hot_fraction) if settings.hot_files else 0,
            least_bytes=settings.hot_least_bytes,
            free_bytes=self._room_for_copies,
            changed=vault.usage.hot_changed,
        )
        if settings.hot_files:
            self._files.hot = hot
        return hot

    def _new_sealer(self, clock: Clock) -> Sealer:
        return Sealer(
            nodes=self._nodes,
            staging=self._staging,
            reader=self._reader,
            port=self._port,
            clock=clock,
            settings=self._settings,
            start_change=self._namespace.change,
            has_writer=self._files.has_writer,
        )

    def _new_trash(self) -> Trash:
        return Trash(
            *(self._vault.catalog, self._nodes, self._directories, self._namespace, self._staging),
            slices=self._vault.slices,
            slice_names=self._settings.sweep_slice,
            range_in_use=self._range_in_use,
            range_gone=self.evictables.range_gone,
        )

    def start(self, inherited: SessionRecord | None = None) -> None:
        """Make the fixed directories, put in order what the last stop left, open again what a session has open."""
        if inherited is not None:
            self._files.written.add_all()
        reopen(inherited, self._nodes, self._files, self._hot)
        self.evictables.start()
        put_in_order(
            catalog=self._vault.catalog,
            counters=self._vault.counters,
            layout=self._vault.layout,
            usage=self._vault.usage,
            nodes=self._nodes,
            directories=self._directories,
            namespace=self._namespace,
            staging=self._staging,
            settings=self._settings,
        )
        for listed in list(self._directories.listing(PREPARED, self._nodes.get(PREPARED))):
            self._trash.discard(PREPARED, listed.name)
        if inherited is not None:
            self._files.find_read_past_us()
        for ino in self._staging.files:
            self._sealer.note(ino)

    async def aclose(self) -> None:
        """Let go of descriptors and packs; what is staged stays staged, and is found again."""
        await self._staging.reap()
        self._staging.close()
        self._port.close()

    def abandon(self) -> None:
        """Close descriptors and nothing else: what a death of the process does."""
        self._staging.close()
        self._port.abandon()

    # Names.

    def lookup(self, parent: Ino, name: bytes) -> Found | Absent:
        """Find a name."""
        if len(name) > MAX_NAME_BYTES:
            raise NameTooLong(f"A name has at most {MAX_NAME_BYTES} bytes, this has {len(name)}.")
        directory = self._namespace.directory(parent)
        if self._view.shows(parent):
            found = self._view.lookup(parent, name)
        elif parent == ROOT and name == PREPARED_NAME:
            found = PREPARED, self._nodes.get(PREPARED)
        elif name == b".":
            found = parent, directory
        elif name == b"..":
            found = directory.parent or parent, self._nodes.get(directory.parent or parent)
        else:
            found = self._directories.find(parent, directory, name)
        timeout_s = self.attribute_timeout_s(parent)
        if found is None:
            return Absent(timeout_s)
        if found[0] in OWNER_CHANGES:
            # The kernel must notice by their times that the listing which it keeps is old.
            timeout_s = 0.0
        return Found(self._nodes.attributes(*found), timeout_s)

    def getattr(self, ino: Ino) -> FileAttributes:
        """Return what stat shows; raise `NotFound`."""
        return self._nodes.attributes(ino, self._nodes.get(ino))

    def attribute_timeout_s(self, ino: Ino) -> float:
        """How long the kernel may believe an inode's attributes, and a directory's names: 0 where the owner acts."""
        if ino in OWNER_CHANGES or self._view.shows(ino):
            return 0.0
        inode = self._nodes.get(ino)
        # A scope below keys/: the owner adds to it and removes from it.
        return 0.0 if inode.is_directory and inode.parent == KEYS else LONG_TIMEOUT_S

    def readlink(self, ino: Ino) -> bytes:
        """Return a symlink's target."""
        inode = self._nodes.get(ino)
        if not stat.S_ISLNK(inode.mode):
            raise Invalid("Only a symlink has a target.")
        return inode.target

    def mkdir(self, parent: Ino, name: bytes, mode: int, caller: Caller) -> Found:
        """Make a directory."""
        return self._found(self._namespace.make(parent, name, stat.S_IFDIR | mode & 0o7777, caller))

    def symlink(self, parent: Ino, name: bytes, target: bytes, caller: Caller) -> Found:
        """Make a symlink."""
        return self._found(self._namespace.make(parent, name, stat.S_IFLNK | 0o777, caller, target=target))

    def mknod(self, parent: Ino, name: bytes, mode: int, rdev: int, caller: Caller) -> Found:
        """Make a regular or special file."""
        if stat.S_ISDIR(mode):
            raise Invalid("A directory is made with mkdir.")
        return self._found(self._namespace.make(parent, name, mode, caller, rdev=rdev))

    def link(self, ino: Ino, parent: Ino, name: bytes) -> Found:
        """Give a file one more name."""
        return self._found((ino, self._namespace.link(ino, parent, name)))

    async def create(self, parent: Ino, name: bytes, mode: int, flags: int, caller: Caller) -> tuple[Handle, Found]:
        """Make a file and open it."""
        return self.create_nowait(parent, name, mode, flags, caller)

    def create_nowait(self, parent: Ino, name: bytes, mode: int, flags: int, caller: Caller) -> tuple[Handle, Found]:
        """Make a file and open it."""
        ino, inode = self._namespace.make(parent, name, stat.S_IFREG | mode & 0o7777, caller)
        handle = self._files.add(ino, inode, writes=flags & os.O_ACCMODE != os.O_RDONLY)
        return handle, self._found((ino, inode))

    def unlink(self, parent: Ino, name: bytes) -> None:
        """Remove the name of something that is no directory; the inode lives on while it is in use."""
        self._namespace.unlink(parent, name)

    def rmdir(self, parent: Ino, name: bytes) -> None:
        """Remove an empty directory."""
        self._namespace.rmdir(parent, name)

    def rename(self, parent: Ino, name: bytes, new_parent: Ino, new_name: bytes, flags: int) -> None:
        """Move a name; flags as in renameat2."""
        self._namespace.rename(parent, name, new_parent, new_name, flags)

    # Files: see `FileRequests` for what can be done with them.

    def release(self, handle: Handle) -> None:
        """Close a file."""
        self._purge_if_gone(self._files.release(handle))

    # Directories.

    def readdir(self, ino: Ino, cookie: int) -> Iterator[DirectoryEntry]:
        """Yield what comes after `cookie` (0: all), without '.' and '..'.  Do not await while it is open."""
        return self._listings.read(ino, cookie)

    async def fsyncdir(self, ino: Ino) -> None:
        """Let a directory's names survive a power loss."""
        await self._vault.catalog.flush()

    def statfs(self) -> FilesystemStatistics:
        """Return capacity and room."""
        capacity = self._vault.superblock.capacity_bytes
        free_bytes = max(0, min(self._vault.reservations.free_bytes, self._staging.room.on_disk()))
        return FilesystemStatistics(capacity, free_bytes, _FILES, min(_FILES, free_bytes // NAME_BYTES))

    def getxattr(self, ino: Ino, name: bytes) -> bytes:
        """Return an extended attribute."""
        return self._xattrs.get(ino, name)

    def setxattr(self, ino: Ino, name: bytes, value: bytes) -> None:
        """Set an extended attribute."""
        self._xattrs.set(ino, name, value)

    def listxattr(self, ino: Ino) -> list[bytes]:
        """Name the extended attributes."""
        return [name for name, _ in self._xattrs.all(ino)]

    def removexattr(self, ino: Ino, name: bytes) -> None:
        """Remove an extended attribute."""
        self._xattrs.remove(ino, name)

    def forgotten(self, ino: Ino) -> None:
        """The kernel has dropped its last reference; an inode without a name is purged."""
        self._view.forgotten(ino)
        self.evictables.forgotten(ino)
        self._purge_if_gone(ino)

    # For the owner.

    def attach(
        self,
        parent: Ino,
        name: bytes,
        snapshot: Snapshot,
        *,
        owner: tuple[int, int] | None = None,
        read_only: bool = False,
        subpath: str = "",
    ) -> Ino:
        """Give a directory a new child with the content of a tree; return its number.  See `Attacher.attach`."""
        return Ino(self._attacher.attach(parent, name, snapshot, owner=owner, read_only=read_only, subpath=subpath))

    def ensure_directory(self, parent: Ino, name: bytes) -> Ino:
        """Return a child of one of the read-only places, after making it if need be: a scope below `keys/`."""
        return Ino(self._attacher.ensure_directory(parent, name))

    def resolve(self, path: bytes, start: Ino = ROOT) -> Ino:
        """Return the inode at a path; symlinks are not followed.

        Raises `NotFound`, `NotADirectory`, or `NameTooLong` for a path that the kernel would not take either.
        """
        if len(path) > MAX_PATH_BYTES:
            raise NameTooLong(f"A path has at most {MAX_PATH_BYTES} bytes, this has {len(path)}.")
        ino = start
        for name in path.split(b"/"):
            if not name:
                continue
            found = self.lookup(ino, name)
            if isinstance(found, Absent):
                raise NotFound(f"There is no {name.decode('utf-8', 'backslashreplace')!r} in this directory.")
            ino = found.attributes.ino
        return ino

    def tell_kernel(self, *, removed: Callable[[int, bytes, int], None], listing: Callable[[int], None]) -> None:
        """Have the kernel told what the owner does by itself.

        `removed`: parent, name and inode (0: only the name).  `listing`: a directory that has a name more.
        """
        self.evictables.tell = self._trash.tell = removed
        self._attacher.tell = listing

    def discard(self, parent: Ino, name: bytes) -> None:
        """Move a name and everything below it to the trash: one dirent, whatever the size."""
        self._trash.discard(parent, name)

    async def snapshot(
        self,
        ino: Ino,
        *,
        paths: Sequence[bytes] | None = None,
        excluded: Sequence[bytes] = (),
        allow_open: bool = False,
        holder: Hashable = None,
    ) -> SnapshotOutcome:
        """Return a directory as content, held by `holder`.  See `Snapshots.take`."""
        return await self._snapshots.take(ino, paths=paths, excluded=excluded, allow_open=allow_open, holder=holder)

    async def seal_idle(self) -> int:
        """Seal what has rested long enough; return how many files were sealed.  Failures are logged, not raised."""
        return await self._sealer.seal_due()

    async def seal_all(self) -> int:
        """Seal every file that nobody has open for writing; raise what stops it."""
        return await self._sealer.seal_all()

    async def sweep(self) -> int:
        """Remove what was staged, and what is in the trash; return how many trees are left because they are in use."""
        await self._staging.reap()
        return await self._trash.sweep()

    def open_files(self) -> int:
        """How many handles to files are open."""
        return self._files.handles()

    def drop_copies(self, wanted_bytes: int) -> int:
        """Remove copies of content that is in the vault anyway; return how many bytes that gave back."""
        return self._hot.make_room(wanted_bytes)

    def _room_for_copies(self) -> int:
        # They go long before anything else has to: the high watermark is at a tenth.
        return self._staging.room.for_bytes() - self._vault.reservations.capacity_bytes // _KEPT_FROM_COPIES

    def staged_files(self) -> int:
        """How many files are staged."""
        return len(self._staging.files)

    async def run_background(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Seal, sweep and fetch ahead of readers for ever."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._reader.fetch_ahead)
            nursery.start_soon(self._seal_for_ever)
            nursery.start_soon(self.gatherer.run)
            if self._settings.hot_files:
                nursery.start_soon(self._hot.run)
            nursery.start_soon(self._sweep_for_ever)
            task_status.started()

    async def _seal_for_ever(self) -> None:
        while True:
            self._files.settle()
            self._hot.make_room(max(0, -self._room_for_copies()))
            await self.seal_idle()
            await self._staging.reap()
            await trio.sleep(_SEAL_INTERVAL_S)

    async def _sweep_for_ever(self) -> None:
        while True:
            await self.sweep()
            await trio.sleep(self._settings.sweep_interval_s)

    def _found(self, made: tuple[int, Inode]) -> Found:
        return Found(self._nodes.attributes(*made))

    def _closed(self, ino: int) -> None:
        self._sealer.note(ino)
        self.evictables.written(ino)
        self._snapshots.closed()

    def _in_use(self, ino: int) -> bool:
        return self._lookups.holds(Ino(ino)) or self._files.is_open(ino)

    def _range_in_use(self, first: int, end: int) -> bool:
        opened = self._files.open_inodes()
        return self._lookups.holds_any(first, end) or any(first <= ino < end for ino in opened)

    def _purge_if_gone(self, ino: int) -> None:
        inode = None if self._in_use(ino) else self._nodes.find(ino)
        if inode is not None and inode.nlink == 0:
            change = self._namespace.change()
            self._namespace.purge(change, ino)
            change.commit()
