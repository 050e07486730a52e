"""Who may write which pack: the owner issues the numbers, and cuts a pack at its last commit when its writer ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import trio

from tvfs.catalog.catalog import Catalog, Family
from tvfs.packs.pack_directory import PackDirectory, PackMissing
from tvfs.packs.pack_row import decode_pack_row, pack_key
from tvfs.vault.counters import NEXT_PACK, Counters
from tvfs.vault.reservations import VaultFull
from tvfs.vault.room import Room

PATIENCE_S = 5.0
"""How long a client may wait for others to give back what they reserved: a save of a few files takes less."""


@dataclass(frozen=True, slots=True)
class PackGrant:
    """A pack to write."""

    number: int
    descriptor: int
    """Read-write, header written; the receiver's to close."""


@dataclass(frozen=True, slots=True)
class _Granted:
    """What a pack's own reservation is kept under, so that it can be given back pack by pack."""

    holder: Hashable
    number: int


class PackGrants:
    """The packs that are being written, each by one holder (a connection, the sealer)."""

    def __init__(self, catalog: Catalog, packs: PackDirectory, counters: Counters, room: Room) -> None:
        self._catalog = catalog
        self._packs = packs
        self._counters = counters
        self._room = room
        self._reservations = room.reservations
        self._granted: dict[int, _Granted] = {}

    async def grant(self, holder: Hashable, reserve_bytes: int, *, makes_room: bool = False) -> PackGrant:
        """Open a new pack for the holder and set bytes aside for it; raise `VaultFull` or `PackWriteFailed`.

        Waits while room is being made.  Who makes room itself takes from what is kept for that, and does not wait; if
        even that is taken, it is refused (compaction) or waits like the others (sealing): see `grant_kept`.
        The directory of packs is synced in a thread: 1 to 30 ms, once in a pack.  The holder must not end meanwhile.
        """
        granted = self._number(holder)
        if not makes_room or not self._reserve_kept(granted, reserve_bytes):
            await self._wait_for_room(granted, reserve_bytes, makes_room=makes_room)
        return await self._create(granted)

    async def grant_kept(self, holder: Hashable, reserve_bytes: int) -> PackGrant | None:
        """Do the same for who makes room and cannot wait for room: None if there is not even what is kept for that."""
        granted = self._number(holder)
        if not self._reserve_kept(granted, reserve_bytes):
            return None
        return await self._create(granted)

    def grant_blocking(self, holder: Hashable, reserve_bytes: int) -> PackGrant:
        """Do what `grant` does where nobody else has to be served meanwhile, and nothing is waited for."""
        granted = self._number(holder)
        self._reservations.reserve(granted, reserve_bytes)
        try:
            descriptor = self._packs.create(granted.number)
        except BaseException:
            self._reservations.release(granted)
            raise
        return self._granted_with(granted, descriptor)

    @asynccontextmanager
    async def rows_reserved(self, size_bytes: int, *, makes_room: bool = False) -> AsyncIterator[None]:
        """Keep room for the rows of a commit set aside for the length of the block; raise `VaultFull`."""
        holder = object()
        if not makes_room or not self._reserve_kept(holder, size_bytes):
            await self._wait_for_room(holder, size_bytes, makes_room=makes_room)
        try:
            yield
        finally:
            self._reservations.release(holder)

    def being_written(self) -> set[int]:
        """Return the packs that somebody writes."""
        return set(self._granted)

    async def _wait_for_room(self, holder: Hashable, size_bytes: int, *, makes_room: bool) -> None:
        if makes_room and self._room.waiting:
            # They may be waiting for the room that this would make.
            raise self._reservations.full(size_bytes)
        await self._room.reserve(holder, size_bytes, patience_s=0.0 if makes_room else PATIENCE_S)

    async def _create(self, granted: _Granted) -> PackGrant:
        try:
            descriptor = await trio.to_thread.run_sync(self._packs.create, granted.number)
        except BaseException:
            self._reservations.release(granted)
            raise
        return self._granted_with(granted, descriptor)

    def _number(self, holder: Hashable) -> _Granted:
        return _Granted(holder, self._counters.take(NEXT_PACK))

    def _reserve_kept(self, holder: Hashable, reserve_bytes: int) -> bool:
        try:
            self._reservations.reserve(holder, reserve_bytes, from_kept=True)
        except VaultFull:
            return False
        return True

    def _granted_with(self, granted: _Granted, descriptor: int) -> PackGrant:
        self._granted[granted.number] = granted
        return PackGrant(granted.number, descriptor)

    def belongs_to(self, number: int, holder: Hashable) -> bool:
        """Whether the pack is being written by this holder."""
        granted = self._granted.get(number)
        return granted is not None and granted.holder == holder

    def note_growth(self, number: int) -> None:
        """Count what the pack has grown by as used instead of reserved."""
        before = self._packs.allocated_bytes(number)
        grown = self._packs.refresh(number) - before
        if grown > 0 and number in self._granted:
            self._reservations.release(self._granted[number], grown)

    def end_pack(self, number: int) -> None:
        """Take the pack back: cut it at its last commit, or remove it if nothing in it was ever committed."""
        granted = self._granted.pop(number, None)
        if granted is None:
            return
        self._reservations.release(granted)
        row = self._catalog.get(Family.PACK, pack_key(number))
        if row is None:
            self._packs.remove(number)
            return
        committed_bytes = decode_pack_row(row).committed_bytes
        with suppress(PackMissing):  # somebody removed the file: the next start reports it
            if self._packs.size(number) > committed_bytes:
                self._packs.truncate(number, committed_bytes)
            else:
                self._packs.refresh(number)

    def end_holder(self, holder: Hashable) -> None:
        """Take back every pack of a holder that has gone."""
        for number in [number for number, granted in self._granted.items() if granted.holder == holder]:
            self.end_pack(number)

    def end_all(self) -> None:
        """Take back every pack: the vault is being closed."""
        for number in list(self._granted):
            self.end_pack(number)
