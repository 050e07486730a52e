"""The transport that speaks the kernel's protocol itself."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

import trio

from tvfs.errors import TaskVaultError
from tvfs.filesystem.lookups import LookupCounts
from tvfs.filesystem.model import Ino
from tvfs.fuse.hand_over import HandOver
from tvfs.fuse.kernel import replies
from tvfs.fuse.kernel.channel import Channel, Handler
from tvfs.fuse.kernel.device import open_session
from tvfs.fuse.kernel.dispatch import Dispatch
from tvfs.fuse.kernel.negotiation import RESEND, Agreement
from tvfs.fuse.kernel.notifier import Notifier
from tvfs.fuse.kernel.protocol import Opcode
from tvfs.fuse.kernel.resumption import Resumption
from tvfs.fuse.options import mount_options
from tvfs.fuse.served_filesystem import ServedFilesystem
from tvfs.fuse.service import FilesystemService
from tvfs.fuse.settings import MountSettings

_TOLD_AT_ONCE = 32
_JOIN_TIMEOUT_S = 5.0
"""How long `close` waits for a notification; only after a failure of ours there can still be one."""


class KernelTransport:
    """A `Transport`.  See docs/design/transport.md."""

    def __init__(
        self,
        filesystem: ServedFilesystem,
        lookups: LookupCounts,
        settings: MountSettings,
        hand_over: HandOver | None = None,
    ) -> None:
        """With `hand_over` the session outlives this object if the owner asks for that, or dies."""
        service = FilesystemService(filesystem, lookups, xattrs=settings.xattrs)
        self._service = service
        self._settings = settings
        self._hand_over = hand_over
        self._resumption: Resumption | None = None
        if hand_over is not None:
            self._resumption = Resumption(service, hand_over.record, hand_over.mark, hand_over.last_request)
        self.counts: dict[str, int] = {}
        self._dispatch = Dispatch(service, lookups, settings, self.counts)
        self.initialised: trio.Event = self._dispatch.initialised
        self._descriptor = -1
        self._channel: Channel | None = None
        self._notifier: Notifier | None = None
        self._told_to_stop = trio.Event()
        self._doubtful: list[Ino] = []
        """Inodes of which the last daemon may have wanted to tell the kernel something when it was killed."""

    async def mount(self, point: str, source: str) -> None:
        """Put a new session at `point`."""
        options = mount_options(self._settings)
        self.take(await open_session(point, source, options, suid_and_devices=self._settings.suid_and_devices))
        if self._hand_over is not None:
            self._hand_over.began(self._descriptor, point)

    def resume(self, hand_over: HandOver) -> None:
        """Go on with the session that another daemon began; the filesystem has opened its handles already."""
        record, agreed = hand_over.record, hand_over.record.agreed
        assert hand_over.session is not None, "it was inherited"
        assert agreed is not None, "it was checked"
        assert self._resumption is not None, "made with the hand-over"
        self.take(hand_over.session)
        hand_over.session = None
        self._dispatch.begin(Agreement(*agreed))
        rows = record.handles()
        self._resumption.inherit(rows)
        self._dispatch.passthrough.inherit(rows, record.inodes_read_past_us())
        if self._dispatch.agreement is not None and self._dispatch.agreement.has(RESEND):
            os.write(self._descriptor, replies.send_again())
        if not record.settled:
            self._doubtful = self._service.lookups.known()
        record.settle(False)

    def take(self, descriptor: int) -> None:
        """Use a session that is open already."""
        self._descriptor = self._dispatch.session = descriptor
        table: Mapping[Opcode, Handler] = self._dispatch.table
        if self._resumption is not None:
            table = self._resumption.around(table, lambda: self._dispatch.agreement)
        self._channel = Channel(descriptor, table, self.counts, waiting_max=self._settings.max_tasks)
        self._notifier = Notifier(descriptor)

    async def serve(self) -> None:
        """Answer until the session ends."""
        assert self._channel is not None, "mount or take comes first"
        self._dispatch.give_up = self._channel.stop
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stop_when_told, self._channel)
            nursery.start_soon(self._tell_again)
            await self._channel.serve()
            nursery.cancel_scope.cancel()
        if self._dispatch.failure is not None:
            raise self._dispatch.failure

    async def _tell_again(self) -> None:
        """Have the kernel forget what it may not have been told about: listings, and attributes of what is gone."""
        assert self._notifier is not None, "made with the channel"
        while self._doubtful:
            for ino in self._doubtful[-_TOLD_AT_ONCE:]:
                try:
                    attributes = self._service.filesystem.getattr(ino)
                except TaskVaultError:
                    # Gone, or damaged: whoever asks for them is told so, and the kernel looks the name up again.
                    self._notifier.send(replies.forget_attributes(ino))
                else:
                    if stat.S_ISDIR(attributes.mode):
                        self._notifier.send(replies.forget_pages(ino))
            del self._doubtful[-_TOLD_AT_ONCE:]
            await trio.lowlevel.checkpoint()

    def stop(self) -> None:
        """Take no more requests."""
        self._told_to_stop.set()

    async def _stop_when_told(self, channel: Channel) -> None:
        await self._told_to_stop.wait()
        assert self._notifier is not None, "made with the channel"
        # A notification may wait for a lock whose holder waits for our answer.  In the kernel it waits so that nothing
        # can interrupt it, not even the end of this process: so the answers go on until the last one is through.
        if self._hand_over is not None and self._hand_over.asked:
            self._notifier.finish()
        else:
            self._notifier.end()
        await trio.to_thread.run_sync(self._notifier.join, abandon_on_cancel=True)
        channel.stop()

    def close(self, *, unmount: bool) -> None:
        """Let go of the session: without it every system call on the mount returns."""
        if self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        if self._notifier is not None:
            # Before the descriptor's number may mean another file.
            self._notifier.end()
            self._notifier.join(_JOIN_TIMEOUT_S)
        os.close(descriptor)

    def name_removed(self, parent: int, name: bytes, ino: int) -> None:
        """Tell the kernel that the owner removed a name by itself."""
        if self._notifier is not None:
            if not ino or self._service.lookups.holds(Ino(ino)):
                self._notifier.send(replies.name_removed(parent, ino, name))
            # It may keep a listing of names that it has never looked up.
            self._notifier.send(replies.forget_pages(parent))

    def listing_changed(self, ino: int) -> None:
        """Tell the kernel that the owner added a name to a directory."""
        if self._notifier is not None:
            self._notifier.send(replies.forget_pages(ino))

    def attributes_changed(self, ino: int) -> None:
        """Tell the kernel that the owner changed an inode's attributes."""
        if self._notifier is not None:
            self._notifier.send(replies.forget_attributes(ino))
