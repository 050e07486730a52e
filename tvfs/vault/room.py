"""Who wants to write asks here and waits, in turn, until there is room or nothing is left that could make some."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio

from tvfs.vault.reservations import Reservations

MakeRoom = Callable[[int, int], Awaitable[bool]]
"""Called with how much must be free, and how much beside is waited for by others, whose turn comes then.

Returns True when the former is free, or what is free has changed; False if nothing more can be let go.
"""

LOOKED_AT_S = 0.05
"""How often who waits for others to give something back looks whether they did."""
RETURN_PATIENCE_S = 10.0
"""How long who finds no room waits for work that gives some back: sealing 64 MiB takes less than a second."""


class Room:
    """Strictly first come, first served: one that wants much is not overtaken for ever by those that want little.

    The owner's trio thread only.  Without `make_room` whoever finds no room is refused at once.
    """

    def __init__(self, reservations: Reservations) -> None:
        self.reservations = reservations
        self.make_room: MakeRoom | None = None
        """Set once by the owner."""
        self.wanted = trio.Event()
        """Set when somebody was refused who could not wait; whoever makes room replaces it."""
        self._turn = trio.Lock()
        self._returning = 0
        self._wanted_bytes = 0
        """By all who wait, whoever has the turn included."""

    @property
    def waiting(self) -> bool:
        """Whether somebody waits for room, so that nobody else may take what comes free."""
        return self._turn.locked()

    def free_bytes(self) -> int:
        """What may be taken at once; nothing while somebody waits."""
        return 0 if self.waiting else self.reservations.free_bytes

    def admits_names(self, size_bytes: int = 0) -> bool:
        """Whether a name, or rows of so many bytes, may be added now; if not, room is made for the next one."""
        admitted = self.reservations.admits_names(size_bytes)
        if not admitted:
            self.wanted.set()
        return admitted

    async def reserve(self, holder: Hashable, size_bytes: int, *, patience_s: float = 0.0) -> None:
        """Set bytes aside for the holder, until it releases them in `reservations`; raise `VaultFull`.

        Waits while room is being made, and then at most `patience_s` for others to give back what they reserved.
        Cancelled, it leaves nothing reserved.
        """
        if not size_bytes:
            return
        if size_bytes <= self.free_bytes():
            self.reservations.reserve(holder, size_bytes)
            return
        if size_bytes > self.reservations.most_bytes:
            raise self.reservations.full(size_bytes)
        self._wanted_bytes += size_bytes
        try:
            async with self._turn:
                await self._wait(size_bytes, patience_s)
                self.reservations.reserve(holder, size_bytes)
        finally:
            self._wanted_bytes -= size_bytes

    @contextmanager
    def returning(self) -> Iterator[None]:
        """Say that the block gives room back when it ends, or soon: who finds none waits for it.

        The block must not wait for room behind them: see `waiting`.
        """
        self._returning += 1
        try:
            yield
        finally:
            self._returning -= 1

    @asynccontextmanager
    async def reserved(self, size_bytes: int) -> AsyncIterator[None]:
        """Keep bytes set aside for the length of the block; raise `VaultFull`."""
        holder = object()
        await self.reserve(holder, size_bytes)
        try:
            yield
        finally:
            self.reservations.release(holder)

    async def _wait(self, size_bytes: int, patience_s: float) -> None:
        waited_s = 0.0
        while size_bytes > self.reservations.free_bytes:
            if not await self._made_room(size_bytes):
                waited_s = await self._wait_for_others(size_bytes, waited_s, patience_s)

    async def _made_room(self, size_bytes: int) -> bool:
        if self.make_room is None:
            await trio.lowlevel.checkpoint()
            return False
        return await self.make_room(size_bytes, self._wanted_bytes - size_bytes)

    async def _wait_for_others(self, size_bytes: int, waited_s: float, patience_s: float) -> float:
        promised_bytes = self.reservations.reserved_bytes
        if self._returning:
            patience_s = max(patience_s, RETURN_PATIENCE_S)
        elif size_bytes > self.reservations.free_bytes + promised_bytes:
            patience_s = 0.0
        if waited_s >= patience_s:
            raise self.reservations.full(size_bytes)
        await trio.sleep(LOOKED_AT_S)
        return waited_s + LOOKED_AT_S
