"""Execution fails open: no daemon, one that hangs, one that dies, a full vault."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Vault, clean_up, kill

GENEROUS_S = 10.0
"""Far more than the 0.2 s that are promised: the machine may be busy.  What it took is printed."""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Vault]:
    """A vault of the test's own, not mounted, with the patience that users have."""
    vault = Vault(tmp_path / "home", {"TASKVAULT_PATIENCE_S": "0.15"})
    vault.tv("init", "--size", "256M")
    vault.tv("up", "--no-mount")
    pid = vault.pid
    yield vault
    clean_up(vault, pid)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "project").mkdir()
    (tmp_path / "project/in").write_text("in")
    return tmp_path / "project"


COMMAND = ["run", "--root", ".", "--input", "in", "--output", "out", "--", "sh", "-c", "cp in out; echo done; exit 5"]


def test_without_a_daemon_the_command_runs_and_one_line_says_so(tmp_path: Path, project: Path) -> None:
    vault = Vault(tmp_path / "nothing")
    began_s = time.monotonic()
    said = vault.tv(*COMMAND, cwd=project, exit_code=5)
    print(f"without a daemon: {time.monotonic() - began_s:.3f} s")
    assert said.out == "done\n"
    assert said.err.count("\n") == 1
    assert "tv up" in said.err
    assert time.monotonic() - began_s < GENEROUS_S
    assert vault.tv("run", "--quiet", *COMMAND[1:], cwd=project, exit_code=5).err == ""


def test_with_a_daemon_that_hangs_the_command_runs_soon(own: Vault, project: Path) -> None:
    pid = own.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        began_s = time.monotonic()
        said = own.tv(*COMMAND, cwd=project, exit_code=5)
        took_s = time.monotonic() - began_s
    finally:
        os.kill(pid, signal.SIGCONT)
    print(f"with a daemon that hangs: {took_s:.3f} s")
    assert said.out == "done\n"
    assert "did not answer" in said.err
    assert took_s < GENEROUS_S


def test_a_daemon_that_dies_meanwhile_changes_nothing_for_the_command(own: Vault, project: Path) -> None:
    script = f"kill -9 {own.pid}; cp in out; echo done"
    own.variables["TASKVAULT_PATIENCE_S"] = "20"
    said = own.tv("run", "--root", ".", "--input", "in", "--output", "out", "--", "sh", "-c", script, cwd=project)
    assert said.out == "done\n"
    assert "not stored: No daemon answers" in said.err
    assert (project / "out").read_text() == "in"


def test_a_full_vault_keeps_the_run_from_being_stored_only(own: Vault, project: Path) -> None:
    own.variables["TASKVAULT_PATIENCE_S"] = "20"
    script = "head -c 400000000 /dev/urandom > out; echo done"
    said = own.tv("run", "--root", ".", "--input", "in", "--output", "out", "--", "sh", "-c", script, cwd=project)
    assert said.out == "done\n"
    assert "not stored: " in said.err
    assert (project / "out").stat().st_size == 400_000_000


def test_turned_off_nothing_is_asked_or_said(own: Vault, project: Path) -> None:
    said = own.tv(*COMMAND, cwd=project, exit_code=5, env={"TASKVAULT": "off"})
    assert (said.out, said.err) == ("done\n", "")
    assert own.json("runs") == []


def test_without_a_mount_results_are_copied(own: Vault, project: Path) -> None:
    own.variables["TASKVAULT_PATIENCE_S"] = "20"
    command = ["run", "--root", ".", "--input", "in", "--output", "out", "--", "cp", "in", "out"]
    own.tv(*command, cwd=project)
    (project / "out").unlink()
    assert "hit" in own.tv(*command, cwd=project).err
    assert (project / "out").read_text() == "in"


def test_a_result_whose_content_is_gone_is_made_again(own: Vault, project: Path) -> None:
    own.variables["TASKVAULT_PATIENCE_S"] = "20"
    (project / "in").write_bytes(os.urandom(200_000))
    command = ["run", "--root", ".", "--input", "in", "--output", "out", "--", "cp", "in", "out"]
    own.tv(*command, cwd=project)
    for pack in (own.home / "packs").iterdir():
        with open(pack, "r+b") as file:
            file.seek(40 + 56 + 1000)
            file.write(b"\xff" * 150_000)
    (project / "out").unlink()
    said = own.tv(*command, cwd=project)
    assert "running again" in said.err
    assert (project / "out").read_bytes() == (project / "in").read_bytes()


def test_up_and_down_can_be_said_twice(own: Vault) -> None:
    assert "Already up" in own.tv("up").out
    assert own.json("up", "--no-mount")["started"] is False
    own.tv("up", "--mount", str(own.home.parent / "elsewhere"), exit_code=4)
    assert own.tv("down").out == "Down.\n"
    assert own.tv("down").out == "Not up.\n"
    own.tv("status", exit_code=3)


def test_a_daemon_that_hangs_is_ended_by_force(own: Vault) -> None:
    pid = own.pid
    os.kill(pid, signal.SIGSTOP)
    own.tv("status", exit_code=3)
    assert own.tv("down", "--force").out == "Down.\n"
    own.tv("up", "--no-mount")
    os.kill(own.pid, signal.SIGKILL)


def test_the_mount_of_a_daemon_that_was_killed_is_noticed_and_taken_away(own: Vault) -> None:
    own.tv("down")
    own.tv("up", "--mount", str(own.home.parent / "a b"))
    kill(own.pid)
    while "not up" not in (said := own.tv("doctor").out):
        pass
    assert f"{own.home.parent}/a b was left mounted" in said
    assert own.tv("down").out == "Not up.\n"
    assert "a\\040b" not in Path("/proc/self/mountinfo").read_text()


def test_a_vault_is_made_once(own: Vault, tmp_path: Path) -> None:
    assert "already" in own.tv("init", exit_code=5).err
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    assert "not empty" in own.tv("init", str(tmp_path / "full"), exit_code=5).err
    assert own.tv("init", str(tmp_path / "other"), "--hash", "nonsense", exit_code=5).err.startswith("tv: ")
