"""Pathsets: read as they were written, refused if damaged; and the order of files by when they were changed."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskvault.run.pathset import (
    MOST_CANDIDATE_BYTES,
    MOST_PATHSETS,
    PATHSET_FORMAT,
    Item,
    Order,
    Pathset,
    PathsetsUnusable,
    decode,
    encode,
    pack,
    strong_key,
    unpack,
)
from taskvault.run.states import order_state
from tvfs.plugin_api import PluginRegistry

HASH = PluginRegistry().hash_function("blake3")

items = st.lists(st.builds(Item, st.binary(max_size=30), st.integers(0, 255)), max_size=8)
orders = st.lists(st.builds(Order, st.lists(st.integers(0, 9)), st.lists(st.integers(0, 9))), max_size=3)
pathsets = st.builds(
    Pathset, st.just(PATHSET_FORMAT), items, st.lists(st.binary(max_size=9), max_size=3), orders, st.booleans()
)


@given(pathsets)
def test_a_pathset_is_read_as_it_was_written(pathset: Pathset) -> None:
    assert decode(encode(pathset)) == pathset


@given(st.lists(st.binary(max_size=50), max_size=2 * MOST_PATHSETS))
def test_a_row_keeps_the_first_pathsets(encoded: list[bytes]) -> None:
    assert unpack(pack(encoded)) == encoded[:MOST_PATHSETS]


def test_a_row_never_outgrows_its_room(seed: int) -> None:
    import random

    draw = random.Random(seed)
    row = pack([draw.randbytes(MOST_CANDIDATE_BYTES // 3) for _ in range(5)])
    assert len(row) <= MOST_CANDIDATE_BYTES
    assert len(unpack(row)) == 2


@given(pathsets, st.data())
def test_a_damaged_row_is_read_or_refused_and_nothing_else(pathset: Pathset, data: st.DataObject) -> None:
    row = bytearray(pack([encode(pathset)]))
    for _ in range(data.draw(st.integers(1, 4))):
        row[data.draw(st.integers(0, len(row) - 1))] ^= data.draw(st.integers(1, 255))
    del row[data.draw(st.integers(0, len(row))) :]
    with suppress(PathsetsUnusable):
        for encoded in unpack(bytes(row)):
            decode(encoded)


@given(st.binary(max_size=200))
def test_anything_is_a_pathset_or_refused(encoded: bytes) -> None:
    with suppress(PathsetsUnusable):
        assert decode(encoded).version == PATHSET_FORMAT


def test_a_pathset_of_another_version_is_refused() -> None:
    with pytest.raises(PathsetsUnusable, match="version 99"):
        decode(encode(Pathset(99, [], [], [], False)))


@given(st.lists(st.binary(max_size=5), max_size=4), st.lists(st.binary(max_size=5), max_size=4))
def test_other_states_are_another_key(one: list[bytes], other: list[bytes]) -> None:
    same = strong_key(b"w", b"p", one, HASH) == strong_key(b"w", b"p", other, HASH)
    assert same == (one == other)


times = st.lists(st.integers(0, 5), min_size=5, max_size=5)


def compared(moments: list[int]) -> list[bool]:
    """How what may have been made, the first two or three, compares with all."""
    return [
        result
        for made in range(3)
        for other in range(5)
        for result in (moments[made] < moments[other], moments[made] == moments[other])
    ]


@given(times, times)
def test_the_state_of_an_order_is_the_same_exactly_if_all_comparisons_with_what_was_made_are(
    one: list[int], other: list[int]
) -> None:
    order = Order([0, 1, 2], [3, 4])
    states = [order_state(order, dict(enumerate(moments))) for moments in (one, other)]
    assert (states[0] == states[1]) == (compared(one) == compared(other))


@given(st.permutations(range(5)), st.integers(1, 1000))
def test_files_that_all_move_in_time_keep_their_order(moments: list[int], shift: int) -> None:
    order = Order([0, 1], [2, 3, 4])
    stretched = {number: moment * 7 + shift for number, moment in enumerate(moments)}
    assert order_state(order, stretched) == order_state(order, dict(enumerate(moments)))
    assert all(one < other for one, other in pairwise(sorted(stretched.values())))
