"""Random lives of a filesystem beside its model, from a seed; docs/design/posix.md says what is in them."""

from __future__ import annotations

import pytest

from tests.model.filesystem_planted import PLANTED
from tests.model.filesystem_steps import Failure, live, run_lives

SEEDS = (1, 2, 3)
STEPS_EACH = 400
MILLION, PARTS = 1_000_000, 5
"""In parts, each of which ends within the time that a slow test has."""
MOST_STEPS = 60_000
"""A planted bug that was not noticed after so many is not noticed."""


@pytest.mark.parametrize("seed", SEEDS)
def test_a_life_of_a_filesystem_is_as_the_model_says(seed: int) -> None:
    print(f"seed {seed}")
    assert sum(live(seed, STEPS_EACH).mix.values()) == STEPS_EACH


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_a_million_steps_of_filesystems_in_all(seed: int, part: int) -> None:
    mix, happened = run_lives(MILLION // PARTS, seed + part * MILLION, progress_every=20)
    print(dict(mix), dict(happened))
    assert sum(mix.values()) == MILLION // PARTS


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PLANTED))
def test_a_planted_bug_of_a_filesystem_is_noticed(name: str) -> None:
    with PLANTED[name].plant(), pytest.raises(Failure) as caught:
        run_lives(MOST_STEPS, 1)
    print(f"{name}: noticed at step {caught.value.steps} of its life: {caught.value}")
