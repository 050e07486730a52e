"""What needs no daemon: usage errors, help, and what a command loads."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from taskvault.cli.application import COMMANDS, application, every_command, run
from taskvault.cli.exit_codes import ExitCode
from taskvault.run.environment import ALWAYS_COUNT


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TASKVAULT_HOME", str(tmp_path / "vault"))
    return tmp_path / "vault"


def in_process(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    return done.stdout


@pytest.mark.parametrize("name", [*COMMANDS, *(name for name, _ in every_command() if " " in name)])
def test_every_command_has_help_with_an_example(name: str) -> None:
    shown = CliRunner().invoke(application, [*name.split(), "--help"])
    assert shown.exit_code == 0
    assert "Example:\n  tv" in shown.output.replace("\n  \n", "\n").replace("    tv", "  tv")


@pytest.mark.parametrize("name", [name for name, _ in every_command() if name != "run"])
def test_every_command_has_json_and_says_its_exit_statuses(name: str) -> None:
    shown = CliRunner().invoke(application, [*name.split(), "--help"]).output
    assert "--json" in shown
    assert "Exit status:" in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["stat"],
        ["up", "--mount", "x", "--no-mount"],
        ["run"],
        ["run", "--input", "/absolute", "--", "true"],
        ["run", "--input", "../x", "--", "true"],
        ["run", "--output", ".", "--", "true"],
        ["run", "--env", "=x", "--", "true"],
        ["run", "--root", "/nonexistent", "--", "true"],
        ["run", "--refresh", "--check", "--", "true"],
        ["cache", "save", "key"],
        ["runs", "--limit", "0"],
        ["--nonsense"],
    ],
)
def test_a_wrong_command_line_is_one_sentence_and_exit_status_2(
    arguments: list[str], home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    said = capfd.readouterr()
    assert said.err.startswith("tv: ")
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_a_misspelt_command_is_guessed(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(["atach"])
    assert "did you mean 'attach'" in capfd.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["stats"],
        ["cache", "ls"],
        ["cache", "get", "k"],
        ["why"],
        ["rm", "x"],
        ["attach", "s", "p"],
        ["du"],
        ["du", "x"],
        ["show", "x"],
        ["top"],
        ["top", "--once"],
    ],
)
def test_without_a_daemon_the_exit_status_is_3_and_the_remedy_is_named(
    arguments: list[str], home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 3
    assert "tv up" in capfd.readouterr().err


def test_down_without_a_daemon_is_no_error(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["down"]) == 0
    assert capfd.readouterr().out == "Not up.\n"


def test_help_and_version_load_no_command() -> None:
    code = (
        "import sys; from taskvault.cli.application import run; run(['--help']); run(['--version']);"
        "sys.exit(any(m.startswith('taskvault.cli.commands') for m in sys.modules))"
    )
    assert "taskvault 0." in in_process(code)


def test_status_loads_no_server_code_and_nothing_heavy() -> None:
    code = (
        "import sys; from taskvault.cli.application import run; run(['--home', '/nonexistent', 'status']);"
        "print(*sorted(m.split('.')[0] for m in sys.modules))"
    )
    loaded = set(in_process(code).split())
    assert not loaded & {
        "tvd",
        "trio",
        "rich",
        "grpc",
        "rocksdict",
        "pyfuse3",
        "google",
        "zstandard",
        "tvplugins",
        "asyncio",
    }


def test_no_command_loads_server_code() -> None:
    code = (
        "import sys, importlib, pkgutil, taskvault;"
        "[importlib.import_module(m.name) for m in pkgutil.walk_packages(taskvault.__path__, 'taskvault.')"
        " if not m.name.endswith('__main__')];"
        "print(*sorted(m.split('.')[0] for m in sys.modules))"
    )
    assert not set(in_process(code).split()) & {"tvd", "trio", "rocksdict", "pyfuse3"}


def test_hash_needs_no_vault(home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").touch()
    assert run(["hash", str(tmp_path / "empty")]) == 0
    assert capfd.readouterr().out.startswith(
        "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262-0"
    )


def test_hash_of_what_is_not_there_names_it(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["hash", "/nonexistent/file"]) == 5
    assert capfd.readouterr().err == "tv: /nonexistent/file: No such file or directory.\n"


def test_a_closed_pipe_is_quiet() -> None:
    done = subprocess.run(
        [f"{sys.executable} -m taskvault hash {'/etc/hostname ' * 2000} | head -n 1"],
        shell=True,
        capture_output=True,
        check=False,
    )
    assert done.stderr == b""


def test_the_reference_lists_exactly_the_exit_statuses_there_are() -> None:
    page = (Path(__file__).parent.parent.parent / "docs/reference/exit-codes.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (\w+) \|", page, re.MULTILINE)
    assert [(int(status), name) for status, name in rows] == [(code.value, code.name) for code in ExitCode]


def test_the_design_lists_exactly_the_variables_that_count() -> None:
    page = (Path(__file__).parent.parent.parent / "docs/design/task-key.md").read_text()
    published = re.search(r"`(LANG LANGUAGE[^`]*)`", page)
    assert published is not None
    assert sorted(published[1].split()) == sorted(ALWAYS_COUNT)
