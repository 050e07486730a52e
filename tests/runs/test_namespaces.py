"""Runs in mount namespaces of their own, as containers have them, on one vault."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Vault
from tests.runs.driver import Said

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may have mount namespaces everywhere"),
]


def contained(vault: Vault, project: Path, arrange: str) -> Said:
    """Run `cat` in a namespace in which a script has arranged what is mounted."""
    tv = f"exec {sys.executable} -m taskvault run --root . -- sh -c 'cat /srv/tool/version in > out; cat out'"
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-ec", f"{arrange}\n{tv}"],
        cwd=project, env=vault.environment(), capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    return Said(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, content in (("project", "input"), ("one", "tool 1"), ("two", "tool 2"), ("other", "other input")):
        (tmp_path / name).mkdir()
        (tmp_path / name / ("in" if name in ("project", "other") else "version")).write_text(f"{content}\n")
    return tmp_path / "project"


def test_containers_with_the_same_content_share_results_and_with_another_do_not(vault: Vault, project: Path) -> None:
    at = "for at in /opt /srv; do mount -t tmpfs none $at; done; mkdir -p /srv/tool /opt/here; "
    at += "mount --bind {tool} /srv/tool; "
    in_place = "mount --bind {project} /opt/here; cd /opt/here"
    places = {"tool": project.parent / "one", "project": project}
    first = contained(vault, project, (at + in_place).format(**places))
    assert (first.is_stored, first.out) == (True, b"tool 1\ninput\n"), first
    (project / "out").unlink()
    same = contained(vault, project, (at + in_place).format(**places))
    assert (same.is_hit, same.out) == (True, b"tool 1\ninput\n"), same
    elsewhere = contained(vault, project, at.format(**places))
    assert (elsewhere.is_hit, elsewhere.out) == (True, b"tool 1\ninput\n"), elsewhere
    (project / "out").unlink()
    other_tool = contained(vault, project, (at + in_place).format(**{**places, "tool": project.parent / "two"}))
    assert (other_tool.is_stored, other_tool.out) == (True, b"tool 2\ninput\n"), other_tool
    other_input = contained(vault, project, (at + in_place).format(**{**places, "project": project.parent / "other"}))
    assert (other_input.is_stored, other_input.out) == (True, b"tool 1\nother input\n"), other_input
