"""The transport through pyfuse3 keeps the contract of transports."""

from __future__ import annotations

from collections.abc import Callable

from tvfs.filesystem.lookups import LookupCounts
from tvfs.fuse.pyfuse3_session import Pyfuse3Transport
from tvfs.fuse.settings import MountSettings
from tvfs.fuse.transport import Transport
from tvfs.testing.memory_filesystem import MemoryFilesystem
from tvfs.testing.transport_contract import TransportContract


class TestPyfuse3Transport(TransportContract):
    def make_transport(self, filesystem: MemoryFilesystem, lookups: LookupCounts, settings: MountSettings) -> Transport:
        return Pyfuse3Transport(filesystem, lookups, settings)

    async def test_a_bug_in_a_handler_is_an_error_for_one_request(self, expect_log: Callable[[str], None]) -> None:  # type: ignore[override]
        expect_log("request handler raised")
        await super().test_a_bug_in_a_handler_is_an_error_for_one_request()
