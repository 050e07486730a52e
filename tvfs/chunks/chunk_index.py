"""The index of chunks in a catalog: rows of chunks, and with each change the figures of the packs they lie in.

Every change is a read-modify-write of rows: call it, and write its batch, without an `await` in between, and use one
changing call for a batch (the second would not see what the first put there).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from tvfs.catalog.catalog import Batch, Catalog, Family
from tvfs.chunks.chunk_row import ChunkRow, ChunkState, decode_chunk_row, encode_chunk_row, with_state
from tvfs.chunks.encoding import RAW_CODEC
from tvfs.digest import ChunkId
from tvfs.packs.location import Location
from tvfs.packs.pack_reader import record_bytes
from tvfs.packs.pack_row import PackRow, decode_pack_row, encode_pack_row, pack_key

CODEC_IN_USE = b"codec:"
"""Family `sys`, and a codec's number (1 byte); empty value.  Written with the first row of a chunk that has it, and
never removed: a vault that cannot read such chunks must not be opened."""


class ChunkIndex:
    """Threads: `find` and `find_many` from any, the rest from the owner's only."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._codecs_in_use = {RAW_CODEC}

    def find(self, chunk_id: ChunkId) -> ChunkRow | None:
        """Return the row of a chunk in any state, or None."""
        value = self._catalog.get(Family.CHUNK, chunk_id)
        return None if value is None else decode_chunk_row(value)

    def find_many(self, chunk_ids: Sequence[ChunkId]) -> list[ChunkRow | None]:
        """Return the rows in the order of the ids."""
        values = self._catalog.get_many(Family.CHUNK, chunk_ids)
        return [None if value is None else decode_chunk_row(value) for value in values]

    def live(self) -> Iterator[ChunkId]:
        """Yield the ids of all live chunks, in order."""
        for key, value in self._catalog.scan(Family.CHUNK):
            if decode_chunk_row(value).state is ChunkState.LIVE:
                yield ChunkId(key)

    def pack(self, number: int) -> PackRow:
        """Return the figures of a pack; zeros if it has no row."""
        value = self._catalog.get(Family.PACK, pack_key(number))
        return PackRow(0, 0) if value is None else decode_pack_row(value)

    def add(self, batch: Batch, placed: Mapping[ChunkId, Location]) -> None:
        """Make chunks live where they were `placed`, and count their packs as committed up to there.

        The records must be proof against a power loss already.  A chunk that is live stays where it is: whoever placed
        it again lost a race.
        """
        self._note_codecs(batch, {location.codec for location in placed.values()})
        committed: defaultdict[int, int] = defaultdict(int)
        live_change: defaultdict[int, int] = defaultdict(int)
        for (chunk_id, location), row in zip(placed.items(), self.find_many(list(placed)), strict=True):
            if row is None or row.state is not ChunkState.LIVE:
                batch.put(Family.CHUNK, chunk_id, encode_chunk_row(ChunkRow(location)))
                live_change[location.pack] += record_bytes(location)
                committed[location.pack] = max(committed[location.pack], location.offset + record_bytes(location))
        self._change_packs(batch, live_change, committed)

    def _note_codecs(self, batch: Batch, numbers: set[int]) -> None:
        # Asked of the catalog until the row is seen there, because a batch may come to nothing.
        for number in numbers - self._codecs_in_use:
            key = CODEC_IN_USE + bytes([number])
            if self._catalog.get(Family.SYS, key) is None:
                batch.put(Family.SYS, key, b"")
            else:
                self._codecs_in_use.add(number)

    def set_state(self, batch: Batch, states: Mapping[ChunkId, ChunkState]) -> None:
        """Change the state of chunks that have a row; the others are passed over."""
        live_change: defaultdict[int, int] = defaultdict(int)
        for (chunk_id, state), row in zip(states.items(), self.find_many(list(states)), strict=True):
            if row is not None and row.state is not state:
                batch.put(Family.CHUNK, chunk_id, encode_chunk_row(ChunkRow(row.location, state)))
                lived, lives = row.state is ChunkState.LIVE, state is ChunkState.LIVE
                live_change[row.location.pack] += (lives - lived) * record_bytes(row.location)
        self._change_packs(batch, live_change, {})

    def move(self, batch: Batch, moves: Mapping[ChunkId, tuple[bytes, bytes]]) -> None:
        """Let chunks whose row is still the first one, live or dead, have the second; pass over the others.

        Rows are encoded, as of live chunks.  The new records must be proof against a power loss already.
        """
        committed: defaultdict[int, int] = defaultdict(int)
        live_change: defaultdict[int, int] = defaultdict(int)
        values = self._catalog.get_many(Family.CHUNK, list(moves))
        for (chunk_id, (old, new)), value in zip(moves.items(), values, strict=True):
            is_live = value == old
            if not is_live and value != with_state(old, ChunkState.DEAD):
                continue
            batch.put(Family.CHUNK, chunk_id, new if is_live else with_state(new, ChunkState.DEAD))
            source, target = decode_chunk_row(old).location, decode_chunk_row(new).location
            committed[target.pack] = max(committed[target.pack], target.offset + record_bytes(target))
            if is_live:
                live_change[source.pack] -= record_bytes(source)
                live_change[target.pack] += record_bytes(target)
        self._change_packs(batch, live_change, committed)

    def _change_packs(self, batch: Batch, live_change: Mapping[int, int], committed: Mapping[int, int]) -> None:
        for number in sorted({*live_change, *committed}):
            old = self.pack(number)
            new = PackRow(
                max(old.committed_bytes, committed.get(number, 0)),
                old.live_bytes + live_change.get(number, 0),
            )
            if new != old:
                batch.put(Family.PACK, pack_key(number), encode_pack_row(new))
