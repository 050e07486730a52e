"""The owner's own way into the vault: what a client does over the socket, without one."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from tvfs.digest import ChunkId
from tvfs.ingest.commit import IngestCommit
from tvfs.ingest.port import IngestSettings
from tvfs.packs.pack_writer import PackWriter
from tvfs.vault.vault import Vault


class OwnerPort:
    """An `IngestPort` whose methods are called in a worker thread that trio started, and act in the owner.

    The pack is kept from one ingest to the next: a seal of three small files does not need a pack of its own.
    """

    def __init__(self, vault: Vault, holder: str) -> None:
        self._vault = vault
        self._holder = holder
        self._find_missing = vault.committer.find_missing
        self._kept: _KeptPack | None = None
        self._pack_max_bytes = vault.superblock.pack_max_bytes

    @property
    def settings(self) -> IngestSettings:
        """For an `Ingest` that does everything in the thread that calls it."""
        vault = self._vault
        return IngestSettings(vault.hash_function, vault.chunker, vault.codec, self._pack_max_bytes, threads=1)

    def find_missing(self, chunk_ids: Sequence[ChunkId]) -> set[ChunkId]:
        """Return which chunks must be sent; the others are held until `end_batch`."""
        return {ChunkId(each) for each in trio.from_thread.run(self._find_missing, chunk_ids, self._holder)}

    def open_pack(self) -> PackWriter:
        """Return the pack that the last ingest left, or a fresh one."""
        kept, self._kept = self._kept, None
        return kept or self._fresh_pack()

    def commit(self, commit: IngestCommit) -> list[bytes]:
        """Make all of it durable, or none of it."""
        return trio.from_thread.run(self._vault.committer.commit, commit, self._holder)

    def end_batch(self) -> None:
        """In the owner: let go of the chunks that were promised to stay; what refers to them is written."""
        self._vault.leases.release(self._holder)

    def close(self) -> None:
        """In the owner: let go of everything."""
        if self._kept is not None:
            self._kept.let_go()
            self._kept = None
        self._vault.end_holder(self._holder)

    def abandon(self) -> None:
        """Close the descriptor of the kept pack and nothing else."""
        if self._kept is not None:
            self._kept.let_go()
            self._kept = None

    def keep(self, pack: _KeptPack) -> None:
        """An ingest is through with a pack."""
        if self._kept is None and pack.usable and pack.size < self._pack_max_bytes - self._pack_max_bytes // 8:
            self._kept = pack
        else:
            pack.let_go()
            trio.from_thread.run_sync(self._vault.grants.end_pack, pack.number)

    def _fresh_pack(self) -> PackWriter:
        grant = trio.from_thread.run(self._vault.grants.grant, self._holder, self._pack_max_bytes)
        return _KeptPack(self, grant.descriptor, grant.number, self._vault.superblock.uuid)


class _KeptPack(PackWriter):
    """Goes back to its port instead of being closed."""

    def __init__(self, port: OwnerPort, descriptor: int, number: int, vault_uuid: bytes) -> None:
        super().__init__(descriptor, number, vault_uuid)
        self._port = port

    @property
    def usable(self) -> bool:
        """Whether more can be appended."""
        return self._sync_failure is None

    def close(self) -> None:
        """Give the pack back."""
        self._port.keep(self)

    def let_go(self) -> None:
        """Close it."""
        super().close()
