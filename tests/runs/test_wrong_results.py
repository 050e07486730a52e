"""Scenarios in which a naive cache would give a wrong result, and for each rule, that without it they go wrong."""

from __future__ import annotations

import pytest

from tests.runs.case import Bench, Case
from tests.runs.cases_content import CONTENT
from tests.runs.cases_names import NAMES
from tests.runs.cases_outputs import OUTPUTS
from tests.runs.cases_start import START
from tests.runs.rules_off import SWITCHES

pytestmark = pytest.mark.kernel

CASES = (*CONTENT, *NAMES, *START, *OUTPUTS)
GUARDED = [(rule, case) for case in CASES for rule in case.guards]


def _named(value: object) -> str:
    return value.name.replace(" ", "-") if isinstance(value, Case) else str(value).replace(" ", "-")


def _first_quick() -> list[object]:
    """Return what proves a rule: its first case always, the others where there is time."""
    known: set[str] = set()
    proofs: list[object] = []
    for rule, case in GUARDED:
        proofs.append(pytest.param(rule, case, marks=[pytest.mark.slow] if rule in known else []))
        known.add(rule)
    return proofs


def _alone() -> list[object]:
    """Return those whose rule is proved elsewhere only where there is time, and all others."""
    proved = {case.name for _, case in GUARDED}
    return [
        pytest.param(case, marks=[pytest.mark.slow] if case.name in proved and n % 2 else [])
        for n, case in enumerate(CASES)
    ]


def _under_the_mount() -> list[object]:
    """Return those that are tried there too: each third always, the others where there is time."""
    mounted = [case for case in CASES if case.mounted]
    return [pytest.param(case, marks=[pytest.mark.slow] if n % 3 else []) for n, case in enumerate(mounted)]


@pytest.mark.parametrize("case", _alone(), ids=_named)
def test_what_is_given_back_is_what_the_command_would_make(bench: Bench, case: Case) -> None:
    bench.carry_out(case).check(case)


@pytest.mark.parametrize("case", _under_the_mount(), ids=_named)
def test_the_same_holds_under_the_mount(mounted_bench: Bench, case: Case) -> None:
    mounted_bench.carry_out(case).check(case)


@pytest.mark.parametrize(("rule", "case"), _first_quick(), ids=_named)
def test_without_its_rule_it_goes_wrong(bench: Bench, rule: str, case: Case) -> None:
    told = bench.carry_out(case, off=rule.split("+"))
    assert told.is_wrong(case.expect), told


def test_every_case_has_a_name_of_its_own_and_every_guard_is_a_rule() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 60
    # Two are proved in test_at_once.py.
    assert {each for rule, _ in GUARDED for each in rule.split("+")} | {"steady", "directories"} == set(SWITCHES)
