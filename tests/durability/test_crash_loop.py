"""The crash loop, in short; the long proof is `python -m tests.durability.crash_loop`."""

from __future__ import annotations

import pytest

from tests.durability.crash_loop import loop
from tests.durability.ledger import Line

pytestmark = pytest.mark.kernel


def test_a_daemon_that_is_killed_under_load_loses_nothing_and_tv_up_alone_mends_it(seed: int) -> None:
    with loop(seed) as made:
        made.run(2)
    assert len(made.rounds) == 2
    assert made.ledger.promises > 0
    assert made.wrong == []


@pytest.mark.slow
def test_a_fact_that_is_not_so_is_noticed(seed: int) -> None:
    with loop(seed) as made:
        made.ledger.note(Line(True, {"work/never written": b"content"}))
        made.run(1)
    assert any("never written" in sentence for sentence in made.wrong)
