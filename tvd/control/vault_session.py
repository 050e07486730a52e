"""What one connection has been promised: it is the holder of leases, reservations and packs, and of prepared names."""

from __future__ import annotations

import secrets
from contextlib import suppress

from tvd.control.peer import Peer
from tvd.control.wire import Rejected
from tvfs.catalog.catalog import Family
from tvfs.errors import TaskVaultError
from tvfs.filesystem.filesystem import Filesystem
from tvfs.filesystem.model import PREPARED
from tvfs.filesystem.posix_error import NotFound
from tvfs.vault.vault import Vault

PREPARED_DIRECTORY = ".taskvault"
"""Name, below the mount, of the hidden directory whose inode is `PREPARED`."""


MOST_PREPARED = 10_000
"""Names on one connection that were neither published nor taken back; each is a look-up when it closes."""


class PreparedUnknown(TaskVaultError):
    """A name in the hidden directory is not this connection's."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path!r} was not prepared on this connection; ask for a name first, on the same connection.")
        self.path = path


class VaultSession:
    """Everything ends with the connection, whatever ends that."""

    def __init__(self, peer: Peer, vault: Vault, filesystem: Filesystem, *, is_owner: bool) -> None:
        self.peer = peer
        self.is_owner = is_owner
        """Whether the vault is the client's; others are shown less (`tvd.control.privacy`)."""
        self._vault = vault
        self._filesystem = filesystem
        self._prepared: set[str] = set()

    @property
    def who(self) -> str:
        """The client, for the audit log."""
        return f"uid {self.peer.uid}"

    @property
    def owner_override(self) -> tuple[int, int] | None:
        """Who shall own what this client attaches; None leaves the owners that were saved, which only root may make."""
        return None if self.peer.uid == 0 else (self.peer.uid, self.peer.gid)

    def fresh_name(self) -> str:
        """Return a name in the hidden directory that nobody can guess; what is there goes with the connection.

        Raise `Rejected` for more of them than anybody can want.
        """
        if len(self._prepared) >= MOST_PREPARED:
            raise Rejected(f"{MOST_PREPARED} names are prepared on this connection already; publish or discard some")
        name = secrets.token_hex(16)
        self._prepared.add(name)
        return name

    def keep(self, index: bytes) -> bool:
        """Let the tree with this index id stay as long as the connection; return whether it is there."""
        self._vault.leases.hold(self, [index])
        return self._vault.catalog.get(Family.TREE, index) is not None

    def take_back(self, path: str) -> bytes:
        """Return the name that `path` was prepared under and forget it; raise `PreparedUnknown`."""
        directory, _, name = path.rpartition("/")
        if directory != PREPARED_DIRECTORY or name not in self._prepared:
            raise PreparedUnknown(path)
        self._prepared.discard(name)
        return name.encode()

    async def close(self) -> None:
        """Let go of leases, reservations and packs, and put what was not published into the trash."""
        self._vault.end_holder(self)
        for name in self._prepared:
            with suppress(NotFound):  # published, or never used
                self._filesystem.discard(PREPARED, name.encode())
        self._prepared.clear()
