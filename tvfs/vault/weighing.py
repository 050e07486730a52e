"""What contents take in packs, and how much of it would be given back if some of what refers to them went.

Found out by letting go in mind: an object whose references have all gone lets go of what it refers to itself, as the
collector would (docs/design/reclaim.md §2).  Nothing is changed.  In slices; what changes meanwhile may count or not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from tvfs.catalog.catalog import Family
from tvfs.chunks.chunk_row import ChunkState, decode_chunk_row
from tvfs.content.tree_index import page_key
from tvfs.packs.pack_reader import record_bytes
from tvfs.vault.counting import CountingCatalog
from tvfs.vault.pace import Pace
from tvfs.vault.references import CHUNK_KEY, Kind, id_of, references_of, row_of_object

SLICE = 64
"""Rows looked at in one step: well under 1 ms."""


@dataclass(slots=True)
class Weight:
    """What was found."""

    chunks: int = 0
    """Each once."""
    stored_bytes: int = 0
    """Their records."""
    freed_chunks: int = 0
    """Of them, those that nothing else needs."""
    freed_bytes: int = 0
    codecs: Counter[int] = field(default_factory=Counter)
    """Chunks by the number of their codec."""
    leased: bool = False
    """Whether a client was promised one of them."""


class Weigher:
    """Weighs one set of references.  Memory: 60 bytes a chunk, 250 if something else refers to it as well."""

    def __init__(self, catalog: CountingCatalog, function: str, is_leased: Callable[[bytes], bool]) -> None:
        """`function` names the vault's hash function; `is_leased` says whether the chunk with an id was promised."""
        self._catalog = catalog
        self._function = function
        self._is_leased = is_leased
        self.pace = Pace()
        """Also for whoever works in turns with this: two would each take the other's pauses for work."""
        self._weight = Weight()
        # By the last byte: a set of a million would hold the owner for 30 ms each time it has to grow.
        self._left: list[dict[bytes, int]] = [{} for _ in range(256)]
        """Objects that would be referred to less, and how many references they would have left."""
        self._reached: list[bytes] = []
        self._seen: list[set[int]] = [set() for _ in range(256)]
        """What was weighed."""

    async def release(self, keys: Sequence[bytes]) -> None:
        """Let go of one reference to each of these objects; one that is there twice loses two."""
        waiting = list(keys)
        while waiting:
            part = waiting[-SLICE:]
            del waiting[-SLICE:]
            gone = self._gone(Counter(part))
            await self.pace.breathe()
            await self._weigh([key for key in gone if key[0] == Kind.CHUNK], freed=True)
            for key in gone:
                if key[0] != Kind.CHUNK:
                    waiting += await self._references(key)
            await self.pace.breathe()

    def reach(self, keys: Iterable[bytes]) -> None:
        """Note that these objects are there, and would be without what was released."""
        self._reached += keys

    async def finish(self) -> Weight:
        """Weigh what would stay, too, and return everything."""
        waiting, self._reached = self._reached, []
        await self._reach(waiting)
        for shard in self._left:
            await self._reach(list(shard))
        return self._weight

    async def _reach(self, waiting: list[bytes]) -> None:
        while waiting:
            part = waiting[-SLICE:]
            del waiting[-SLICE:]
            fresh = [key for key in dict.fromkeys(part) if _short(key) not in self._seen[key[-1]]]
            for key in fresh:
                self._seen[key[-1]].add(_short(key))
            await self._weigh([key for key in fresh if key[0] == Kind.CHUNK], freed=False)
            for key in fresh:
                if key[0] != Kind.CHUNK:
                    waiting += await self._references(key)
            await self.pace.breathe()

    def _gone(self, released: Counter[bytes]) -> list[bytes]:
        """Count references down; return the objects that have none left."""
        left = self._left
        new = [key for key in released if key not in left[key[-1]]]
        for key, count in zip(new, self._catalog.counts(new), strict=True):
            left[key[-1]][key] = count
        gone = []
        for key, count in released.items():
            shard = left[key[-1]]
            shard[key] -= count
            if shard[key] <= 0:
                del shard[key]
                self._seen[key[-1]].add(_short(key))
                gone.append(key)
        return gone

    async def _weigh(self, chunks: list[bytes], *, freed: bool) -> None:
        weight = self._weight
        for key, row in zip(chunks, self._catalog.get_many(Family.CHUNK, list(map(id_of, chunks))), strict=True):
            if row is None:
                continue
            chunk = decode_chunk_row(row)
            if chunk.state is ChunkState.QUARANTINED:
                continue
            taken = record_bytes(chunk.location)
            weight.chunks += 1
            weight.stored_bytes += taken
            weight.codecs[chunk.location.codec] += 1
            weight.leased = weight.leased or self._is_leased(id_of(key))
            if freed:
                weight.freed_chunks += 1
                weight.freed_bytes += taken
        await self.pace.breathe()

    async def _references(self, key: bytes) -> list[bytes]:
        """Return what an object refers to; nothing if it is not there."""
        family, row_key = row_of_object(key)
        row = self._catalog.get(family, row_key)
        if row is None:
            return []
        found = references_of(family, row_key, row, self._function)
        if family is Family.TREE:
            number = 0
            while (page := self._catalog.get(Family.TREEPAGE, page_key(row_key, number))) is not None:
                found += references_of(Family.TREEPAGE, page_key(row_key, number), page, self._function)
                number += 1
                await self.pace.breathe()
        return found


def _short(key: bytes) -> int:
    """Return what stands for a key in a large set: 32 bytes instead of 100, equal for two keys once in 10^6 vaults."""
    return int.from_bytes(key[-8:], "big") >> 4 ^ (key[0] == CHUNK_KEY[0])
