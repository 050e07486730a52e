from __future__ import annotations

from msgspec.structs import replace

from taskvault.protocol.messages import RunRecord
from taskvault.protocol.runs import NOT_SHOWN
from taskvault.run.why import Change, described, differences, explain

BASE = RunRecord(
    run="7", started_ns=0, duration_ns=2_000_000_000, command=["make", "all"], root="/p", workdir="", scope="main",
    key="k7", outcome="stored", reason="", exit_code=0,
    inputs={"a.c": "d1", "b.c": "d2"}, environment={"CC": "gcc"},
    facts={"program gcc": "g1", "platform os": "linux", "outputs": "build", "inputs": "*.c"},
)  # fmt: skip


def test_each_kind_of_difference_is_named() -> None:
    now = replace(
        BASE,
        command=["make", "lib", "x"],
        inputs={"a.c": "d9", "c.c": "d3"},
        environment={"CFLAGS": "-g"},
        facts={"program gcc": "g2", "platform os": "linux", "outputs": "lib", "inputs": "src"},
    )
    assert differences(BASE, now) == [
        Change("argument", "1", "all", "lib"),
        Change("argument", "2", None, "x"),
        Change("program", "gcc", "g1", "g2"),
        Change("outputs", "", "build", "lib"),
        Change("environment", "CC", "gcc", None),
        Change("environment", "CFLAGS", None, "-g"),
        Change("input", "a.c", "d1", "d9"),
        Change("input", "b.c", "d2", None),
        Change("input", "c.c", None, "d3"),
    ]


def test_the_place_is_a_difference_only_to_a_result_that_is_bound_to_it() -> None:
    here, there = replace(BASE, run="8"), replace(BASE, run="9", root="/q")
    bound = replace(here, facts={**BASE.facts, "bound": "out holds the path /p"})
    assert differences(here, there) == []
    assert differences(bound, here) == []
    replayed = replace(here, outcome="hit", run="8")
    explained = "\n".join(described(explain(there, [replayed, replace(bound, run="7")])))
    assert "differs from run 8" in explained
    assert "root (its result holds only there: out holds the path /p): /p → /q" in explained


def test_the_nearest_run_is_the_one_that_differs_least_in_the_same_root() -> None:
    now = replace(BASE, run="20", inputs={"a.c": "d1", "b.c": "new"})
    far = replace(BASE, run="10", inputs={"a.c": "x", "b.c": "y"})
    near = replace(BASE, run="8")
    elsewhere = replace(BASE, run="11", root="/q", inputs=now.inputs)
    explanation = explain(now, [elsewhere, far, near])
    assert explanation.nearest is near
    assert explanation.changes == [Change("input", "b.c", "d2", "new")]
    assert explain(now, [elsewhere]).nearest is elsewhere


def test_later_runs_and_those_that_left_no_result_explain_nothing() -> None:
    failed = replace(BASE, run="3", outcome="failed")
    later = replace(BASE, run="9")
    assert explain(BASE, [failed, later, BASE]).nearest is None


def test_what_is_said_names_the_rule_or_the_change() -> None:
    changed = replace(BASE, run="8", inputs={"a.c": "d9", "b.c": "d2"})
    assert "input a.c: d1 → d9" in "\n".join(described(explain(changed, [BASE])))
    refused = replace(BASE, run="9", outcome="not stored", reason="the output 'lib' was not made")
    assert "not stored: the output 'lib' was not made" in "\n".join(described(explain(refused, [])))
    hit = replace(BASE, run="9", outcome="hit", saved_ns=4_100_000_000)
    assert "saved 4.1 s" in "\n".join(described(explain(hit, [BASE])))


def test_a_long_list_of_changes_is_cut_and_says_so() -> None:
    now = replace(BASE, run="8", inputs={f"{n}.c": "d" for n in range(100)})
    lines = list(described(explain(now, [BASE]), most=5))
    assert lines[-1].strip().startswith("… and 97 more")


def test_values_that_are_another_users_are_not_called_different_and_not_called_the_same() -> None:
    theirs = replace(BASE, environment={"CC": NOT_SHOWN, "CFLAGS": NOT_SHOWN}, key="", user=7)
    ours = replace(BASE, run="8", environment={"CC": "clang", "LANG": "C"}, user=8)
    assert differences(theirs, ours) == [
        Change("environment", "CFLAGS", NOT_SHOWN, None),
        Change("environment", "LANG", None, "C"),
    ]
    same = replace(ours, environment={"CC": "clang", "CFLAGS": ""})
    assert [change.name for change in differences(theirs, same)] == ["(values)"]
    explained = "\n".join(described(explain(ours, [theirs])))
    assert "what differs from run 7 of user 7:" in explained
