"""Requests about chunks, packs and rows."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import trio

from taskvault.protocol.framing import MAX_DESCRIPTORS, MAX_FRAME_BYTES, FrameTooLarge
from taskvault.protocol.messages import (
    CheckChunks,
    ChunkLocation,
    Commit,
    Done,
    EndPack,
    FindMissing,
    GetRows,
    Locate,
    Located,
    Missing,
    OpenPack,
    PackOpened,
    Rows,
)
from tvd.control.answer import Answer, Table
from tvd.control.vault_session import VaultSession
from tvd.control.wire import Rejected
from tvfs.catalog.catalog import Family
from tvfs.chunks.chunk_index import ChunkIndex
from tvfs.chunks.chunk_row import ChunkRow, ChunkState
from tvfs.digest import HASH_BYTES, ChunkId
from tvfs.errors import TaskVaultError
from tvfs.packs.pack_directory import PackMissing
from tvfs.vault.vault import Vault

SLICE = 512
"""Rows looked up before others get their turn: 1.5 ms."""

MOST_LEASES = 1 << 23
"""Of one connection: 100 bytes each, and a terabyte of content in chunks of usual length."""

_READABLE_FAMILIES = frozenset({Family.BLOB, Family.PAGE, Family.TREE, Family.TREEPAGE})
"""Content-addressed rows; the others are the owner's business."""


class PackNotMade(TaskVaultError):
    """The disk refused a new pack."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"No pack could be made ({reason}); look at the disk that holds the vault.")


class IngestRequests:
    """Answers them from one vault; a connection's session is the holder of everything that it is promised."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._index = ChunkIndex(vault.catalog)

    def table(self) -> Table[VaultSession]:
        """Handlers by request."""
        return {
            FindMissing: self.find_missing,
            OpenPack: self.open_pack,
            EndPack: self.end_pack,
            Commit: self.commit,
            Locate: self.locate,
            CheckChunks: self.check_chunks,
            GetRows: self.get_rows,
        }

    async def find_missing(self, session: VaultSession, request: FindMissing) -> Missing:
        """Leased before it is looked up, so that what is found stays."""
        for chunk_id in request.chunk_ids:
            _check_chunk_id(chunk_id)
        self._check_leases(session)
        return Missing(await self._vault.committer.find_missing(request.chunk_ids, session))

    async def open_pack(self, session: VaultSession, request: OpenPack) -> Answer:
        """The pack ends with the connection."""
        most_bytes = self._vault.superblock.pack_max_bytes
        if not 0 < request.reserve_bytes <= most_bytes:
            raise Rejected(f"{request.reserve_bytes} bytes cannot be reserved for a pack of at most {most_bytes}")
        try:
            # Who asks for a whole pack may begin it with a record that is longer.
            whole = request.reserve_bytes == most_bytes
            reserve_bytes = self._vault.reservations.pack_bytes if whole else request.reserve_bytes
            grant = await self._vault.grants.grant(session, reserve_bytes)
        except OSError as exc:
            raise PackNotMade(exc.strerror or str(exc)) from exc
        return Answer(PackOpened(grant.number, most_bytes), (grant.descriptor,))

    async def end_pack(self, session: VaultSession, request: EndPack) -> Done:
        """One that is not the session's, or not any more, is passed over."""
        if self._vault.grants.belongs_to(request.number, session):
            self._vault.grants.end_pack(request.number)
        return Done()

    async def commit(self, session: VaultSession, request: Commit) -> Missing:
        """All or nothing; nothing if anything is missing."""
        return Missing(await self._vault.committer.commit(request.commit, session))

    async def locate(self, session: VaultSession, request: Locate) -> Answer:
        """Descriptors of at most `MAX_DESCRIPTORS` packs go with the answer."""
        self._check_leases(session)
        found: dict[int, list[ChunkLocation]] = {}
        missing: list[bytes] = []
        for part in _slices(request.chunk_ids):
            for chunk_id, row in zip(part, self._leased(session, part), strict=True):
                if row is None or row.state is ChunkState.QUARANTINED:
                    missing.append(chunk_id)
                else:
                    found.setdefault(row.location.pack, []).append(_location(chunk_id, row))
            await trio.lowlevel.checkpoint()
        return self._located(found, missing)

    async def check_chunks(self, session: VaultSession, request: CheckChunks) -> Missing:
        """One after the other: this is for what was found bad, and for going through everything slowly."""
        bad: list[bytes] = []
        for chunk_id in request.chunk_ids:
            _check_chunk_id(chunk_id)
            if not await self._vault.check_chunk(ChunkId(chunk_id)):
                bad.append(chunk_id)
        return Missing(bad)

    async def get_rows(self, session: VaultSession, request: GetRows) -> Rows:
        """Only rows whose keys are hashes of content."""
        values: list[bytes | None] = []
        values_bytes = 0
        for position, (family, key) in enumerate(request.keys, 1):
            if family not in _READABLE_FAMILIES:
                raise Rejected(f"rows of family {family!r} are not for clients")
            value = self._vault.catalog.get(Family(family), key)
            values.append(value)
            values_bytes += len(value or b"")
            if values_bytes > MAX_FRAME_BYTES:
                raise FrameTooLarge(values_bytes)
            if position % SLICE == 0:
                await trio.lowlevel.checkpoint()
        return Rows(values)

    def _check_leases(self, session: VaultSession) -> None:
        if self._vault.leases.count(session) > MOST_LEASES:
            raise Rejected(f"one connection may ask about {MOST_LEASES} chunks; go on with another")

    def _leased(self, session: VaultSession, chunk_ids: Sequence[bytes]) -> list[ChunkRow | None]:
        for chunk_id in chunk_ids:
            _check_chunk_id(chunk_id)
        self._vault.leases.hold(session, chunk_ids)
        return self._index.find_many([ChunkId(chunk_id) for chunk_id in chunk_ids])

    def _located(self, found: dict[int, list[ChunkLocation]], missing: list[bytes]) -> Answer:
        locations: list[ChunkLocation] = []
        packs: list[int] = []
        later: list[bytes] = []
        with ExitStack() as on_failure:
            descriptors: list[int] = []
            for number, here in found.items():
                if len(packs) == MAX_DESCRIPTORS:
                    later += [location.chunk_id for location in here]
                    continue
                try:
                    with self._vault.packs.open_reader(number) as descriptor:
                        descriptors.append(os.dup(descriptor))
                except PackMissing:
                    moved = self._moved(here)
                    later += moved
                    missing += [location.chunk_id for location in here if location.chunk_id not in moved]
                    continue
                on_failure.callback(os.close, descriptors[-1])
                packs.append(number)
                locations += here
            on_failure.pop_all()
        return Answer(Located(locations, packs, later, missing), tuple(descriptors))

    def _moved(self, located: Sequence[ChunkLocation]) -> list[bytes]:
        """Return those that lie elsewhere now: compaction took their pack between the look-up and the opening."""
        rows = self._index.find_many([ChunkId(location.chunk_id) for location in located])
        return [
            location.chunk_id
            for location, row in zip(located, rows, strict=True)
            if row is not None and row.state is not ChunkState.QUARANTINED and row.location.pack != location.pack
        ]


def _slices(chunk_ids: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(chunk_ids), SLICE):
        yield chunk_ids[start : start + SLICE]


def _check_chunk_id(chunk_id: bytes) -> None:
    if len(chunk_id) != HASH_BYTES:
        raise Rejected(f"a chunk id has {HASH_BYTES} bytes")


def _location(chunk_id: bytes, row: ChunkRow) -> ChunkLocation:
    at = row.location
    return ChunkLocation(chunk_id, at.pack, at.offset, at.stored_bytes, at.raw_bytes, at.codec)
