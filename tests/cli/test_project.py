"""`.taskvault.toml`: what a project says of its runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Vault


@pytest.fixture
def project(tmp_path: Path) -> Path:
    place = tmp_path / "project"
    (place / "logs").mkdir(parents=True)
    (place / "in").write_text("a")
    return place


def run(vault: Vault, project: Path, script: str, **env: str) -> str:
    # The name of the place keeps results of one test from another's.
    return vault.tv("run", "--", "sh", "-c", f"{script} # {project.parent.name}", cwd=project, env=env).err


def test_variables_and_paths_that_the_project_ignores_do_not_count(vault: Vault, project: Path) -> None:
    script = "cat in logs/* > out; echo said >> logs/mine"
    (project / "logs" / "one").write_text("1")
    assert "was written to" in run(vault, project, "cat logs/* > out; echo said >> logs/one")
    (project / ".taskvault.toml").write_text(
        '[run]\nignored_environment = ["BUILD_*"]\nignored_paths = ["logs", "logs/*"]\n'
    )
    assert "stored" in run(vault, project, script, BUILD_ID="first")
    (project / "logs" / "two").write_text("2")
    assert "hit" in run(vault, project, script, BUILD_ID="second")
    (project / "in").write_text("b")
    assert "stored" in run(vault, project, script, BUILD_ID="third")


def test_a_result_that_shows_an_ignored_variable_is_not_stored(vault: Vault, project: Path) -> None:
    (project / ".taskvault.toml").write_text('[run]\nignored_environment = ["BUILD_*"]\n')
    said = run(vault, project, "echo number $BUILD_ID", BUILD_ID="12345")
    assert "not stored: what it made holds the value of the variable BUILD_ID" in said


def test_other_rules_find_nothing_that_was_stored_under_these(vault: Vault, project: Path) -> None:
    assert "stored" in run(vault, project, "cat in")
    (project / ".taskvault.toml").write_text('[run]\nignored_paths = ["in"]\n')
    assert "stored" in run(vault, project, "cat in")
    (project / ".taskvault.toml").write_text("")
    assert "hit" in run(vault, project, "cat in")


def test_a_strict_project_gives_commands_only_what_counts(vault: Vault, project: Path) -> None:
    (project / ".taskvault.toml").write_text("[run]\nstrict = true\n")
    run(vault, project, "env > out", DISPLAY=":7", COUNTED="yes")
    made = (project / "out").read_text()
    assert "COUNTED=yes" in made
    assert "DISPLAY" not in made


def test_a_file_that_makes_no_sense_is_an_error_and_nothing_runs(vault: Vault, project: Path) -> None:
    (project / ".taskvault.toml").write_text("[run]\nstrikt = true\n")
    said = vault.tv("run", "--", "touch", "out", cwd=project, exit_code=2).err
    assert "strikt" in said
    assert said.count("\n") == 1
    assert not (project / "out").exists()
