from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvfs.chunks.chunk_row import ChunkRow, ChunkState, decode_chunk_row, encode_chunk_row
from tvfs.errors import FormatTooNew
from tvfs.packs.location import Location

UINT32 = st.integers(0, 2**32 - 1)


def test_a_row_has_the_bytes_of_the_format() -> None:
    row = ChunkRow(Location(pack=0x11, offset=0x22, stored_bytes=0x33, raw_bytes=0x44, codec=5), ChunkState.QUARANTINED)
    assert encode_chunk_row(row).hex() == "010502000000001100000000000000220000003300000044"


@given(
    row=st.builds(
        ChunkRow,
        st.builds(Location, UINT32, st.integers(0, 2**64 - 1), UINT32, UINT32, st.integers(0, 255)),
        st.sampled_from(ChunkState),
    )
)
def test_a_row_comes_back_exactly(row: ChunkRow) -> None:
    assert decode_chunk_row(encode_chunk_row(row)) == row


def test_a_row_of_a_later_version_is_refused() -> None:
    with pytest.raises(FormatTooNew):
        decode_chunk_row(b"\x02" + bytes(30))
