"""What must not be swept because somebody was told that it is there."""

from __future__ import annotations

from collections.abc import Hashable, Iterable


class Leases:
    """Content held by holders (a connection, the sealer); in memory only, since no promise outlives its holder.

    By id: of a chunk, of a blob or page (its hash), of a tree (that of its index).  Who holds an object holds what it
    refers to, since that goes after it.  One set a holder and no counts: holders are few and what they hold is much,
    and a holder that goes must not be taken apart id by id.
    """

    def __init__(self) -> None:
        self._held: dict[Hashable, set[bytes]] = {}

    def hold(self, holder: Hashable, ids: Iterable[bytes]) -> None:
        """Keep what has these ids until `release(holder)`.  Hold first, then look whether it is there."""
        self._held.setdefault(holder, set()).update(ids)

    def replace(self, holder: Hashable, ids: Iterable[bytes]) -> None:
        """Keep these and nothing else that the holder held."""
        self._held[holder] = set(ids)

    def drop(self, holder: Hashable, id_: bytes) -> None:
        """Let go of one that the holder holds."""
        self._held.get(holder, set()).discard(id_)

    def release(self, holder: Hashable) -> None:
        """Let go of everything that the holder holds."""
        self._held.pop(holder, None)

    def count(self, holder: Hashable) -> int:
        """How many ids a holder holds."""
        return len(self._held.get(holder, ()))

    def is_leased(self, id_: bytes) -> bool:
        """Whether anybody holds what has this id."""
        return any(id_ in held for held in self._held.values())

    def __len__(self) -> int:
        """How many ids are held; one that several hold counts for each."""
        return sum(map(len, self._held.values()))
