"""What each command prints with --json is what its schema says."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from taskvault.cli.answers import ANSWERS, CacheEntry
from tests.cli.conftest import Vault, conforms

pytestmark = pytest.mark.kernel

TYPED = {
    "init": "init {tmp}/other",
    "up": "up",
    "down": "--home {tmp}/nowhere down",
    "status": "status",
    "stats": "stats",
    "run": "",
    "top": "top --interval 0.1",
    "du": "du",
    "show": "show {work}/file",
    "why": "why",
    "runs": "runs",
    "cache save": "cache save saved-for-answers file --replace",
    "cache get": "cache get kept-for-answers --to {tmp}/out",
    "cache ls": "cache ls",
    "cache show": "cache show kept-for-answers",
    "cache rm": "cache rm removed-for-answers",
    "cache pin": "cache pin kept-for-answers",
    "cache unpin": "cache unpin kept-for-answers",
    "snapshot": "snapshot {work} answers --replace",
    "attach": "attach kept-answers {work}/attached",
    "adopt": "adopt {tmp}/adopted",
    "rm": "rm {work}/removed",
    "hash": "hash {work}/file",
    "config show": "config show",
    "config check": "config check",
    "shim": "shim {tmp}/shims sh",
    "gc": "gc",
    "verify": "verify",
    "fsck": "--home {checked} fsck",
    "audit": "audit",
    "audit verify": "audit verify",
    "audit runs": "audit runs --sample 1",
    "plugins": "plugins",
    "doctor": "doctor",
    "completion": "completion bash",
}
"""What is typed, in the directory `work`, to have an answer of each command."""


def checked(vault: Vault) -> Path:
    """A vault that nobody serves."""
    return vault.home.parent / "checked"


@pytest.fixture(scope="module")
def prepared(vault: Vault) -> Path:
    work = vault.mount / "work" / "answers"
    work.mkdir()
    Vault(checked(vault)).tv("init", "--size", "100M")
    (work / "file").write_bytes(b"content")
    (work / "removed").mkdir()
    for key in ("kept-for-answers", "removed-for-answers"):
        vault.tv("cache", "save", key, "file", "--replace", cwd=work)
    vault.tv("snapshot", str(work), "kept-answers", "--replace")
    vault.tv("run", "--root", ".", "--input", "file", "--", "true", cwd=work)
    return work


def test_every_command_is_tried_here() -> None:
    assert ANSWERS.keys() == TYPED.keys(), "add a line to TYPED: what to type to have an answer"


@pytest.mark.parametrize("name", [name for name in ANSWERS if name != "run"])
def test_what_a_command_prints_is_what_its_schema_says(vault: Vault, prepared: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "adopted").mkdir()
    typed = TYPED[name].format(tmp=tmp_path, work=prepared, checked=checked(vault))
    out = vault.tv(*typed.split(), "--json", cwd=prepared).out
    conforms(name, json.loads(out))


def test_so_is_what_a_run_reports(vault: Vault, work: Path, tmp_path: Path) -> None:
    (work / "in").touch()
    for _ in range(2):
        vault.tv("run", "--json", str(tmp_path / "r"), "--root", ".", "--input", "in", "--", "true", cwd=work)
        conforms("run", json.loads((tmp_path / "r").read_text()))


def test_what_runs_saved_is_said_first_and_by_command(vault: Vault, prepared: Path) -> None:
    assert vault.json("stats")["runs"] >= 1
    headline = vault.tv("stats").out.splitlines()[0]
    assert " of computing saved: " in headline
    told = vault.tv("runs", "--limit", "1").out.splitlines()
    assert told[-1] == headline
    assert [line.split()[0] for line in told[3:-1]] == ["command", "true"]


def test_lists_that_have_something_in_them_were_tried(vault: Vault, prepared: Path) -> None:
    assert vault.json("cache", "ls")
    assert vault.json("runs")
    assert vault.json("du", str(prepared))
    assert vault.json("why", cwd=prepared)["run"]["command"] == ["true"]


def test_the_check_finds_what_is_missing_or_surplus_or_of_another_type(vault: Vault, prepared: Path) -> None:
    shown = vault.json("cache", "show", "kept-for-answers")
    assert msgspec.convert(shown, CacheEntry).key == "kept-for-answers"
    for wrong in ({**shown, "more": 1}, {**shown, "files": "1"}, {k: v for k, v in shown.items() if k != "tree"}):
        with pytest.raises((AssertionError, msgspec.ValidationError)):
            conforms("cache show", wrong)
