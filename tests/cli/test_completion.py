"""`tv completion`: scripts that shells can read, and what they offer, asked by a real bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Vault

pytestmark = pytest.mark.kernel


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A directory with `tv` and `taskvault`, as an installation has them."""
    place = tmp_path / "bin"
    place.mkdir()
    for name in ("tv", "taskvault"):
        (place / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m taskvault "$@"\n')
        (place / name).chmod(0o755)
    return place


def offered(vault: Vault, programs: Path, *words: str, program: str = "tv", cwd: Path | None = None) -> list[str]:
    """Return what bash would offer for the last of the words."""
    script = (
        'eval "$(tv completion bash)"\n'
        'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()\n'
        'specification=$(complete -p "$1"); specification=${specification##*-F }; "${specification%% *}" "$1"\n'
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    environment = vault.environment(PATH=f"{programs}:{os.environ['PATH']}")
    done = subprocess.run(
        ["bash", "-c", script, "bash", program, *words], env=environment, cwd=cwd or programs, capture_output=True,
        text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands_and_options(vault: Vault, programs: Path) -> None:
    assert offered(vault, programs, "sta") == ["status", "stats"]
    assert offered(vault, programs, "cache", "s") == ["save", "show"]
    assert "--interval" in offered(vault, programs, "top", "--i")
    assert offered(vault, programs, "co", program="taskvault") == ["config", "completion"]
    assert offered(vault, programs, "completion", "") == ["bash", "zsh", "fish"]


def test_bash_completes_the_keys_of_a_running_daemon(vault: Vault, programs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for key in ("complete-a", "complete-b", "complete"):
        vault.tv("cache", "save", key, "file", cwd=tmp_path)
    vault.tv("cache", "save", "complete-elsewhere", "file", "--scope", "scoped/x", cwd=tmp_path)
    assert offered(vault, programs, "cache", "get", "complete") == ["complete", "complete-a", "complete-b"]
    assert offered(vault, programs, "cache", "rm", "complete-a", "complete-b") == ["complete-b"]
    assert offered(vault, programs, "cache", "get", "--scope", "scoped/x", "comp") == ["complete-elsewhere"]
    assert offered(vault, programs, "cache", "ls", "--scope", "sco") == ["scoped/x"]


def test_bash_completes_the_names_of_snapshots(vault: Vault, programs: Path, work: Path) -> None:
    vault.tv("snapshot", str(work), "completed-snapshot")
    assert offered(vault, programs, "attach", "completed-s") == ["completed-snapshot"]


def test_without_a_daemon_completion_is_quick_and_silent(programs: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    assert offered(Vault(tmp_path / "nowhere"), programs, "cache", "get", "") == []
    assert time.monotonic() - began < 10
    assert "save" in offered(Vault(tmp_path / "nowhere"), programs, "cache", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_names_both_programs_and_its_shell_can_read_it(vault: Vault, tmp_path: Path, shell: str) -> None:
    script = vault.tv("completion", shell).out
    assert "_TV_COMPLETE" in script
    assert "taskvault" in script
    if shutil.which(shell) is not None:
        (tmp_path / "script").write_text(script)
        subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


def test_an_unknown_shell_is_a_usage_error(vault: Vault) -> None:
    assert "tcsh" in vault.tv("completion", "tcsh", exit_code=2).err
