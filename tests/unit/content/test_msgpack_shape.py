from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvfs.content.msgpack_shape import TooManyObjects, check_shape

scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=30)


def count(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(1 + count(each) for each in value.values())
    return 1 + sum(map(count, value)) if isinstance(value, list) else 1


@given(values)
def test_what_is_counted_is_what_there_is(value: Any) -> None:
    text = msgspec.msgpack.encode(value)
    assert check_shape(text, 10_000) == count(value)
    if count(value) > 1:
        with pytest.raises(TooManyObjects):
            check_shape(text, count(value) - 1)


@given(values)
def test_a_torn_text_is_refused(value: Any) -> None:
    text = msgspec.msgpack.encode(value)
    for end in range(max(0, len(text) - 20), len(text)):
        with pytest.raises(TooManyObjects):
            check_shape(text[:end], 10_000)


@pytest.mark.parametrize(
    "text",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff\x01",
        b"\xdc\xff\xff" + bytes(10),
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 1000,
        b"\x81\x01" * 1000,
        b"",
    ],
)
def test_what_announces_more_than_it_has_or_nests_without_end_is_refused_at_once(text: bytes) -> None:
    started = time.perf_counter()
    with pytest.raises(TooManyObjects):
        check_shape(text, 1 << 40)
    assert time.perf_counter() - started < 0.1


@given(st.binary(max_size=300))
def test_any_bytes_are_counted_or_refused(text: bytes) -> None:
    try:
        assert 1 <= check_shape(text, 1000) <= 1000
    except TooManyObjects:
        return
