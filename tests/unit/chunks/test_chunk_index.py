from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tvfs.catalog.catalog import Batch
from tvfs.catalog.memory import MemoryCatalog
from tvfs.chunks.chunk_index import ChunkIndex
from tvfs.chunks.chunk_row import ChunkRow, ChunkState
from tvfs.digest import ChunkId
from tvfs.packs.location import Location
from tvfs.packs.pack_reader import record_bytes
from tvfs.packs.pack_row import PackRow

IDS = [ChunkId(bytes([number]) * 32) for number in range(6)]
ids = st.sampled_from(IDS)
places = st.builds(Location, st.integers(1, 3), st.integers(40, 5000), st.integers(0, 500), st.just(500), st.just(0))
changes = st.lists(
    st.one_of(st.dictionaries(ids, places, max_size=4), st.dictionaries(ids, st.sampled_from(ChunkState), max_size=4))
)


@given(steps=changes)
def test_the_figures_of_packs_always_agree_with_the_rows(steps: list[dict[ChunkId, Location | ChunkState]]) -> None:
    catalog = MemoryCatalog()
    index = ChunkIndex(catalog)
    model: dict[ChunkId, ChunkRow] = {}
    committed: dict[int, int] = {}
    for step in steps:
        batch = Batch()
        placed = {chunk_id: value for chunk_id, value in step.items() if isinstance(value, Location)}
        states = {chunk_id: value for chunk_id, value in step.items() if isinstance(value, ChunkState)}
        if placed:
            index.add(batch, placed)
        else:
            index.set_state(batch, states)
        catalog.write(batch)
        for chunk_id, at in placed.items():
            if chunk_id not in model or model[chunk_id].state is not ChunkState.LIVE:
                model[chunk_id] = ChunkRow(at)
                committed[at.pack] = max(committed.get(at.pack, 0), at.offset + record_bytes(at))
        for chunk_id, state in states.items():
            if chunk_id in model:
                model[chunk_id] = ChunkRow(model[chunk_id].location, state)
        assert index.find_many(IDS) == [model.get(chunk_id) for chunk_id in IDS]
        live = {chunk_id: row for chunk_id, row in model.items() if row.state is ChunkState.LIVE}
        assert list(index.live()) == sorted(live)
        for pack in (1, 2, 3):
            live_bytes = sum(record_bytes(row.location) for row in live.values() if row.location.pack == pack)
            assert index.pack(pack) == PackRow(committed.get(pack, 0), live_bytes)
