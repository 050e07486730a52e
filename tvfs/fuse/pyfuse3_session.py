"""The transport through pyfuse3 and libfuse.  One a process: pyfuse3 keeps its session in its own globals."""

from __future__ import annotations

import pyfuse3
import trio

from tvfs.filesystem.lookups import LookupCounts
from tvfs.filesystem.model import Ino
from tvfs.fuse.intake import quick_intake
from tvfs.fuse.mount_point import FuseUnavailable
from tvfs.fuse.operations import FilesystemOperations
from tvfs.fuse.options import mount_options
from tvfs.fuse.served_filesystem import ServedFilesystem
from tvfs.fuse.settings import MountSettings
from tvfs.fuse.stall_guard import StallGuard


class Pyfuse3Transport:
    """A `Transport`; served in the main thread only (see `StallGuard`)."""

    def __init__(self, filesystem: ServedFilesystem, lookups: LookupCounts, settings: MountSettings) -> None:
        self._settings = settings
        self._operations = _Announcing(filesystem, lookups, xattrs=settings.xattrs)
        self.initialised: trio.Event = self._operations.initialised
        self.counts: dict[str, int] = self._operations.counts
        self._open = False

    async def mount(self, point: str, source: str) -> None:
        """Put a new session at `point`."""
        options = {*mount_options(self._settings), f"fsname={source}", "subtype=taskvault"}
        if self._settings.suid_and_devices:
            options |= {"suid", "dev"}
        self._init(point, options)

    def take(self, descriptor: int) -> None:
        """Use a session that is open already: libfuse knows it by this name."""
        self._init(f"/dev/fd/{descriptor}", set())

    async def serve(self) -> None:
        """Answer until the session ends."""
        with quick_intake(), StallGuard():
            await pyfuse3.main(max_tasks=self._settings.max_tasks)

    def stop(self) -> None:
        """Take no more requests."""
        pyfuse3.terminate()

    def close(self, *, unmount: bool) -> None:
        """Let go of the session."""
        if self._open:
            self._open = False
            pyfuse3.close(unmount=unmount)

    def name_removed(self, parent: int, name: bytes, ino: int) -> None:
        """Tell the kernel that the owner removed a name by itself."""
        if self._open:
            pyfuse3.invalidate_entry_async(
                pyfuse3.InodeT(parent), pyfuse3.FileNameT(name), pyfuse3.InodeT(ino), ignore_enoent=True
            )

    def listing_changed(self, ino: int) -> None:
        """Nothing to tell: no listings are kept here."""

    def attributes_changed(self, ino: int) -> None:
        """Tell the kernel that the owner changed an inode's attributes."""
        # pyfuse3 writes this one at once, in our task: where the kernel takes locks for it we would wait for ourselves.
        # With attributes only it takes none.
        if self._open:
            pyfuse3.invalidate_inode(pyfuse3.InodeT(Ino(ino)), attr_only=True)

    def _init(self, point: str, options: set[str]) -> None:
        try:
            pyfuse3.init(self._operations, point, options)
        except RuntimeError as exc:
            raise FuseUnavailable(f"mounting at {point} was refused ({exc}; the reason is on stderr)") from exc
        self._open = True


class _Announcing(FilesystemOperations):
    """Tells when the kernel has shaken hands."""

    def __init__(self, filesystem: ServedFilesystem, lookups: LookupCounts, *, xattrs: bool) -> None:
        super().__init__(filesystem, lookups, xattrs=xattrs)
        self.initialised = trio.Event()

    def init(self) -> None:
        self.initialised.set()
