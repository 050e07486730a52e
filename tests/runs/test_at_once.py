"""Runs that meet others: inputs that change under them, the same run twice, a leader that is killed, a lost result."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from taskvault.client import Client
from taskvault.protocol.messages import RemoveEntry
from tests.cli.conftest import Vault
from tests.launched import Launched, Launcher
from tests.runs.case import Bench
from tests.runs.driver import Said, Started
from tests.waiting import wait_until

pytestmark = pytest.mark.kernel

GATE = "echo $TMPDIR; while [ ! -e $TMPDIR/go ]; do :; done"
"""Says that it has come so far, and waits: what happens in its own directory for temporary files is no input."""


@pytest.fixture
def place(bench: Bench) -> Bench:
    bench.prepare()
    bench.shell("echo a > in; mkdir d; echo a > d/in; mkdir e; echo b > e/in; touch -d 2001-01-01 d e")
    return bench


@pytest.fixture(params=["python", "launcher"])
def either(place: Bench, launcher: Launcher, request: pytest.FixtureRequest) -> Bench:
    """The same place, for `tv` started either way: what is a miss never starts Python by the other."""
    return replace(place, driver=launcher) if request.param == "launcher" else place


def start(bench: Bench, script: str, *off: str, **more: str) -> Started | Launched:
    return bench.driver.start(
        ["run", "--scope", bench.scope, "--root", ".", "--", "sh", "-c", script],
        cwd=bench.root, environment=bench.variables(more), off=off,
    )  # fmt: skip


def scratch_of(run: Started | Launched) -> Path:
    """Wait until a run is at its gate; return its directory for temporary files."""
    wait_until(lambda: run.out_so_far().endswith(b"\n"))
    return Path(os.fsdecode(run.out_so_far().splitlines()[-1]))


def acted_upon(bench: Bench, script: str, act: str, *off: str) -> Said:
    """Act in the middle of a run; return what became of it."""
    run = start(bench, script, *off)
    scratch = scratch_of(run)
    bench.shell(act)
    (scratch / "go").touch()
    return run.wait()


MEANWHILE = {
    "rewritten": ("cat in > out", "echo b > in"),
    "replaced by an older file": ("cat in > out", "echo b > new; touch -d 2001-01-01 new; mv new in"),
    "its directory replaced": ("cat d/in > out", "mv d f; mv e d"),
    "removed": ("cat in > out", "rm in"),
    "listed": ("echo d/* > out", "touch d/more"),
    "given a mode": ("test -r in; cat in > out", "chmod 600 in"),
}


@pytest.mark.parametrize("what", MEANWHILE)
def test_what_changes_while_the_command_runs_is_not_stored(either: Bench, what: str) -> None:
    script, act = MEANWHILE[what]
    said = acted_upon(either, f"{script}; {GATE}", act)
    assert "not stored" in said.report
    assert "while the command ran" in said.report or "is gone" in said.report


@pytest.mark.parametrize(("what", "rule"), [("rewritten", "steady"), ("its directory replaced", "directories")])
def test_without_its_rule_the_new_content_would_get_the_old_result(place: Bench, what: str, rule: str) -> None:
    script, act = MEANWHILE[what]
    assert acted_upon(place, f"{script}; {GATE}", act, rule).is_stored
    assert start(place, f"{script}; {GATE}").wait().is_hit
    assert (place.root / "out").read_text() == "a\n"


def test_a_file_that_appears_where_one_was_looked_for_is_what_the_next_run_sees(place: Bench) -> None:
    script = f"cat none > out 2>/dev/null || :; {GATE}"
    assert "not stored" in acted_upon(place, script, "echo b > none").report


def test_of_the_same_runs_at_once_one_executes_and_the_others_wait(either: Bench) -> None:
    script = f"echo $$ > out; {GATE}"
    leader = start(either, script)
    scratch = scratch_of(leader)
    others = [start(either, script) for _ in range(2)]
    for other in others:
        wait_until(lambda other=other: b"waiting for process" in other.err_so_far())
    (scratch / "go").touch()
    assert leader.wait().is_stored
    assert [other.wait().is_hit for other in others] == [True, True]


def test_a_leader_that_is_killed_hands_over(either: Bench) -> None:
    script = f"echo x > out; {GATE}"
    leader = start(either, script)
    scratch_of(leader)
    other = start(either, script)
    wait_until(lambda: b"waiting for process" in other.err_so_far())
    os.kill(leader.pid, signal.SIGKILL)
    assert leader.wait().status == -signal.SIGKILL
    scratch = scratch_of(other)
    (scratch / "go").touch()
    assert other.wait().is_stored
    assert (either.root / "out").read_text() == "x\n"


def test_who_was_killed_while_it_waited_gets_nothing_any_more(either: Bench) -> None:
    script = f"cat in > out; {GATE}"
    leader = start(either, script)
    scratch = scratch_of(leader)
    made = (either.root / "out").stat().st_ino
    other = start(either, script)
    wait_until(lambda: b"waiting for process" in other.err_so_far())
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    (scratch / "go").touch()
    assert leader.wait().is_stored
    wait_until(lambda: not is_anybody_in(either.root))
    assert (either.root / "out").stat().st_ino == made


def is_anybody_in(directory: Path) -> bool:
    for place in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):
            if place.readlink() == directory:
                return True
    return False


def test_the_same_in_another_scope_waits_for_nobody_and_has_a_directory_of_its_own(either: Bench) -> None:
    script = f"{GATE}; echo x > $TMPDIR/x; cat in > out"
    first = start(either, script)
    scratch = scratch_of(first)
    other = start(replace(either, scope=f"{either.scope}-other"), script)
    others = scratch_of(other)
    assert others != scratch
    (others / "go").touch()
    assert other.wait().is_stored
    (scratch / "go").touch()
    said = first.wait()
    assert (said.status, said.err.count(b"No such file")) == (0, 0)


def test_what_python_must_judge_is_not_replayed_by_another_that_waited_for_it(place: Bench, launcher: Launcher) -> None:
    script = f"cat /proc/self/cgroup > out; {GATE}"
    launched = replace(place, driver=launcher)
    leader = start(launched, script, TASKVAULT_WARM="off")
    scratch = scratch_of(leader)
    before = launcher.python_starts
    other = start(launched, script)
    wait_until(lambda: b"waiting for process" in other.err_so_far())
    (scratch / "go").touch()
    assert leader.wait().is_stored
    wait_until(lambda: b"tv: hit" in other.err_so_far() or other.out_so_far() != b"")
    assert launcher.python_starts == before + 1
    assert other.wait().is_hit


def test_a_signal_is_for_the_command_and_its_status_is_ours(either: Bench) -> None:
    run = start(either, f"trap 'echo stopped; exit 7' TERM; {GATE}")
    scratch_of(run)
    os.kill(run.pid, signal.SIGTERM)
    said = run.wait()
    assert (said.status, said.out.splitlines()[-1]) == (7, b"stopped")
    assert "not stored" in said.report


def test_a_result_that_was_removed_is_made_again(place: Bench, vault: Vault) -> None:
    assert start(place, "cat in > out").wait().is_stored
    with Client.connect(vault.home, timeout_s=20) as client:
        run = next(run for run in vault.json("runs", "--limit", "50") if run["scope"] == place.scope)
        client.call(RemoveEntry(place.scope, run["key"]))
    assert start(place, "cat in > out").wait().is_stored
    assert start(place, "cat in > out").wait().is_hit


def test_a_replay_that_fails_half_way_leaves_all_as_it_was_and_runs(place: Bench) -> None:
    script = "mkdir -p b; echo new > a; echo new > b/x; echo new > c"
    assert start(place, script).wait().is_stored
    place.shell("echo old > a; echo old > b/x; rm c; mkdir f; ln -f b/x f/other")
    said = start(place, script).wait()
    assert not said.is_hit
    assert (place.root / "f/other").read_text() == "new\n", "it was written into, as without us"
