"""A replay that is killed: what it has put together goes with the next that happens in its root."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs.case import Bench
from tests.runs.driver import Said

pytestmark = pytest.mark.kernel

KILLED = """
import sys
from tvfs import failpoints
failpoints.arm_from("replay.prepared=kill")
from taskvault.cli.application import run
sys.exit(run(sys.argv[1:]))
"""

SCRIPTS = {"a file": "cat in > out", "a tree": "mkdir made; cat in > made/one; cat in > made/two; cat in > out"}


@pytest.fixture
def place(bench: Bench) -> Bench:
    bench.prepare()
    bench.shell("echo a > in")
    return bench


def arguments(bench: Bench, script: str) -> list[str]:
    return ["run", "--scope", bench.scope, "--root", ".", "--", "sh", "-c", script]


def kill_a_replay(bench: Bench, script: str) -> None:
    """Store a run, remove what it made, and kill its replay before anything is in place."""
    assert run(bench, script).is_stored
    bench.shell("rm -rf out made")
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments(bench, script)],
        cwd=bench.root, env=bench.variables({}), capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    (left,) = left_in(bench.root)
    assert left.startswith(".taskvault-replay-")


def run(bench: Bench, script: str) -> Said:
    return bench.driver.start(arguments(bench, script), cwd=bench.root, environment=bench.variables({})).wait()


def left_in(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.name not in ("in", "out", "made"))


@pytest.mark.parametrize("what", SCRIPTS)
def test_the_next_replay_in_the_root_removes_what_it_left(place: Bench, what: str) -> None:
    kill_a_replay(place, SCRIPTS[what])
    assert run(place, SCRIPTS[what]).is_hit
    assert left_in(place.root) == []
    assert (place.root / "out").read_text() == "a\n"


def test_the_next_run_in_the_root_removes_it_before_anybody_can_list_it(place: Bench) -> None:
    kill_a_replay(place, SCRIPTS["a file"])
    listed = run(place, "ls -A")
    assert listed.out == b"in\n"
    assert left_in(place.root) == []
