"""Runs inside a run that find their results: the run around them is stored all the same."""

from __future__ import annotations

import sys

import pytest

from tests.runs.case import Bench
from tests.runs.driver import Said

pytestmark = pytest.mark.kernel

BEFORE = {"nothing is": "rm out", "another file is": "rm out; echo old > out"}


@pytest.fixture(params=["disk", "mount"])
def place(request: pytest.FixtureRequest) -> Bench:
    made: Bench = request.getfixturevalue("bench" if request.param == "disk" else "mounted_bench")
    made.prepare()
    made.shell("echo a > in")
    return made


def run(bench: Bench, script: str) -> Said:
    arguments = ["run", "--scope", bench.scope, "--root", ".", "--", "sh", "-c", script]
    return bench.driver.start(arguments, cwd=bench.root, environment=bench.variables({})).wait()


@pytest.mark.parametrize("there", BEFORE)
def test_a_run_around_one_that_is_replayed_is_stored(place: Bench, there: str) -> None:
    inner = f"{sys.executable} -m taskvault run --scope {place.scope} --root . -- sh -c 'cat in > out'"
    place.shell(inner)
    place.shell(BEFORE[there])
    around = run(place, f"{inner}; cat out > other")
    assert b"tv: hit" in around.err
    assert around.is_stored, around.report
    place.shell(f"{BEFORE[there]}; rm other")
    again = run(place, f"{inner}; cat out > other")
    assert again.is_hit, again.report
    assert [(place.root / name).read_text() for name in ("out", "other")] == ["a\n", "a\n"]
    assert sorted(path.name for path in place.root.iterdir()) == ["in", "other", "out"]


def test_a_run_that_asks_the_vault_for_what_may_change_is_not_stored(place: Bench) -> None:
    tv = f"{sys.executable} -m taskvault"
    place.shell(f"{tv} cache save --scope {place.scope} key in")
    around = run(place, f"{tv} cache get --scope {place.scope} key --to {place.root}/out >/dev/null; cat out/in")
    assert around.out == b"a\n", around
    assert "not stored: it talked to" in around.report


def test_what_a_run_asks_for_is_not_what_the_command_asks_for_that_it_becomes(place: Bench) -> None:
    notes = place.base / "notes"
    notes.mkdir()
    arguments = ["run", "--scope", place.scope, "--root", ".", "--", "nowhere"]
    environment = place.variables({"TASKVAULT_RUN": str(notes)})
    assert place.driver.start(arguments, cwd=place.root, environment=environment).wait().status == 127
    assert list(notes.iterdir()) == []
