from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from tvfs.vault.entry_usage import INDEXED_BEGINNINGS, beginnings, ordered, parse_rank_row, rank_row

RANKS = st.floats(allow_nan=False, allow_infinity=False)


@given(RANKS, RANKS)
def test_rows_sort_as_their_ranks_do(one: float, other: float) -> None:
    assert (ordered(one) < ordered(other)) == (one < other)
    assert (ordered(one) == ordered(other)) == (one == other)


@given(RANKS, st.binary(max_size=20))
def test_a_row_says_which_rank_it_stands_for(rank: float, row_key: bytes) -> None:
    found, its_key = parse_rank_row(rank_row(rank, row_key))
    assert (found, its_key) == (rank, row_key)
    assert math.copysign(1, found) == math.copysign(1, rank + 0.0)


def test_the_beginnings_of_a_key_end_where_words_end() -> None:
    assert beginnings("deps-linux-1a2b") == ["", "deps-", "deps-linux-"]
    assert beginnings("plain") == [""]
    assert beginnings("-") == ["", "-"]
    assert beginnings("a.b_c:d e-f-g")[-1] == "a.b_c:d "
    assert len(beginnings("-" * 255)) == 1 + INDEXED_BEGINNINGS


@given(st.text(max_size=12), st.text(max_size=12))
def test_a_prefix_is_looked_up_where_its_keys_are_indexed(prefix: str, rest: str) -> None:
    assert beginnings(prefix)[-1] in beginnings(prefix + rest)
