"""`tv` as it is installed: the native launcher, beside the Python program that it becomes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from taskvault.run.shims import LAUNCHER
from taskvault.warm.running import LOCK
from tests.cli.conftest import Vault
from tests.waiting import wait_until

PROGRAM = """
with open({calls!r}, "a") as calls:
    calls.write("x")
from taskvault.cli import main
main()
"""
PLAIN = "#!{python}"
LONG = "#!/bin/sh\n'''exec' {python} \"$0\" \"$@\"\n' '''"
SPACED = "#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''"


@dataclass(frozen=True)
class Installed:
    """A directory of programs."""

    place: Path
    vault: Vault
    workdir: Path

    def has(self, start: str = PLAIN, python: str = sys.executable) -> None:
        """Install `taskvault` with this beginning, and `tv` beside it."""
        self.place.mkdir(exist_ok=True)
        program = self.place / "taskvault"
        calls = str(self.place / "calls")
        program.write_text(start.format(python=python) + PROGRAM.format(calls=calls))
        program.chmod(0o755)
        shutil.copy(LAUNCHER, self.place / "tv")

    def tv(self, *arguments: str, program: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run it, in a directory where there is a project."""
        command = [program or self.place / "tv", *arguments]
        env = self.vault.environment(**variables)
        return subprocess.run(command, cwd=self.workdir, env=env, capture_output=True, text=True, check=False)

    def starts(self, call: Callable[[], Any]) -> int:
        """Return how often Python is started for a call."""
        before = self._starts()
        call()
        return self._starts() - before

    def _starts(self) -> int:
        calls = self.place / "calls"
        return calls.stat().st_size if calls.exists() else 0

    def becomes_native(self, *before: str, **variables: str) -> None:
        """Wait until calls start no Python."""
        call = [*before, "run", "--quiet", "--root", ".", "--", "true"]
        wait_until(lambda: self.starts(lambda: self.tv(*call, **variables)) == 0)


@pytest.fixture
def installed(vault: Vault, tmp_path: Path) -> Installed:
    (tmp_path / "project").mkdir()
    made = Installed(tmp_path / "bin", vault, tmp_path / "project")
    made.has()
    return made


def test_the_tv_of_this_environment_is_the_launcher() -> None:
    tv = Path(sys.executable).with_name("tv")
    assert tv.read_bytes() == LAUNCHER.read_bytes()


def test_runs_are_stored_and_replayed_without_python_and_all_else_is_pythons(installed: Installed) -> None:
    installed.becomes_native()
    run = ["run", "--root", ".", "--", "sh", "-c", "date +%s%N > out; echo said"]
    assert installed.starts(lambda: installed.tv(*run)) == 0
    first = (installed.workdir / "out").read_text()
    (installed.workdir / "out").unlink()
    again = installed.tv(*run)
    assert (again.returncode, again.stdout, again.stderr.startswith("tv: hit")) == (0, "said\n", True)
    assert (installed.workdir / "out").read_text() == first
    assert installed.starts(lambda: installed.tv("status")) == 1
    assert installed.tv("status").stdout.startswith("Up")
    assert installed.tv("--version").stdout == installed.vault.tv("--version").out
    assert installed.tv("nonsense").stderr == installed.vault.tv("nonsense", exit_code=2).err


def test_what_is_refreshed_runs_again_and_replaces_what_was_stored_without_python(installed: Installed) -> None:
    installed.becomes_native()
    command = ["--root", ".", "--", "sh", "-c", "date +%s%N > out"]
    out = installed.workdir / "out"

    def made(*options: str) -> str:
        out.unlink(missing_ok=True)
        assert installed.starts(lambda: installed.tv("run", *options, *command)) == 0
        return out.read_text()

    first = made()
    second = made("--refresh")
    assert first != second
    assert made() == second


def test_the_vault_may_be_named_in_every_way(installed: Installed, tmp_path: Path) -> None:
    home = str(installed.vault.home)
    (tmp_path / "user").mkdir()
    (tmp_path / "user/.taskvault").symlink_to(home)
    nowhere = str(tmp_path / "nowhere")
    for before, variables in (
        (["--home", home], {"TASKVAULT_HOME": nowhere}),
        ([f"--home={home}"], {"TASKVAULT_HOME": nowhere}),
        ([f"--home={home}/"], {"TASKVAULT_HOME": ""}),
        ([f"--home={home}/../{os.path.basename(home)}"], {}),
        ([], {"TASKVAULT_HOME": "", "HOME": str(tmp_path / "user")}),
    ):
        installed.becomes_native(*before, **variables)
        run = [*before, "run", "--root", ".", "--", "sh", "-c", "echo x > out"]
        installed.tv(*run, **variables)
        assert installed.tv(*run, **variables).stderr.startswith("tv: hit"), before
    wrong = installed.tv("--home", nowhere, "run", "--", "echo", "x")
    assert (wrong.returncode, wrong.stdout) == (0, "x\n")
    assert f"running without the vault: No daemon answers for the vault {nowhere}" in wrong.stderr


def test_for_a_vault_without_a_daemon_nothing_is_started_that_stays(installed: Installed, tmp_path: Path) -> None:
    home = str(tmp_path / "none")
    for _ in range(2):
        assert installed.starts(lambda: installed.tv("--home", home, "run", "--", "true")) == 1
    locks = Path(f"/tmp/taskvault-{os.geteuid()}").glob(f"warm-*{LOCK}")
    assert home not in [place.read_text() for place in locks]


@pytest.mark.parametrize("start", [PLAIN, LONG, SPACED], ids=["plain", "long", "spaced"])
def test_the_interpreter_is_the_one_that_the_program_beside_it_names(installed: Installed, start: str) -> None:
    installed.has(start)
    installed.becomes_native()


@pytest.mark.parametrize(
    "start",
    [
        "#!/usr/bin/env -S {python}",
        "#!{python} -s",
        "#!/bin/sh\nexec {python} - \"$@\" <<'---'",
        LONG.replace("{python}", "{python} -s"),
        SPACED.replace('{python}"', '{python}" -s'),
    ],
    ids=["env", "options", "shell", "long with options", "spaced with options"],
)
def test_a_program_that_names_no_plain_interpreter_is_called_each_time(installed: Installed, start: str) -> None:
    installed.becomes_native()
    installed.has(start)
    calls = [installed.starts(lambda: installed.tv("run", "--root", ".", "--", "true")) for _ in range(2)]
    assert calls == [1, 1]


def test_it_is_found_through_links_and_in_the_path(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "tv"
    link.symlink_to(installed.place / "tv")
    assert installed.tv("--version", program=link).returncode == 0
    path = f"{tmp_path / 'links'}:{os.environ['PATH']}"
    assert installed.tv("-c", "tv --version", program=Path("/bin/sh"), PATH=path).stdout.startswith("taskvault ")
    installed.becomes_native()
    call = ["run", "--quiet", "--root", ".", "--", "true"]
    assert installed.starts(lambda: installed.tv(*call, program=link)) == 0


def test_it_finds_itself_without_proc(installed: Installed) -> None:
    hidden = ["unshare", "--mount", "sh", "-c", f"mount -t tmpfs none /proc && exec {installed.place}/tv --version"]
    said = subprocess.run(hidden, capture_output=True, text=True, check=False, env=installed.vault.environment())
    assert (said.returncode, said.stderr) == (0, ""), said


def test_it_finds_what_it_becomes_where_it_may_not_read_itself() -> None:
    unprivileged = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        shutil.copy(LAUNCHER, place / "tv")
        (place / "tv").chmod(0o111)
        (place / "taskvault").write_text("#!/bin/sh\necho became\n")
        (place / "taskvault").chmod(0o755)
        said = subprocess.run([*unprivileged, f"{name}/tv", "status"], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout) == (0, "became\n"), said


def test_without_the_program_beside_it_says_what_is_missing(installed: Installed) -> None:
    program = installed.place / "taskvault"
    program.unlink()
    said = installed.tv("status")
    assert (said.returncode, said.stderr.count("\n")) == (127, 1)
    assert f"{program} is missing" in said.stderr
    assert "install taskvault again" in said.stderr
