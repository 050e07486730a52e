"""The same scenarios through the native launcher and the warm process."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.launched import Launcher
from tests.runs.case import Bench, Case, Expect
from tests.runs.test_wrong_results import CASES

pytestmark = pytest.mark.kernel

ALWAYS = (
    "another content of the same size and time, renamed into place",
    "a header that shadows another",
    "a listing that gains a file",
    "a link that leads elsewhere",
    "one file becomes newer than another",
    "a search upwards",
    "a removed file, removed again",
    "names that are no text, replayed",
    "a private file where one is",
    "both streams, binary",
)
"""Of each kind one; all others where there is time."""


def _params() -> list[object]:
    assert {case.name for case in CASES} >= set(ALWAYS)
    return [
        pytest.param(case, id=case.name.replace(" ", "-"), marks=[] if case.name in ALWAYS else [pytest.mark.slow])
        for case in CASES
    ]


@pytest.mark.parametrize("case", _params())
def test_the_warm_process_gives_back_what_the_command_would_make(bench: Bench, launcher: Launcher, case: Case) -> None:
    before = launcher.python_starts
    replace(bench, driver=launcher).carry_out(case).check(case)
    # What is read from stdin is nothing for the warm process.
    if case.expect is Expect.HIT and case.stdin is None and case.stdin_then is None:
        assert launcher.python_starts == before


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case.mounted], ids=lambda case: case.name.replace(" ", "-"))
def test_the_same_holds_under_the_mount(mounted_bench: Bench, launcher: Launcher, case: Case) -> None:
    replace(mounted_bench, driver=launcher).carry_out(case).check(case)
