"""`tv shim`: tools that run through `tv run`, by themselves and inside a run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Vault

MAKEFILE = """
all: one.o two.o three.o
%.o: %.c
\tgcc -c -o $@ $<
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    place = tmp_path / "project"
    place.mkdir()
    (place / "Makefile").write_text(MAKEFILE)
    for name in ("one", "two", "three"):
        (place / f"{name}.c").write_text(f"int {name};\n")
    return place


def outcomes(vault: Vault, project: Path) -> list[tuple[str, str]]:
    """Newest first: the last word of each command, and what became of it."""
    runs = vault.json("runs")
    return [(run["command"][-1], run["outcome"]) for run in runs if run["root"] == str(project)]


def test_a_build_in_which_one_file_changed_repeats_one_call(vault: Vault, project: Path, tmp_path: Path) -> None:
    made = vault.json("shim", str(tmp_path / "shims"), "gcc")
    assert made == {"directory": str(tmp_path / "shims"), "tools": ["gcc"]}
    inside = {"PATH": f"{made['directory']}:{os.environ['PATH']}"}
    assert "stored" in vault.tv("run", "--", "make", cwd=project, env=inside).err
    assert sorted(outcomes(vault, project)) == sorted(
        [("make", "stored"), ("one.c", "stored"), ("two.c", "stored"), ("three.c", "stored")]
    )
    for name in ("one", "two", "three"):
        (project / f"{name}.o").unlink()
    (project / "two.c").write_text("int two = 2;\n")
    assert "stored" in vault.tv("run", "--", "make", cwd=project, env=inside).err
    again = outcomes(vault, project)[:4]
    assert sorted(again) == sorted([("make", "stored"), ("one.c", "hit"), ("two.c", "stored"), ("three.c", "hit")])


def test_what_the_build_tool_removes_of_a_compilers_files_is_stored_too(
    vault: Vault, project: Path, tmp_path: Path
) -> None:
    vault.tv("shim", str(tmp_path / "shims"), "gcc")
    inside = {"PATH": f"{tmp_path / 'shims'}:{os.environ['PATH']}"}
    build = "for n in one two; do gcc -MD -MF $n.d -o $n.o -c $n.c; grep $n.c $n.d; rm $n.d; done"
    first = vault.tv("run", "--", "sh", "-ec", build, cwd=project, env=inside)
    assert "stored" in first.err
    assert sorted(outcomes(vault, project)[:3]) == sorted([(build, "stored"), ("one.c", "stored"), ("two.c", "stored")])
    assert sorted(path.name for path in project.iterdir() if path.suffix in (".o", ".d")) == ["one.o", "two.o"]
    for name in ("one", "two"):
        (project / f"{name}.o").unlink()
    (project / "two.c").write_text("int two = 2;\n")
    assert vault.tv("run", "--", "sh", "-ec", build, cwd=project, env=inside).out == first.out
    again = outcomes(vault, project)[:3]
    assert sorted(again) == sorted([(build, "stored"), ("one.c", "hit"), ("two.c", "stored")])


def test_makes_jobs_are_shared_through_runs(vault: Vault, project: Path) -> None:
    (project / "Makefile").write_text(
        "all:\n\t+@$(TV) run -- $(MAKE) --no-print-directory parts\nparts: one two\none two:\n\t@echo $@ made\n"
    )
    tv = f"TV={sys.executable} -m taskvault"
    done = subprocess.run(
        ["make", "-j2", tv], cwd=project, env=vault.environment(), capture_output=True, text=True, check=True
    )
    nested = vault.tv("run", "--", "make", "-j2", tv, "--always-make", cwd=project)
    for out, err in ((done.stdout, done.stderr), (nested.out, nested.err)):
        assert sorted(out.split("\n")) == ["", "one made", "two made"]
        assert "jobserver" not in err
    assert nested.err.rstrip().endswith(", stored")


def test_a_shim_works_alone_and_without_a_vault(vault: Vault, project: Path, tmp_path: Path) -> None:
    vault.tv("shim", str(tmp_path / "shims"), "gcc")
    gcc = str(tmp_path / "shims" / "gcc")
    inside = vault.environment(PATH=f"{tmp_path / 'shims'}:{os.environ['PATH']}")
    for expected in ("stored", "hit"):
        subprocess.run([gcc, "-c", "one.c", "-o", "one.o"], cwd=project, env=inside, check=True)
        assert outcomes(vault, project)[0] == ("one.o", expected)
        (project / "one.o").unlink()
    nowhere = {**inside, "TASKVAULT_HOME": str(tmp_path / "none")}
    subprocess.run([gcc, "-c", "one.c", "-o", "one.o"], cwd=project, env=nowhere, check=True)
    assert (project / "one.o").exists()


@pytest.mark.parametrize(
    ("tool", "why"), [("no-such-tool", "is not in PATH"), ("/bin/true", "no name of a tool"), ("true", "no shim")]
)
def test_what_cannot_be_a_shim_is_refused(vault: Vault, tmp_path: Path, tool: str, why: str) -> None:
    (tmp_path / "shims").mkdir()
    (tmp_path / "shims" / "true").write_text("mine")
    said = vault.tv("shim", str(tmp_path / "shims"), tool, exit_code=4)
    assert why in said.err
    assert (tmp_path / "shims" / "true").read_text() == "mine"
