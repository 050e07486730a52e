"""Requests about space: collecting garbage."""

from __future__ import annotations

from taskvault.protocol.messages import Collected, CollectGarbage
from tvd.control.answer import Table
from tvd.control.vault_session import VaultSession
from tvd.control.wire import Rejected
from tvd.reclaim import Reclaimer
from tvfs.vault.reachability import compare
from tvfs.vault.vault import Vault

MOST_FINDINGS = 1000
"""In one answer: each is a sentence, and one is a defect already."""


class ReclaimRequests:
    """Answers them from one vault."""

    def __init__(self, vault: Vault, reclaimer: Reclaimer) -> None:
        self._vault = vault
        self._reclaimer = reclaimer

    def table(self) -> Table[VaultSession]:
        """Handlers by request."""
        return {CollectGarbage: self.collect_garbage}

    async def collect_garbage(self, session: VaultSession, request: CollectGarbage) -> Collected:
        """Takes as long as it takes: an epoch at least if something became unwanted just now."""
        if request.evict_bytes < 0:
            raise Rejected(f"{request.evict_bytes} bytes cannot be evicted")
        done = await self._reclaimer.collect_garbage(request.evict_bytes)
        findings: list[str] = []
        if request.check:
            findings = [str(difference) for difference in (await compare(self._vault.catalog))[:MOST_FINDINGS]]
        return Collected(
            expired=done.expired,
            evicted=done.evicted,
            objects=done.objects,
            freed_bytes=done.freed_bytes,
            moved_bytes=done.moved_bytes,
            findings=findings,
        )
