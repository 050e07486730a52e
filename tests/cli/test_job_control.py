"""A command has the terminal of its caller: it is stopped and goes on with `tv`, as a job of the caller's shell."""

from __future__ import annotations

import os
import pty
import re
import select
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Vault
from tests.launched import Launcher

PATIENCE_S = 60.0
PROMPT = "READY> "


class Shell:
    """An interactive shell with a terminal of its own."""

    def __init__(self, environment: dict[str, str], workdir: Path) -> None:
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            os.chdir(workdir)
            os.execvpe("sh", ["sh", "-i"], {**environment, "PS1": PROMPT, "ENV": ""})
        self._said = ""
        self.until(PROMPT)

    def types(self, text: str, expected: str) -> str:
        """Type something; return what is shown up to what is expected, a pattern."""
        os.write(self._terminal, text.encode())
        return self.until(expected)

    def until(self, expected: str) -> str:
        """Return what is shown up to what is expected."""
        while (found := re.search(expected, self._said, re.DOTALL)) is None:
            ready, _, _ = select.select([self._terminal], [], [], PATIENCE_S)
            assert ready, f"{expected!r} is not shown: {self._said!r}"
            self._said += os.read(self._terminal, 65_536).decode(errors="replace")
        shown, self._said = self._said[: found.end()], self._said[found.end() :]
        return shown

    def until_stopped(self) -> None:
        """Return when its job is stopped."""
        while "Stopped" not in self.types("jobs; echo jo''bs\n", f"jobs\r\n.*?{PROMPT}"):
            pass

    def close(self) -> None:
        os.close(self._terminal)
        os.waitpid(self._pid, 0)


@pytest.fixture(params=["launcher", "python"])
def run(request: pytest.FixtureRequest, vault: Vault, tmp_path: Path) -> Iterator[str]:
    """A command line of `tv run`."""
    if request.param == "python":
        yield f"{sys.executable} -m taskvault run --root . --"
        return
    launcher = Launcher(tmp_path / "launcher", [])
    launcher.warm_up(tmp_path, vault.environment())
    before = launcher.python_starts
    yield f"{launcher.directory}/tv run --root . --"
    assert launcher.python_starts == before


@pytest.fixture
def shell(vault: Vault, tmp_path: Path, run: str) -> Iterator[Shell]:
    (tmp_path / "project").mkdir()
    made = Shell(vault.environment(), tmp_path / "project")
    yield made
    made.close()


def test_a_command_that_is_stopped_and_continued_comes_to_its_end(run: str, shell: Shell) -> None:
    shell.types(f"{run} sh -c 'echo be''gun; read a </dev/tty; echo got $a; exit 3'\n", "begun\r\n")
    shell.types("\x1a", f"Stopped.*{PROMPT}")
    shell.types("fg\n", "fg")
    shell.types("hello\n", "got hello\r\n")
    shell.types("echo status $?\n", "status 3\r\n")


def test_ctrl_c_ends_the_command_and_its_status_says_so(run: str, shell: Shell) -> None:
    shell.types(f"{run} sh -c 'echo be''gun; exec sleep 1000'\n", "begun\r\n")
    shell.types("\x03", PROMPT)
    shell.types("echo status $?\n", "status 130\r\n")


def test_a_job_in_the_background_that_reads_the_terminal_waits_until_it_is_in_front(run: str, shell: Shell) -> None:
    shell.types(f"{run} sh -c 'read a </dev/tty; echo g''ot $a' &\n", PROMPT)
    shell.until_stopped()
    shell.types("fg\n", "fg")
    shell.types("hello\n", "got hello\r\n")
    shell.types("echo status $?\n", "status 0\r\n")


def test_a_signal_for_the_job_reaches_the_command_that_was_stopped(run: str, shell: Shell) -> None:
    command = 'trap "echo te""rm; exit 7" TERM; echo be""gun; while :; do sleep 0.1; done'
    shell.types(f"{run} sh -c '{command}'\n", "begun\r\n")
    shell.types("\x1a", f"Stopped.*{PROMPT}")
    shell.types("bg\n", PROMPT)
    shell.types("kill -TERM %1; wait %1; echo status $?\n", "term.*status 7\r\n")
