from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tvfs.catalog.memory import MemoryCatalog
from tvfs.vault.counters import NEXT_INO, NEXT_PACK, NEXT_SEQ, Counters


def test_numbers_follow_each_other() -> None:
    counters = Counters(MemoryCatalog())
    assert [counters.take(NEXT_PACK) for _ in range(3)] == [1, 2, 3]
    assert counters.take(NEXT_INO) == 64
    assert counters.take(NEXT_INO, 100_000) == 65
    assert counters.take(NEXT_INO) == 100_065


def test_a_clean_stop_skips_nothing() -> None:
    catalog = MemoryCatalog()
    counters = Counters(catalog)
    counters.take(NEXT_SEQ)
    counters.close()
    assert Counters(catalog).take(NEXT_SEQ) == 2


@given(st.lists(st.one_of(st.integers(1, 10_000), st.just("crash"), st.just("close"), st.just("flush")), max_size=30))
def test_no_number_is_given_out_twice_whatever_kills_in_between(steps: list[int | str]) -> None:
    catalog = MemoryCatalog()
    counters = Counters(catalog)
    greatest = 0
    for step in steps:
        if step == "crash":
            catalog = catalog.crash_copy(durable_only=False)
            counters = Counters(catalog)
        elif step == "close":
            counters.close()
            counters = Counters(catalog)
        elif isinstance(step, int):
            first = counters.take(NEXT_INO, step)
            assert first > greatest
            greatest = first + step - 1


def test_a_raised_counter_stays_raised() -> None:
    catalog = MemoryCatalog()
    counters = Counters(catalog)
    assert counters.raise_to(NEXT_PACK, 10)
    assert not counters.raise_to(NEXT_PACK, 5)
    assert Counters(catalog.crash_copy(durable_only=False)).take(NEXT_PACK) == 10
