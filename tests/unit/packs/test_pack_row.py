from __future__ import annotations

import pytest

from tvfs.errors import FormatTooNew
from tvfs.packs.pack_row import PackRow, decode_pack_row, encode_pack_row, pack_key, pack_number


def test_a_row_has_the_bytes_of_the_format() -> None:
    encoded = encode_pack_row(PackRow(committed_bytes=0x0102, live_bytes=0x03))
    assert encoded.hex() == "0100000000000000000001020000000000000003"
    assert decode_pack_row(encoded) == PackRow(0x0102, 0x03)
    assert pack_key(258).hex() == "0000000000000102"
    assert pack_number(pack_key(258)) == 258


def test_a_row_of_a_later_version_is_refused() -> None:
    with pytest.raises(FormatTooNew):
        decode_pack_row(b"\x02" + bytes(30))
