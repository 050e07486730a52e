"""The owner's own way into the vault: what a client does over the socket, without one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import trio

from tvfs.content.reference import Content
from tvfs.digest import ChunkId
from tvfs.filesystem.disk_room import has_plenty, with_records
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
        self.expected_bytes = vault.superblock.pack_max_bytes
        """How much the next ingest brings at most: no more is reserved for it."""
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
        return trio.from_thread.run(partial(self._vault.committer.commit, makes_room=True), commit, self._holder)

    def hold(self, *contents: Content | None) -> None:
        """In the owner: keep contents until `end_batch`, whatever becomes of what refers to them."""
        self._vault.leases.hold(self._holder, [content.hash for content in contents if content is not None])

    def end_batch(self) -> None:
        """In the owner: let go of what was promised to stay; what refers to it is written, or others hold it."""
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
        much_left = pack.usable and pack.size < self._pack_max_bytes - self._pack_max_bytes // 8
        if self._kept is None and much_left and trio.from_thread.run_sync(self._may_keep, pack):
            self._kept = pack
        else:
            pack.let_go()
            trio.from_thread.run_sync(self._vault.grants.end_pack, pack.number)

    def _may_keep(self, pack: _KeptPack) -> bool:
        # What was taken of what is kept for making room is given back.
        return pack.reserved_whole and has_plenty(self._vault.reservations)

    def _fresh_pack(self) -> PackWriter:
        whole = trio.from_thread.run_sync(has_plenty, self._vault.reservations)
        longest_bytes = self._vault.reservations.pack_bytes
        reserve_bytes = longest_bytes if whole else min(longest_bytes, with_records(self.expected_bytes))
        grant = trio.from_thread.run(partial(self._vault.grants.grant, makes_room=True), self._holder, reserve_bytes)
        pack = _KeptPack(self, grant.descriptor, grant.number, self._vault.superblock.uuid)
        pack.reserved_whole = whole
        return pack


class _KeptPack(PackWriter):
    """Goes back to its port instead of being closed."""

    def __init__(self, port: OwnerPort, descriptor: int, number: int, vault_uuid: bytes) -> None:
        super().__init__(descriptor, number, vault_uuid)
        self._port = port
        self.reserved_whole = False
        """Whether a whole pack was reserved, so that more may be appended later."""

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
