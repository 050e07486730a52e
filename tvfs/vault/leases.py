"""What must not be swept because somebody was told that it is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable


class Leases:
    """Chunks held by holders (a connection, the sealer); in memory only, since no promise outlives its holder."""

    def __init__(self) -> None:
        self._held: dict[Hashable, set[bytes]] = {}
        self._holders: Counter[bytes] = Counter()

    def hold(self, holder: Hashable, chunk_ids: Iterable[bytes]) -> None:
        """Keep these chunks until `release(holder)`."""
        held = self._held.setdefault(holder, set())
        new = set(chunk_ids) - held
        held |= new
        self._holders.update(new)

    def release(self, holder: Hashable) -> None:
        """Let go of everything that the holder holds."""
        for chunk_id in self._held.pop(holder, ()):
            self._holders[chunk_id] -= 1
            if not self._holders[chunk_id]:
                del self._holders[chunk_id]

    def is_leased(self, chunk_id: bytes) -> bool:
        """Whether anybody holds the chunk."""
        return chunk_id in self._holders

    def __len__(self) -> int:
        return len(self._holders)
