"""What must not be swept because somebody was told that it is there."""

from __future__ import annotations

from collections.abc import Hashable, Iterable


class Leases:
    """Chunks held by holders (a connection, the sealer); in memory only, since no promise outlives its holder.

    One set a holder and no counts: holders are few and their chunks many, and a holder that goes must not be taken
    apart chunk by chunk.
    """

    def __init__(self) -> None:
        self._held: dict[Hashable, set[bytes]] = {}

    def hold(self, holder: Hashable, chunk_ids: Iterable[bytes]) -> None:
        """Keep these chunks until `release(holder)`."""
        self._held.setdefault(holder, set()).update(chunk_ids)

    def release(self, holder: Hashable) -> None:
        """Let go of everything that the holder holds."""
        self._held.pop(holder, None)

    def is_leased(self, chunk_id: bytes) -> bool:
        """Whether anybody holds the chunk."""
        return any(chunk_id in held for held in self._held.values())

    def __len__(self) -> int:
        """How many chunks are held; one that several hold counts for each."""
        return sum(map(len, self._held.values()))
