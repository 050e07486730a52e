"""The store's parts against a model: contents, entries, files, reclaiming, damage, deaths, in any order.

`python -m tests.model.store_steps` takes as many steps as one wants; docs/design/model-tests.md says what is in them.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.model.planted import PLANTED
from tests.model.store_steps import STEPS, Failure, live, run_lives

SEEDS = (1, 2, 3)
STEPS_EACH = 250
MILLION, PARTS = 1_000_000, 10
"""In parts, each of which ends within the time that a slow test has."""
MOST_STEPS = 60_000
"""A planted bug that was not noticed after so many is not noticed."""


@pytest.mark.parametrize("seed", SEEDS)
def test_a_life_of_the_store_is_as_the_model_says(seed: int) -> None:
    print(f"seed {seed}")
    driver = live(seed, count=STEPS_EACH)
    assert driver.steps == STEPS_EACH
    assert driver.checks >= STEPS_EACH // 25


@settings(max_examples=8, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 1000), st.lists(st.sampled_from(STEPS), max_size=40))
def test_any_steps_in_any_order_shrunk_when_they_fail(seed: int, names: list[str]) -> None:
    live(seed, names=names, referee_every=5)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_a_million_steps_in_all(seed: int, part: int) -> None:
    total = run_lives(MILLION // PARTS, seed + part * MILLION, progress_every=10)
    print(total.report())
    assert total.steps == MILLION // PARTS


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PLANTED))
def test_a_planted_bug_is_noticed(name: str) -> None:
    with PLANTED[name].plant(), pytest.raises(Failure) as caught:
        run_lives(MOST_STEPS, 1)
    print(f"{name}: noticed at step {caught.value.total_steps}: {caught.value.cause}")
