from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tvfs.filesystem.lookups import LookupCounts
from tvfs.filesystem.model import Ino
from tvfs.filesystem.recent import Recent

numbers = st.integers(0, 20_000)


@given(st.lists(st.tuples(st.booleans(), numbers, st.integers(1, 3))), numbers, numbers)
def test_counts_agree_with_a_plain_dictionary(steps: list[tuple[bool, int, int]], first: int, length: int) -> None:
    counts, model = LookupCounts(), dict[int, int]()
    for add, ino, n in steps:
        if add:
            counts.add(Ino(ino), n)
            model[ino] = model.get(ino, 0) + n
        else:
            left = model.pop(ino, 0) - n
            assert counts.drop(Ino(ino), n) == (ino in model or (left <= 0 and left + n > 0))
            if left > 0:
                model[ino] = left
    assert all(counts.holds(Ino(ino)) == (ino in model) for ino in range(0, 20_000, 7))
    assert counts.holds_any(first, first + length) == any(first <= ino < first + length for ino in model)


@given(st.lists(st.tuples(st.sampled_from(["put", "get", "drop"]), st.integers(0, 20))))
def test_what_is_remembered_is_right_and_bounded(steps: list[tuple[str, int]]) -> None:
    recent: Recent[int] = Recent(8)
    model: dict[int, int] = {}
    for at, (step, key) in enumerate(steps):
        if step == "put":
            recent.put(key, at)
            model[key] = at
        elif step == "drop":
            recent.drop(key)
            model.pop(key, None)
        found = recent.get(key)
        assert found is None or found == model[key]
        assert key not in model or step == "get" or found == model[key]
        assert len(recent._young) + len(recent._old) <= 8
