"""What is refreshed replaces what was stored before, whatever it looks at and whatever becomes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Vault
from tests.launched import Launcher
from tests.runs.driver import Said
from tests.waiting import wait_until

Run = Callable[..., Said]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    made = tmp_path / "project"
    made.mkdir()
    for name in ("a", "b"):
        (made / name).write_text(f"{name}\n")
    return made


@pytest.fixture
def witness() -> Iterator[subprocess.Popen[bytes]]:
    """A process: whether it lives, a command can see without our seeing that it looked."""
    process = subprocess.Popen(["sleep", "1000"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture(params=["launcher", "python"])
def tv(request: pytest.FixtureRequest, vault: Vault, project: Path, tmp_path: Path) -> Run:
    launcher = Launcher(tmp_path / "launcher", [])
    if request.param == "launcher":
        launcher.warm_up(tmp_path, vault.environment())

    def run(script: str, *options: str) -> Said:
        (project / "out").unlink(missing_ok=True)
        env = vault.environment(**({"TASKVAULT_WARM": "off"} if request.param == "python" else {}))
        arguments = ["run", "--root", ".", "--scope", tmp_path.name, *options, "--", "sh", "-c", script]
        return launcher.start(arguments, cwd=project, environment=env).wait()

    return run


def chosen(witness: subprocess.Popen[bytes], lives: str = "cat a > out", else_: str = "cat b > out") -> str:
    return f"if kill -0 {witness.pid} 2>/dev/null; then {lives}; else {else_}; fi"


def end(witness: subprocess.Popen[bytes]) -> None:
    witness.kill()
    witness.wait()


def test_the_result_of_a_refresh_is_replayed_though_it_looked_at_other_files(
    tv: Run, project: Path, witness: subprocess.Popen[bytes]
) -> None:
    script = chosen(witness)
    assert tv(script).is_stored
    for _ in range(3):
        assert tv(script).is_hit
    assert (project / "out").read_text() == "a\n"
    end(witness)
    assert tv(script, "--refresh").is_stored
    for _ in range(3):
        assert tv(script).is_hit
        assert (project / "out").read_text() == "b\n"
    (project / "b").write_text("changed\n")
    assert tv(script).is_stored, "what was stored before the refresh is as good as ever, and not wanted"
    assert (project / "out").read_text() == "changed\n"


def test_a_refresh_that_fails_leaves_nothing_to_be_replayed(
    tv: Run, project: Path, witness: subprocess.Popen[bytes]
) -> None:
    script = chosen(witness, else_="exit 3")
    assert tv(script).is_stored
    assert tv(script).is_hit
    end(witness)
    assert tv(script, "--refresh").status == 3
    again = tv(script)
    assert (again.status, again.is_hit) == (3, False)


def test_a_refresh_that_is_killed_leaves_nothing_to_be_replayed(
    tv: Run, vault: Vault, project: Path, witness: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "gate")
    script = chosen(witness, else_=f"read -r _ < {tmp_path}/gate; cat b > out")
    assert tv(script).is_stored
    end(witness)
    options = ["--root", ".", "--scope", tmp_path.name, "--refresh"]
    command = [sys.executable, "-m", "taskvault", "run", *options, "--", "sh", "-c", script]
    killed = subprocess.Popen(command, cwd=project, env=vault.environment(), start_new_session=True)
    gate = os.open(tmp_path / "gate", os.O_WRONLY)  # as soon as the command reads it
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    os.close(gate)
    (tmp_path / "gate").unlink()
    os.mkfifo(tmp_path / "gate")
    opened = os.open(tmp_path / "gate", os.O_RDWR)
    os.write(opened, b"go\n")
    assert not tv(script).is_hit
    os.close(opened)
    assert (project / "out").read_text() == "b\n"


def test_a_declared_run_that_fails_when_it_is_refreshed_is_not_replayed(
    tv: Run, project: Path, witness: subprocess.Popen[bytes]
) -> None:
    script, declared = chosen(witness, else_="exit 3"), ("--input", "a", "--output", "out")
    assert tv(script, *declared).is_stored
    assert tv(script, *declared).is_hit
    end(witness)
    assert tv(script, *declared, "--refresh").status == 3
    assert tv(script, *declared).status == 3


def test_a_refresh_that_is_to_store_nothing_takes_nothing_away(tv: Run, project: Path) -> None:
    script = "cat a > out"
    assert tv(script).is_stored
    assert tv(script, "--refresh", "--no-store").status == 0
    assert tv(script).is_hit


def test_a_result_of_other_inputs_is_kept(tv: Run, project: Path) -> None:
    script = "cat a > out"
    assert tv(script).is_stored
    (project / "a").write_text("other\n")
    assert tv(script).is_stored
    assert tv(script, "--refresh").is_stored
    (project / "a").write_text("a\n")
    assert tv(script).is_hit


def test_what_looks_at_its_own_entries_in_proc_is_refreshed(
    tv: Run, project: Path, witness: subprocess.Popen[bytes]
) -> None:
    look = "cat /proc/self/cgroup > /dev/null;"
    script = f"{look} {chosen(witness)}"
    wait_until(lambda: tv(script).is_hit)
    assert (project / "out").read_text() == "a\n"
    end(witness)
    tv(script, "--refresh")
    assert (project / "out").read_text() == "b\n"
    tv(script)
    assert (project / "out").read_text() == "b\n"


def test_what_looks_there_for_the_first_time_when_it_is_refreshed_is_not_replayed_as_it_was(
    tv: Run, project: Path, witness: subprocess.Popen[bytes]
) -> None:
    script = chosen(witness, else_="cat /proc/self/cgroup > /dev/null; cat b > out")
    assert tv(script).is_stored
    end(witness)
    tv(script, "--refresh")
    tv(script)
    assert (project / "out").read_text() == "b\n"


def test_a_refresh_inside_of_another_run_replaces_too(
    vault: Vault, project: Path, witness: subprocess.Popen[bytes]
) -> None:
    script = chosen(witness)
    inner = ["run", "--root", ".", "--", "sh", "-c", script]
    vault.tv(*inner, cwd=project)
    end(witness)
    again = [inner[0], "--refresh", *inner[1:]]
    vault.tv("run", "--root", ".", "--", sys.executable, "-m", "taskvault", *again, cwd=project)
    assert (project / "out").read_text() == "b\n"
    (project / "out").unlink()
    said = vault.tv(*inner, cwd=project)
    assert (project / "out").read_text() == "b\n"
    assert "hit" in said.err
    (project / "b").write_text("changed\n")
    vault.tv(*inner, cwd=project)
    assert (project / "out").read_text() == "changed\n"
