"""Leases and reservations: what holders were promised."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvfs.vault.leases import Leases
from tvfs.vault.reservations import Reservations, VaultFull


def test_a_chunk_is_leased_until_its_last_holder_lets_go() -> None:
    leases = Leases()
    leases.hold("a", [b"1", b"2"])
    leases.hold("a", [b"1"])
    leases.hold("b", [b"1"])
    leases.release("a")
    assert leases.is_leased(b"1")
    assert not leases.is_leased(b"2")
    leases.release("b")
    leases.release("b")
    assert not leases.is_leased(b"1")
    assert len(leases) == 0


def test_the_last_two_percent_are_never_promised() -> None:
    reservations = Reservations(1000, lambda: 100)
    reservations.reserve("a", 880)
    with pytest.raises(VaultFull):
        reservations.reserve("a", 1)
    assert reservations.reserved_bytes == 880


def test_a_refusal_says_how_much_and_what_to_do() -> None:
    reservations = Reservations(1 << 30, lambda: 1 << 29)
    with pytest.raises(VaultFull, match=r"room for 491\.5 MiB of its 1\.0 GiB and 2\.0 GiB were to be stored\."):
        reservations.reserve("a", 2 << 30)


def test_what_is_used_is_no_longer_free() -> None:
    used = 0
    reservations = Reservations(1000, lambda: used)
    assert reservations.free_bytes == 980
    used = 2000
    assert reservations.free_bytes == -1020
    with pytest.raises(VaultFull):
        reservations.reserve("a", 0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["reserve", "release", "all"]), st.integers(0, 400))))
def test_the_total_is_the_sum_of_what_holders_hold_and_never_too_much(steps: list[tuple[str, str, int]]) -> None:
    reservations = Reservations(1000, lambda: 0)
    held = dict.fromkeys("abc", 0)
    for holder, what, size_bytes in steps:
        if what == "reserve":
            try:
                reservations.reserve(holder, size_bytes)
            except VaultFull:
                assert sum(held.values()) + size_bytes > 980
            else:
                held[holder] += size_bytes
        else:
            reservations.release(holder, size_bytes if what == "release" else None)
            held[holder] = max(0, held[holder] - size_bytes) if what == "release" else 0
        assert reservations.reserved_bytes == sum(held.values()) <= 980
