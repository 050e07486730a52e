"""`tv audit runs` and what it marks: results that do not come out the same again are not used any more."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Said, Vault
from tests.waiting import wait_until

pytestmark = pytest.mark.kernel

STEADY = "cat in > out; echo said"
UNSTEADY = "date +%s%N > out"


class Project:
    """A directory in which traced runs are made and audited."""

    def __init__(self, vault: Vault, place: Path) -> None:
        self.vault, self.place = vault, place
        (place / "in").write_text("content\n")

    def run(self, script: str, *options: str, exit_code: int = 0, **env: str) -> Said:
        command = ["run", "--root", ".", *options, "--", "sh", "-c", script]
        return self.vault.tv(*command, cwd=self.place, exit_code=exit_code, env=env)

    @property
    def latest(self) -> str:
        number: str = self.vault.json("why", cwd=self.place)["run"]["run"]
        return number

    def audit(self, run: str, *, exit_code: int = 0) -> Said:
        return self.vault.tv("audit", "runs", "--run", run, exit_code=exit_code)

    def state(self) -> dict[str, Any]:
        """Everything that the file system tells of what is there."""
        found = {}
        for path in sorted([self.place, *self.place.rglob("*")]):
            status = path.lstat()
            content = path.read_bytes() if path.is_file() else b""
            found[str(path)] = (status.st_mode, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, content)
        return found


@pytest.fixture
def project(vault: Vault, place: Path) -> Project:
    return Project(vault, place)


@pytest.fixture
def on_disk(vault: Vault, tmp_path: Path) -> Project:
    return Project(vault, tmp_path)


def test_a_run_that_writes_the_time_is_not_used_any_more_until_somebody_insists(on_disk: Project) -> None:
    on_disk.run(UNSTEADY)
    run = on_disk.latest
    before = on_disk.state()
    audited = on_disk.audit(run, exit_code=1)
    assert f"run {run}: " in audited.out
    assert "out differs at byte" in audited.out
    assert on_disk.state() == before, "an audit changed the tree"
    assert "its result is not used: run" in on_disk.vault.tv("why", run).out

    again = on_disk.run(UNSTEADY)
    assert "not stored: it does not make the same each time: out differs at byte" in again.err
    assert "does not make the same each time" in on_disk.vault.tv("why", cwd=on_disk.place).out
    checked = on_disk.run(UNSTEADY, "--check", exit_code=1)
    assert f"run {run} did not make the same" in checked.err

    assert "stored" in on_disk.run(UNSTEADY, "--refresh").err
    assert "hit" in on_disk.run(UNSTEADY).err
    actions = [record["action"] for record in on_disk.vault.json("audit", "--limit", "20")]
    assert "mark" in actions
    assert "unmark" in actions


def test_a_run_that_filled_a_cache_is_not_used_any_more_with_the_cache_and_without(on_disk: Project) -> None:
    home = on_disk.place / "home"
    (home / ".cache").mkdir(parents=True)
    project = on_disk.place / "project"
    project.mkdir()
    filling = Project(on_disk.vault, project)
    script = f"test -e ~/.cache/kept || echo kept > ~/.cache/kept; {UNSTEADY}"
    filling.run(script, HOME=str(home))
    assert "hit" in filling.run(script, HOME=str(home)).err
    assert "out differs" in filling.audit(filling.latest, exit_code=1).out
    assert "does not make the same" in filling.run(script, HOME=str(home)).err
    (home / ".cache" / "kept").unlink()
    assert "does not make the same" in filling.run(script, HOME=str(home)).err


def test_a_steady_run_stays_in_use_and_leaves_the_tree_as_it_was(project: Project) -> None:
    project.run(STEADY)
    before = project.state()
    answer = project.vault.json("audit", "runs", "--run", project.latest)
    assert [each["verdict"] for each in answer["repeated"]] == ["same"], str(answer)
    assert project.state() == before
    assert project.run(STEADY).err.startswith("tv: hit")


def test_a_run_that_needs_its_outputs_gone_is_repeated_without_them(on_disk: Project) -> None:
    script = "mkdir made && cp in made/copy"
    on_disk.run(script)
    before = on_disk.state()
    answer = on_disk.vault.json("audit", "runs", "--run", on_disk.latest)
    assert [each["verdict"] for each in answer["repeated"]] == ["same"], str(answer)
    assert on_disk.state() == before


@pytest.mark.slow
def test_what_fails_when_it_is_repeated_is_not_used_any_more(on_disk: Project) -> None:
    (on_disk.place / ".taskvault.toml").write_text('[run]\nignored_paths = ["hold"]\n')
    on_disk.run("cat in > out; test ! -e hold")
    (on_disk.place / "hold").touch()
    assert "exit status 1" in on_disk.audit(on_disk.latest, exit_code=1).out


@pytest.mark.slow
def test_what_cannot_be_repeated_is_skipped_and_said(on_disk: Project) -> None:
    on_disk.run(STEADY)
    run = on_disk.latest
    (on_disk.place / "in").write_text("changed\n")
    assert "Skipped 1: what it looks at has changed." in on_disk.audit(run).out
    on_disk.run(STEADY, SOME_TOKEN="secret")
    assert "Skipped 1: a variable that counts is a secret" in on_disk.audit(on_disk.latest).out
    assert on_disk.vault.tv("audit", "runs", "--run", on_disk.latest, env={"SOME_TOKEN": "secret"}).out.startswith(
        "Repeated 1 runs: 0 did not"
    )
    assert on_disk.run(STEADY, SOME_TOKEN="secret").err.startswith("tv: hit")


@pytest.mark.slow
def test_reports_of_runs_inside_do_not_make_a_run_another(on_disk: Project) -> None:
    tv = f"{sys.executable} -m taskvault"
    on_disk.run(f"{tv} run --root . -- cp in out; cat out > other")
    outer = on_disk.vault.json("runs", "--limit", "2")
    run = next(each["run"] for each in outer if each["command"][0] == "sh")
    answer = on_disk.vault.json("audit", "runs", "--run", run)
    assert [each["verdict"] for each in answer["repeated"]] == ["same"], str(answer)


def test_after_a_hit_that_is_to_be_audited_the_caller_waits_for_nothing(on_disk: Project) -> None:
    (on_disk.place / ".taskvault.toml").write_text("[run]\naudit_every = 1\n")
    script = f"{UNSTEADY}.of-its-own"  # the vault is that of other tests too
    on_disk.run(script)
    assert on_disk.run(script, TASKVAULT_AUDIT="0").err.startswith("tv: hit")
    assert on_disk.run(script).err.startswith("tv: hit")
    wait_until(lambda: on_disk.vault.json("why", on_disk.latest)["unsteady"] is not None)
    assert "does not make the same" in on_disk.run(script).err


def test_nobody_waits_for_an_audit_after_a_hit_and_a_killed_one_leaves_nothing(on_disk: Project) -> None:
    (on_disk.place / ".taskvault.toml").write_text('[run]\nignored_paths = ["hold"]\n')
    blocker = f"600.{os.getpid()}"
    script = f"test ! -e hold || sleep {blocker}; cat in > out"
    on_disk.run(script)
    (on_disk.place / "hold").touch()
    # Whoever held its streams would keep us waiting for the command that sleeps.
    assert on_disk.run(script, TASKVAULT_AUDIT="1").err.startswith("tv: hit")
    wait_until(lambda: any(f"sleep {blocker}" == line.strip() for line in running().values()))
    asked = f"--home {on_disk.vault.home} audit runs --run {on_disk.latest}"
    ours = {pid for pid, line in running().items() if asked in line}
    (auditing,) = (pid for pid in ours if parent_of(pid) not in ours)
    assert Path(f"/proc/{auditing}/cwd").readlink() == Path("/")
    os.kill(int(auditing), signal.SIGKILL)
    wait_until(lambda: not any(blocker in line for line in running().values()))
    assert str(on_disk.place) not in mounted()


def running() -> dict[str, str]:
    return {place.name: read(place / "cmdline").replace("\0", " ") for place in Path("/proc").glob("[0-9]*")}


def parent_of(pid: str) -> str:
    return read(Path("/proc", pid, "stat")).rpartition(")")[2].split()[1]


def mounted() -> str:
    return "\n".join(read(process / "mountinfo") for process in Path("/proc").glob("[0-9]*"))


def read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
