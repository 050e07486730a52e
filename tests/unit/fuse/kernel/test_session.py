"""The kernel transport keeps the contract of transports."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable

from tvfs.errors import RowDamaged
from tvfs.filesystem.lookups import LookupCounts
from tvfs.filesystem.model import WORK, FileAttributes, Handle, Ino
from tvfs.fuse.kernel.session import KernelTransport
from tvfs.fuse.settings import MountSettings
from tvfs.fuse.transport import Transport
from tvfs.testing.memory_filesystem import MemoryFilesystem
from tvfs.testing.transport_contract import OPEN, RELEASE, TransportContract


class TestKernelTransport(TransportContract):
    def make_transport(self, filesystem: MemoryFilesystem, lookups: LookupCounts, settings: MountSettings) -> Transport:
        return KernelTransport(filesystem, lookups, settings)

    async def test_a_bug_in_a_handler_is_an_error_for_one_request(self, expect_log: Callable[[str], None]) -> None:  # type: ignore[override]
        expect_log("request handler raised")
        await super().test_a_bug_in_a_handler_is_an_error_for_one_request()

    async def test_a_file_that_cannot_be_opened_past_us_is_not_left_open(
        self, expect_log: Callable[[str], None]
    ) -> None:
        """A handle that the kernel was never given is never released by it, and its file would never be sealed."""
        expect_log("request failed")
        async with self.session() as (peer, filesystem, _, transport):
            ino, handle = await peer.create(b"file")
            await peer.wants(RELEASE, ino, struct.pack("=QIIQ", handle, 0, 0, 0))
            before = len(filesystem._handles)

            def no_descriptor_is_left(handle: Handle) -> int | None:
                raise OSError(errno.EMFILE, "Too many open files")

            filesystem.begin_direct = no_descriptor_is_left  # type: ignore[method-assign]
            assert isinstance(transport, KernelTransport)
            transport._dispatch.passthrough.enable(0)
            assert (await peer.ask(OPEN, ino, struct.pack("=II", os.O_RDONLY, 0))).errno == errno.EMFILE
            assert len(filesystem._handles) == before

    async def test_the_kernel_forgets_a_listing_that_it_keeps_when_the_owner_changes_names(self) -> None:
        async with self.session() as (peer, _, _, transport):
            ino, _ = await peer.create(b"file")
            forget_listing = (2, struct.pack("=Qqq", WORK, 0, 0))
            transport.name_removed(WORK, b"file", ino)
            assert [await self._told(peer) for _ in range(2)][1] == forget_listing
            transport.listing_changed(WORK)
            assert await self._told(peer) == forget_listing

    async def test_of_names_that_the_kernel_does_not_know_it_is_told_once_that_the_listing_changed(self) -> None:
        async with self.session() as (peer, _, _, transport):
            await peer.create(b"file")
            for number in range(1000):
                transport.name_removed(WORK, b"%d" % number, 4711)
            assert isinstance(transport, KernelTransport)
            assert transport._notifier is not None
            assert len(transport._notifier._waiting) <= 1
            assert await self._told(peer) == (2, struct.pack("=Qqq", WORK, 0, 0))

    async def test_a_damaged_row_does_not_end_the_session_that_tells_the_kernel_again(self) -> None:
        async with self.session() as (peer, filesystem, _, transport):
            ino, _ = await peer.create(b"file")

            def cannot_be_read(ino: Ino) -> FileAttributes:
                raise RowDamaged("An inode's row in the catalog")

            filesystem.getattr = cannot_be_read  # type: ignore[method-assign]
            assert isinstance(transport, KernelTransport)
            transport._doubtful = [Ino(ino)]
            await transport._tell_again()
            assert await self._told(peer) == (2, struct.pack("=Qqq", ino, -1, 0))
