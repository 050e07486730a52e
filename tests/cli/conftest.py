"""One vault with its daemon and mount for all tests here; each test works in directories of its own."""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from taskvault.cli.answers import ANSWERS
from taskvault.cli.replacement import caretaker_of
from tests.runs.driver import Driver
from tests.vaults_in_order import assert_in_order

ROOT = Path(__file__).parent.parent.parent
COMMAND_TIMEOUT_S = 60.0


READ_WHEN_PYTHON_STARTS = ("LC_", "LANG", "PYTHON", "LD_", "TZ")
"""Variables that a process which was forked has not read."""


@functools.cache
def forking() -> Driver:
    """What carries out `tv` in forks of a process that has loaded it: a start costs a third of a second."""
    driver = Driver({**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}"})
    atexit.register(driver.stop)
    return driver


@dataclass
class Vault:
    """A home, and `tv` for it."""

    home: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def mount(self) -> Path:
        return self.home / "mnt"

    def environment(self, **more: str) -> dict[str, str]:
        keep = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        ours = {
            "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}",
            "TASKVAULT_HOME": str(self.home),
            # The machine that runs the tests may be busy with others of them.
            "TASKVAULT_PATIENCE_S": "20",
            # Nobody is to stay behind.
            "TASKVAULT_WARM_IDLE_S": "20",
        }
        return {**keep, **ours, **self.variables, **more}

    def start(self, *arguments: str | bytes, cwd: Path | None = None, **more: Any) -> subprocess.Popen[bytes]:
        env = self.environment(**more.pop("env", {}))
        command: Sequence[str | bytes] = [sys.executable, "-m", "taskvault", *arguments]
        return subprocess.Popen(
            command, cwd=cwd or self.home.parent, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more
        )

    def tv(
        self,
        *arguments: str | bytes,
        cwd: Path | None = None,
        exit_code: int = 0,
        stdin: bytes | None = None,
        env: dict[str, str] | None = None,
    ) -> Said:
        """Run a command to its end; it must have this exit status, and never show a traceback."""
        variables = {**self.variables, **(env or {})}
        if stdin is None and not any(name.startswith(READ_WHEN_PYTHON_STARTS) for name in variables):
            done = (
                forking()
                .start(
                    [os.fsdecode(each) for each in arguments],
                    cwd=cwd or self.home.parent,
                    environment=self.environment(**(env or {})),
                )
                .wait()
            )
            status, out, err = done.status, done.out, done.err
        else:
            process = self.start(*arguments, cwd=cwd, env=env or {}, stdin=subprocess.PIPE)
            out, err = process.communicate(stdin, timeout=COMMAND_TIMEOUT_S)
            status = process.returncode
        said = Said(os.fsdecode(out), os.fsdecode(err))
        assert "Traceback" not in said.err, said.err
        assert status == exit_code, f"exit status {status}: {said.err}{said.out}"
        return said

    def json(self, *arguments: str, cwd: Path | None = None) -> Any:
        value = json.loads(self.tv(*arguments, "--json", cwd=cwd).out)
        conforms(" ".join(arguments), value)
        return value

    @property
    def pid(self) -> int:
        return int(self.json("status")["pid"])


def conforms(typed: str, value: Any) -> None:
    """Fail unless the value is what the schema of the command that was typed promises, and nothing else."""
    name = next(name for name in sorted(ANSWERS, key=len, reverse=True) if f"{typed} ".startswith(f"{name} "))
    assert msgspec.to_builtins(msgspec.convert(value, ANSWERS[name], strict=True)) == value, name


@dataclass
class Said:
    out: str
    err: str


def kill(pid: int) -> None:
    """Kill a daemon for good: whoever would start it again goes first."""
    caretaker = caretaker_of(pid)
    for victim in (caretaker, pid) if caretaker is not None else (pid,):
        os.kill(victim, signal.SIGKILL)


def clean_up(vault: Vault, pid: int) -> None:
    with suppress(ProcessLookupError):
        kill(pid)
    if any(line.split()[4] == str(vault.mount) for line in Path("/proc/self/mountinfo").read_text().splitlines()):
        subprocess.run(["umount", "-l", str(vault.mount)], check=False)


@pytest.fixture(scope="session")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    """A vault that is up and mounted; tests leave it up."""
    made = Vault(tmp_path_factory.mktemp("vault") / "home")
    made.tv("init", "--size", "1G")
    made.tv("up")
    pid = made.pid
    yield made
    made.tv("down")
    clean_up(made, pid)
    assert_in_order(made.home)


@pytest.fixture
def work(vault: Vault, request: pytest.FixtureRequest) -> Path:
    """A directory of the test's own under the mount."""
    directory = vault.mount / "work" / request.node.name.replace("/", "_")[:200]
    directory.mkdir()
    return directory


@pytest.fixture(params=["mount", "disk"])
def place(request: pytest.FixtureRequest, vault: Vault, tmp_path: Path) -> Path:
    """A directory of the test's own: once under the mount, once outside."""
    if request.param == "disk":
        return tmp_path
    directory: Path = vault.mount / "work" / str(request.node.name).replace("/", "_")[:200]
    directory.mkdir()
    return directory
