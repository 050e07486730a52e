"""Packs in which one bad chunk was found: damage seldom comes alone.

What is bad and was not found yet would be taken for present when the same content is saved again, and so never healed.
Before the next promise that chunks are there, every chunk of such a pack is read; the bad ones are quarantined.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from itertools import islice

import trio

from tvfs.catalog.catalog import Catalog, Family
from tvfs.chunks.chunk_row import ChunkState, decode_chunk_row
from tvfs.chunks.encoding import CodecUnknown
from tvfs.digest import ChunkId

SLICE = 256
"""Rows looked at before others get their turn."""


class SuspectPacks:
    """Remembered until they were checked, or until the owner ends; for the owner's trio thread only."""

    def __init__(
        self, catalog: Catalog, check_chunk: Callable[[ChunkId], Awaitable[object]], packs: Iterable[int]
    ) -> None:
        """`check_chunk` reads a chunk from its pack and quarantines it if it is bad; `packs` are suspected at once."""
        self._catalog = catalog
        self._check_chunk = check_chunk
        self._packs = set(packs)
        self._checking = trio.Lock()

    def note(self, chunk_id: ChunkId) -> None:
        """Suspect the pack of a chunk that was found bad."""
        row = self._catalog.get(Family.CHUNK, chunk_id)
        if row is not None:
            self._packs.add(decode_chunk_row(row).location.pack)

    async def check(self) -> None:
        """Read every chunk of the packs that are suspected, and suspect them no more; at once if there are none.

        Looks through all chunk rows, 2 µs each, and reads up to one pack for each that is suspected.
        """
        if not self._packs:
            return
        async with self._checking:
            packs = set(self._packs)
            for chunk_id in await self._live_in(packs) if packs else ():
                with suppress(CodecUnknown):  # nobody can tell, here and now
                    await self._check_chunk(chunk_id)
            # Only now: who asks while this runs must wait for it.  What it found bad lies in these packs again.
            self._packs -= packs

    async def _live_in(self, packs: set[int]) -> list[ChunkId]:
        found: list[ChunkId] = []
        start = b""
        while True:
            # A scan is not kept open while others run, so it is begun anew after each slice.
            part = list(islice(self._catalog.scan(Family.CHUNK, start), SLICE))
            for chunk_id, value in part:
                row = decode_chunk_row(value)
                if row.state is ChunkState.LIVE and row.location.pack in packs:
                    found.append(ChunkId(chunk_id))
            if len(part) < SLICE:
                return found
            start = part[-1][0] + b"\0"
            await trio.lowlevel.checkpoint()
