"""Requests about plugins."""

from __future__ import annotations

import trio

from taskvault.protocol.messages import GetPluginUse, PluginUse
from tvd.control.answer import Table
from tvd.control.vault_session import VaultSession
from tvfs.vault.vault import Vault


class PluginRequests:
    """Answers them from one vault."""

    def __init__(self, vault: Vault, eviction_policy: str) -> None:
        """`eviction_policy` is the name of the one in use."""
        self._vault = vault
        self._eviction_policy = eviction_policy

    def table(self) -> Table[VaultSession]:
        """Handlers by request."""
        return {GetPluginUse: self.get_use}

    async def get_use(self, session: VaultSession, request: GetPluginUse) -> PluginUse:
        """From a row for each codec and the superblock."""
        await trio.lowlevel.checkpoint()
        needed = self._vault.plugins.needed()
        return PluginUse(needed | {"eviction": {self._eviction_policy: "the configuration names it; no data needs it"}})
