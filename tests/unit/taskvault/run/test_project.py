"""`.taskvault.toml`."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskvault.run.places import Place, Places
from taskvault.run.project import NO_RULES, ProjectInvalid, ProjectRules, absolute, parse_rules, read_rules
from taskvault.run.weak_key import counting

FILE = Path("/p/.taskvault.toml")
ALL = b"""
[run]
environment = ["DISPLAY", "SSH_*"]
ignored_environment = ["BUILD_*"]
ignored_paths = ["logs", "logs/*", "/var/log/*", "~/.history"]
tool_caches = ["~/.mytool/*"]
strict = true
any_user = true
audit_every = 50
"""


def test_all_that_can_be_said_is_understood() -> None:
    rules = parse_rules(ALL, FILE)
    assert rules == ProjectRules(
        ["DISPLAY", "SSH_*"],
        ["BUILD_*"],
        ["logs", "logs/*", "/var/log/*", "~/.history"],
        ["~/.mytool/*"],
        True,
        True,
        50,
    )


@pytest.mark.parametrize("content", [b"", b"\n", b"# nothing", b"[run]\n", b"[run]\nstrict = false\n"])
def test_who_says_nothing_changes_no_key(content: bytes, tmp_path: Path) -> None:
    (tmp_path / ".taskvault.toml").write_bytes(content)
    assert read_rules(tmp_path) == NO_RULES
    assert read_rules(tmp_path).text == ""
    assert read_rules(tmp_path / "none") == NO_RULES


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[run]\nstrikt = true\n", "strikt"),
        (b"[runs]\n", "runs"),
        (b"[run]\nstrict = 1\n", "Expected `bool`"),
        (b"[run]\nignored_paths = ['*']\n", "would take everything"),
        (b"[run]\ntool_caches = ['/']\n", "would take everything"),
        (b"[run\n", "line 1"),
        (b"\xff", "utf-8"),
        (b"a = " + b"[" * 100_000, ".taskvault.toml"),
        (bytes((1 << 20) + 1), "longer than"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_place(content: bytes, said: str) -> None:
    with pytest.raises(ProjectInvalid, match=said) as refused:
        parse_rules(content, FILE)
    assert "/p/.taskvault.toml" in str(refused.value)


def test_a_file_that_cannot_be_read_is_an_error_and_not_no_file(tmp_path: Path) -> None:
    (tmp_path / ".taskvault.toml").mkdir()
    with pytest.raises(ProjectInvalid, match="cannot be read"):
        read_rules(tmp_path)


def test_variables_count_as_the_project_says() -> None:
    rules = parse_rules(ALL, FILE)
    environment = {"DISPLAY": ":0", "SSH_TTY": "x", "TMUX": "y", "BUILD_ID": "1", "LANG": "C", "BUILD_KEPT": "2"}
    assert counting(environment, ["BUILD_KEPT"], rules) == {
        "DISPLAY": ":0", "SSH_TTY": "x", "LANG": "C", "BUILD_KEPT": "2"
    }  # fmt: skip
    assert counting(environment) == {"BUILD_ID": "1", "LANG": "C", "BUILD_KEPT": "2"}


def test_a_strict_project_passes_only_what_counts_and_what_runs_need() -> None:
    environment = {"DISPLAY": ":0", "LANG": "C", "BUILD_ID": "1", "PWD": "/p", "TMUX": "y"}
    rules = ProjectRules(ignored_environment=["BUILD_*"], strict=True)
    assert rules.passed(environment, counting(environment, (), rules)) == {"LANG": "C", "PWD": "/p"}
    assert ProjectRules().passed(environment, {}) == environment


def test_paths_lie_where_the_project_says() -> None:
    rules = parse_rules(ALL, FILE)
    places = Places(
        "/p", "/tmp/scratch", "/home/u", ignored=tuple(rules.ignored_paths), caches=tuple(rules.tool_caches)
    )
    expected = {
        "/p/logs": Place.NOTHING,
        "/p/logs/a/b": Place.NOTHING,
        "/p/logs2": Place.PROJECT,
        "/p/sub/logs": Place.PROJECT,
        "/var/log/x": Place.NOTHING,
        "/home/u/.history": Place.NOTHING,
        "/home/u/.history2": Place.SYSTEM,
        "/home/u/.mytool/x/y": Place.CACHE,
        "/home/u/.cache/x": Place.CACHE,
    }
    assert {path: places.place(path) for path in expected} == expected


def test_a_root_whose_name_is_a_pattern_is_only_itself() -> None:
    places = Places("/p[ab]*", "/tmp/scratch", "", ignored=("logs/*", "~/x"))
    assert places.place("/p[ab]*/logs/x") is Place.NOTHING
    assert places.place("/pa/logs/x") is Place.SYSTEM
    assert absolute("~/x", "/p", "") is None
