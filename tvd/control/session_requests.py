"""Requests about the daemon itself."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

from taskvault.protocol.messages import (
    PROTOCOL_VERSION,
    Done,
    GetStatistics,
    GetStatus,
    Hello,
    Shutdown,
    Statistics,
    Status,
    Welcome,
)
from tvd.control.answer import Table
from tvd.control.vault_session import VaultSession
from tvd.supervisor import Health
from tvfs.catalog.catalog import Family
from tvfs.catalog.group_commit import FlushFailed
from tvfs.filesystem.filesystem import Filesystem
from tvfs.packs.pack_row import decode_pack_row
from tvfs.packs.record import PACK_HEADER_BYTES
from tvfs.vault.runs import RunSum
from tvfs.vault.vault import Vault

Figures = Callable[[], dict[str, int | float]]


@dataclass(frozen=True, slots=True)
class DaemonFacts:
    """What does not change while the daemon runs, and how to ask it to stop."""

    version: str
    home: Path
    mount: Path | None
    started_s: float
    """On the vault's monotonic clock."""
    stop: Callable[[bool], Awaitable[None]]
    """Begin to stop, with force or without; raises a `TaskVaultError` if processes use the mount and it is without."""
    hand_over: Callable[[], None]
    """Begin to stop and leave the mount to the next daemon; raises a `TaskVaultError` if nobody would keep it."""
    plugin_call_timeout_s: float = 10.0


class SessionRequests:
    """Answers them from one vault."""

    def __init__(
        self, vault: Vault, filesystem: Filesystem, health: Health, facts: DaemonFacts, *, figures: Figures = dict
    ) -> None:
        """`figures` gives those that other parts of the daemon keep."""
        self._vault = vault
        self._filesystem = filesystem
        self._health = health
        self._facts = facts
        self._figures = figures
        self._welcome = self._make_welcome()

    def table(self) -> Table[VaultSession]:
        """Handlers by request."""
        return {
            Hello: self.hello,
            GetStatus: self.get_status,
            GetStatistics: self.get_statistics,
            Shutdown: self.shut_down,
        }

    async def hello(self, session: VaultSession, request: Hello) -> Welcome:
        """Also to a client of another version: it compares the versions and says what to do."""
        return self._welcome

    async def get_status(self, session: VaultSession, request: GetStatus) -> Status:
        """From running totals."""
        vault, facts = self._vault, self._facts
        return Status(
            version=facts.version,
            pid=os.getpid(),
            vault_uuid=vault.superblock.uuid_text,
            home=str(facts.home),
            mount=None if facts.mount is None else str(facts.mount),
            uptime_s=vault.clock.monotonic_s() - facts.started_s,
            capacity_bytes=vault.superblock.capacity_bytes,
            used_bytes=vault.usage.used_bytes(),
            entries=vault.entries.count(),
            staged_files=self._filesystem.staged_files(),
            healthy=self._health.healthy and vault.catalog.failure is None,
            trouble=self._health.trouble if vault.catalog.failure is None else str(FlushFailed(vault.catalog.failure)),
        )

    async def get_statistics(self, session: VaultSession, request: GetStatistics) -> Statistics:
        """Reads a row for each pack: 2 us each."""
        vault = self._vault
        usage = vault.usage.report()
        packs = [decode_pack_row(row) for _, row in vault.catalog.scan(Family.PACK)]
        totals = vault.entries.totals()
        figures: dict[str, int | float] = {
            "capacity_bytes": vault.superblock.capacity_bytes,
            "used_bytes": usage.total,
            "used_packs_bytes": usage.packs,
            "used_staging_bytes": usage.staging,
            "used_meta_bytes": usage.meta,
            "reserved_bytes": vault.reservations.reserved_bytes,
            "packs": len(packs),
            "live_bytes": sum(pack.live_bytes for pack in packs),
            "dead_bytes": sum(max(0, pack.committed_bytes - PACK_HEADER_BYTES - pack.live_bytes) for pack in packs),
            "compacted_bytes": vault.compactor.total.moved_bytes,
            "compacted_packs": vault.compactor.total.removed_packs,
            "collected_objects": vault.collector.figures.let_go,
            "free_bytes": vault.reservations.free_bytes,
            "entries": totals.entries,
            "logical_bytes": totals.size_bytes,
            "logical_files": totals.files,
            "leased_chunks": len(vault.leases),
            "staged_files": self._filesystem.staged_files(),
            **_run_figures(vault.runs.sums().values()),
            **self._figures(),
            "uptime_s": vault.clock.monotonic_s() - self._facts.started_s,
        }
        return Statistics(figures)

    async def shut_down(self, session: VaultSession, request: Shutdown) -> Done:
        """Answered when nothing can come in between any more: the mount has been given up, or is going to be."""
        if request.hand_over:
            self._facts.hand_over()
        else:
            await self._facts.stop(request.force)
        return Done()

    def _make_welcome(self) -> Welcome:
        superblock = self._vault.superblock
        return Welcome(
            version=PROTOCOL_VERSION,
            vault_uuid=superblock.uuid_text,
            hash=superblock.hash,
            chunking=superblock.chunking.name,
            chunking_parameters=superblock.chunking.parameters,
            compression=superblock.compression,
            compression_parameters=superblock.compression_parameters,
            pack_max_bytes=superblock.pack_max_bytes,
            mount=None if self._facts.mount is None else str(self._facts.mount),
            plugin_call_timeout_s=self._facts.plugin_call_timeout_s,
        )


def _run_figures(sums: Iterable[RunSum]) -> dict[str, int | float]:
    whole = reduce(RunSum.plus, sums, RunSum())
    return {
        "runs": whole.runs,
        "run_hits": whole.hits,
        "run_saved_s": whole.saved_ns / 1e9,
        "run_duration_s": whole.duration_ns / 1e9,
    }
