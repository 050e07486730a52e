"""After how many hits a run is audited."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskvault.run.audit_after_hit import audit_every, audit_sometimes
from taskvault.run.project import NO_RULES, ProjectInvalid, ProjectRules, parse_rules
from taskvault.run.rules import is_session_variable


@pytest.mark.parametrize(
    ("said", "project", "every"),
    [("", 0, 0), ("", 50, 50), ("7", 50, 7), ("0", 50, 0), ("often", 50, 50), ("-1", 0, 0), ("9" * 30, 0, 0)],
)
def test_the_variable_is_stronger_than_the_project(said: str, project: int, every: int) -> None:
    assert audit_every({"TASKVAULT_AUDIT": said}, ProjectRules(audit_every=project)) == every


def test_nothing_is_audited_unless_asked_for_or_without_a_run() -> None:
    def drawn(_every: int) -> int:
        raise AssertionError("it was drawn")

    audit_sometimes(Path("/nowhere"), {}, NO_RULES, "1", drawn=drawn)
    audit_sometimes(Path("/nowhere"), {"TASKVAULT_AUDIT": "1"}, NO_RULES, "", drawn=drawn)


def test_one_in_so_many_is_drawn_and_the_others_start_nothing() -> None:
    asked = []

    def drawn(every: int) -> int:
        asked.append(every)
        return 1

    audit_sometimes(Path("/nowhere"), {"TASKVAULT_AUDIT": "30"}, NO_RULES, "1", drawn=drawn)
    assert asked == [30]


def test_how_often_runs_are_audited_is_in_no_key() -> None:
    assert ProjectRules(audit_every=5).text == ""
    assert ProjectRules(strict=True, audit_every=5).text == ProjectRules(strict=True).text
    assert is_session_variable("TASKVAULT_AUDIT")
    with pytest.raises(ProjectInvalid, match="less than 0"):
        parse_rules(b"[run]\naudit_every = -1", Path("/p/.taskvault.toml"))
