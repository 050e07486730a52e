"""`tv run` and `tv why` against a real daemon: hits, misses, and everything that must not be stored."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Said, Vault

pytestmark = pytest.mark.kernel

COUNTER = (
    "echo run >> {count}; cat in/*.txt > out.txt; mkdir -p made/deep; cp in/a.txt made/deep/; echo done; echo warn >&2"
)


class Runner:
    """`tv run` of one command in one directory, which counts how often the command really ran."""

    def __init__(self, vault: Vault, place: Path, count: Path) -> None:
        self.vault, self.place, self.count = vault, place, count
        (place / "in").mkdir(exist_ok=True)
        (place / "in/a.txt").write_text("a\n")
        (place / "in/b.txt").write_text("b\n")
        self.script = COUNTER.format(count=count)
        self.options = ["--root", ".", "--input", "in", "--output", "out.txt", "--output", "made"]

    def run(self, *options: str, script: str | None = None, exit_code: int = 0, **more: Any) -> Said:
        command = ["sh", "-c", self.script if script is None else script]
        return self.vault.tv(
            "run", *self.options, *options, "--", *command, cwd=self.place, exit_code=exit_code, **more
        )

    @property
    def ran(self) -> int:
        return len(self.count.read_text().splitlines()) if self.count.exists() else 0

    def why(self) -> Any:
        newest = self.vault.json("runs", "--limit", "1")[0]["run"]
        return self.vault.json("why", newest)


@pytest.fixture
def runner(vault: Vault, place: Path, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return Runner(vault, place, tmp_path_factory.mktemp("count") / "count")


def contents(place: Path) -> dict[str, bytes]:
    return {str(p.relative_to(place)): p.read_bytes() for p in sorted(place.rglob("*")) if p.is_file()}


def remove_outputs(place: Path) -> None:
    subprocess.run(["rm", "-rf", "out.txt", "made"], cwd=place, check=True)


def test_the_second_run_is_a_replay_of_files_directories_and_streams(runner: Runner) -> None:
    first = runner.run()
    assert "stored" in first.err
    made = contents(runner.place)
    remove_outputs(runner.place)
    second = runner.run()
    assert second.err.startswith("warn\ntv: hit (run ")
    assert (first.out, second.out) == ("done\n", "done\n")
    assert contents(runner.place) == made
    assert runner.ran == 1


def test_a_replay_puts_what_was_made_in_the_place_of_what_is_there(runner: Runner) -> None:
    runner.run()
    made = contents(runner.place)
    (runner.place / "out.txt").write_text("spoilt")
    (runner.place / "made/stray").write_text("not made by the run")
    runner.run()
    assert contents(runner.place) == made


def test_nothing_is_left_behind_by_a_replay(runner: Runner) -> None:
    runner.run()
    runner.run()
    assert sorted(os.listdir(runner.place)) == ["in", "made", "out.txt"]
    assert os.listdir(runner.vault.mount / ".taskvault") == []


def test_files_that_were_only_touched_are_no_change(runner: Runner) -> None:
    runner.run()
    os.utime(runner.place / "in/a.txt")
    assert "hit" in runner.run().err
    assert runner.why()["run"]["outcome"] == "hit"


def test_a_changed_input_is_a_miss_and_why_names_it(runner: Runner) -> None:
    runner.run()
    (runner.place / "in/b.txt").write_text("changed\n")
    assert "stored" in runner.run().err
    assert (runner.place / "out.txt").read_text() == "a\nchanged\n"
    (change,) = runner.why()["changes"]
    assert (change["kind"], change["name"]) == ("input", "in/b.txt")
    assert change["before"].startswith("blake3:")
    (runner.place / "in/b.txt").write_text("b\n")
    assert "hit" in runner.run().err
    assert runner.ran == 2


def test_inputs_that_come_and_go_are_named(runner: Runner) -> None:
    runner.run()
    (runner.place / "in/a.txt").rename(runner.place / "in/c.txt")
    runner.run(script=runner.script.replace("in/a.txt", "in/[ac].txt"))
    runner.run()
    assert runner.ran == 3
    kinds = {(change["kind"], change["name"], change["now"] is None) for change in runner.why()["changes"]}
    assert kinds == {("input", "in/a.txt", True), ("input", "in/c.txt", False)}


def test_a_changed_variable_is_a_miss_only_if_it_counts(runner: Runner) -> None:
    runner.run("--env", "MODE", env={"MODE": "1", "OTHER": "1"})
    assert "hit" in runner.run("--env", "MODE", env={"MODE": "1", "OTHER": "2"}).err
    assert "stored" in runner.run("--env", "MODE", env={"MODE": "2"}).err
    (change,) = runner.why()["changes"]
    assert change == {"kind": "environment", "name": "MODE", "before": "1", "now": "2"}
    assert "hit" in runner.run("--env", "MODE=1").err


def test_a_changed_program_is_a_miss(runner: Runner, tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    outcomes = []
    for body in ("cp in/a.txt out.txt", "cp in/a.txt out.txt # 2", "cp in/a.txt out.txt"):
        tool.write_text(f"#!/bin/sh\n{body}\n")
        tool.chmod(0o755)
        said = runner.vault.tv(
            "run", "--root", ".", "--input", "in", "--output", "out.txt", "--", str(tool), cwd=runner.place
        )
        outcomes.append("hit" in said.err)
    assert outcomes == [False, False, True]


def test_other_arguments_and_outputs_are_other_runs(runner: Runner) -> None:
    runner.run()
    assert "stored" in runner.run(script=runner.script + ";").err
    assert "stored" in runner.run("--output", "*.txt").err


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo x > out.txt", "the output 'made' was not made"),
        ("mkdir -p made; echo x > out.txt; echo c > in/a.txt", "the input 'in/a.txt' changed while the command ran"),
        ("mkdir -p made; echo x > out.txt; echo c > in/new.txt", "the input 'in/new.txt' changed"),
        ("mkdir -p made; echo x > out.txt; mkfifo made/pipe", "neither a file"),
        ("mkdir -p made; echo x > out.txt; (cd /; exec sleep 30) & echo started", "still held its output"),
    ],
)
def test_what_cannot_be_trusted_is_not_stored_and_why_names_the_rule(runner: Runner, script: str, reason: str) -> None:
    said = runner.run(script=script)
    assert "not stored: " in said.err
    assert reason in said.err
    assert reason in runner.vault.tv("why", runner.why()["run"]["run"]).out


def test_a_failing_command_is_not_stored_and_its_status_is_ours(runner: Runner) -> None:
    for _ in range(2):
        said = runner.run(script=f"echo run >> {runner.count}; echo out; exit 7", exit_code=7)
        assert "not stored: exit status 7" in said.err
        assert said.out == "out\n"
    assert runner.ran == 2


def test_a_command_that_a_signal_ends_is_reported_as_a_shell_does(runner: Runner) -> None:
    runner.run(script="kill -TERM $$", exit_code=143)


def test_a_run_of_which_nothing_is_declared_is_traced(runner: Runner) -> None:
    runner.options = []
    said = runner.run()
    assert "/count, which lies outside of its root" in said.err
    assert said.out == "done\n"


def test_the_history_says_that_a_secret_changed_and_not_what_it_is(runner: Runner) -> None:
    place = str(runner.place)
    for token in ("abc-123", "def-456"):
        secret = {"MY_TOKEN": token, "PLAIN": f"{token}-plain"}
        said = runner.vault.tv("run", "--", "echo", place, cwd=runner.place, env=secret)
        assert "stored" in said.err
    why = runner.vault.tv("why", cwd=runner.place).out
    assert "PLAIN: abc-123-plain" in why
    assert "MY_TOKEN: (not recorded, #" in why
    record = json.dumps(runner.vault.json("why"))
    assert "abc-123-plain" in record
    assert '"abc-123"' not in record


def test_what_reads_an_input_that_does_not_count_is_not_stored(runner: Runner) -> None:
    for typed in (b"typed", b"other"):
        passed = runner.vault.tv("run", "--", "cat", cwd=runner.place, stdin=typed)
        assert passed.out == typed.decode()
        assert "not stored: it read its standard input" in passed.err
    for typed in (b"typed", b"other", b"typed"):
        passed = runner.vault.tv("run", "--stdin", "--", "cat", cwd=runner.place, stdin=typed)
        assert passed.out == typed.decode()
    assert "hit" in passed.err
    for _ in range(2):
        passed = runner.vault.tv("run", "--", "echo", "unread", cwd=runner.place, stdin=b"typed")
        assert passed.out == "unread\n"
    assert "hit" in passed.err


def test_a_pattern_that_names_nothing_keeps_the_run_from_being_stored(runner: Runner) -> None:
    said = runner.run("--input", "typo/*.c")
    assert "not stored: the input 'typo/*.c' names nothing" in said.err


def test_options_choose_what_is_looked_up_and_stored(runner: Runner) -> None:
    assert "not stored: storing was turned off" in runner.run("--no-store").err
    assert "stored" in runner.run().err
    assert "hit" in runner.run("--read-only").err
    assert "stored" in runner.run("--refresh").err
    assert runner.ran == 3
    assert runner.run("--quiet").err == "warn\n"
    assert runner.run(env={"TASKVAULT": "off"}).err == "warn\n"
    assert runner.ran == 4


def test_check_runs_again_and_compares(runner: Runner) -> None:
    assert "nothing is stored" in runner.run("--check", exit_code=1).err
    runner.run()
    assert "the same as is stored" in runner.run("--check").err
    remove_outputs(runner.place)
    unsteady = "date +%s%N > out.txt; mkdir -p made"
    runner.run(script=unsteady)
    said = runner.run("--check", script=unsteady, exit_code=1)
    assert "not what is stored: out.txt differs at byte " in said.err


def test_standard_input_counts_when_it_is_given(runner: Runner) -> None:
    # Results are shared between places, so what makes this run another than the same test's elsewhere is said.
    script = f"tee out.txt # {runner.place.name}"
    options = ["run", "--stdin", "--root", ".", "--output", "out.txt", "--", "sh", "-c", script]
    said = [runner.vault.tv(*options, cwd=runner.place, stdin=text) for text in (b"one", b"two", b"one")]
    assert [s.out for s in said] == ["one", "two", "one"]
    assert ["hit" in s.err for s in said] == [False, False, True]


def test_without_stdin_the_command_reads_nothing(runner: Runner) -> None:
    said = runner.vault.tv("run", "--root", ".", "--input", "in", "--", "cat", cwd=runner.place, stdin=b"secret")
    assert said.out == ""


def test_what_was_written_is_replayed_in_its_order(runner: Runner) -> None:
    script = "for n in 1 2 3; do echo out$n; sleep 0.05; echo err$n >&2; sleep 0.05; done"
    command = ["run", "--root", ".", "--input", "in", "--quiet", "--", "sh", "-c", script]
    for _ in range(2):
        process = runner.vault.start(*command, cwd=runner.place)
        assert process.stdout is not None
        process.communicate()
    joined = subprocess.run(
        [sys.executable, "-m", "taskvault", *command],
        cwd=runner.place,
        env=runner.vault.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    ).stdout
    assert joined.split() == ["out1", "err1", "out2", "err2", "out3", "err3"]


def test_long_output_is_replayed_whole(runner: Runner) -> None:
    script = "head -c 3000000 /dev/zero | tr '\\0' x; head -c 100000 /dev/zero | tr '\\0' y >&2"
    command = ["run", "--root", ".", "--input", "in", "--", "sh", "-c", script]
    first, second = (runner.vault.tv(*command, cwd=runner.place) for _ in range(2))
    assert "hit" in second.err
    assert first.out == second.out == "x" * 3_000_000
    assert second.err.startswith("y" * 100_000)


def test_another_checkout_gets_the_result_unless_it_names_its_root(runner: Runner, place: Path) -> None:
    outcomes = {}
    for script in ("cat in/a.txt > out.txt", "pwd > out.txt", "pwd; touch out.txt"):
        for checkout in ("one", "other", "one"):
            root = place / checkout
            (root / "in").mkdir(parents=True, exist_ok=True)
            (root / "in/a.txt").write_text(place.name)
            options = ["run", "--root", ".", "--input", "in", "--output", "out.txt", "--", "sh", "-c", script]
            said = runner.vault.tv(*options, cwd=root)
            outcomes.setdefault(script, []).append("hit" in said.err)
            if script.startswith("pwd >"):
                assert (root / "out.txt").read_text() == f"{root}\n"
    assert outcomes == {
        "cat in/a.txt > out.txt": [False, True, True],
        "pwd > out.txt": [False, False, True],
        "pwd; touch out.txt": [False, False, True],
    }


def test_make_finds_nothing_to_do_after_a_replay(vault: Vault, place: Path) -> None:
    (place / "Makefile").write_text(
        "all: prog lib/out.a after\n"
        # Long files are copied before short ones: the first is there a while before the last, which it is made from.
        "after: last\n\tseq 100000 > $@\n"
        "last: middle\n\techo x > $@\n"
        "middle: a.src\n\tseq 4000000 > $@\n"
        "prog: a.o b.o lib/out.a\n\tcat $^ > $@\n"
        "lib/out.a: gen/x.o\n\tmkdir -p lib; cat $^ > $@\n"
        "gen/x.o: x.src\n\tmkdir -p gen; cp $< $@\n"
        "%.o: %.src\n\tcp $< $@\n"
    )
    for name in ("a.src", "b.src", "x.src"):
        (place / name).write_text(name)
    command = ["run", "--root", ".", "--input", "*.src", "--input", "Makefile", "--output", "*.o",
               "--output", "prog", "--output", "lib", "--output", "gen", "--output", "after", "--output", "last",
               "--output", "middle", "--", "make"]  # fmt: skip
    vault.tv(*command, cwd=place)
    subprocess.run(["rm", "-rf", "a.o", "b.o", "prog", "lib", "gen", "after", "last", "middle"], cwd=place, check=True)
    os.utime(place / "a.src")
    assert "hit" in vault.tv(*command, cwd=place).err
    assert subprocess.run(["make", "-q"], cwd=place, check=False).returncode == 0
    (place / "b.src").touch()
    os.utime(place / "b.src", (time.time() + 5, time.time() + 5))
    assert subprocess.run(["make", "-q"], cwd=place, check=False).returncode == 1


def test_the_umask_holds_for_what_is_replayed(vault: Vault, place: Path) -> None:
    (place / "in").write_text("in")
    command = ["run", "--root", ".", "--input", "in", "--output", "out", "--", "cp", "in", "out"]
    for _ in range(2):
        process = vault.start(*command, cwd=place, preexec_fn=lambda: os.umask(0o077))
        _, err = process.communicate()
        assert (place / "out").stat().st_mode & 0o777 == 0o600
    assert b"hit" in err


def test_the_report_can_be_had_as_json(runner: Runner, tmp_path: Path) -> None:
    runner.run("--json", str(tmp_path / "report"))
    report = json.loads((tmp_path / "report").read_text())
    assert (report["outcome"], report["exit_code"]) == ("stored", 0)


def test_a_stored_run_is_shown_under_the_mount(runner: Runner) -> None:
    runner.run()
    run = runner.vault.json("runs", "--limit", "1")[0]["run"]
    shown = runner.vault.mount / "runs" / run
    assert (shown / "stdout").read_text() == "done\n"
    assert (shown / "outputs/out.txt").read_text() == "a\nb\n"


def test_a_program_that_is_not_there_is_status_127(runner: Runner) -> None:
    said = runner.vault.tv("run", "--input", "in", "--", "no-such-program", cwd=runner.place, exit_code=127)
    assert "command not found" in said.err
    (runner.place / "plain").write_text("not executable")
    runner.vault.tv("run", "--root", ".", "--input", "in", "--", "./plain", cwd=runner.place, exit_code=126)


def test_a_signal_to_us_reaches_the_command(runner: Runner) -> None:
    script = "trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    process = runner.vault.start("run", "--root", ".", "--input", "in", "--", "sh", "-c", script, cwd=runner.place)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert (out, process.returncode) == (b"caught\n", 3)


def test_an_ignored_signal_stays_ignored_for_the_command(runner: Runner) -> None:
    script = "kill -HUP $$; echo alive"
    process = runner.vault.start(
        "run", "--root", ".", "--input", "in", "--", "sh", "-c", script, cwd=runner.place,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )  # fmt: skip
    assert process.communicate(timeout=20)[0] == b"alive\n"


def test_a_check_names_file_offset_and_likely_cause_of_all_that_differs(runner: Runner) -> None:
    counter = 'n=$(cat "$COUNTER" 2>/dev/null || echo 0); echo $((n + 1)) > "$COUNTER"; '
    # The comment keeps results of one place from the same test's elsewhere.
    script = (
        f"# {runner.place.name}\n" + counter + "mkdir -p made; echo same > made/same; date +'at %s' > made/when; "
        "if [ $n = 0 ]; then ln -s a made/link; else echo more > made/more; ln -s b made/link; fi; "
        'echo "$n" | tr 01 ab; echo o > out.txt'
    )
    env = {"COUNTER": str(runner.place.parent / f"{runner.place.name}.count")}
    assert "stored" in runner.run(script=script, env=env).err
    remove_outputs(runner.place)
    said = runner.run("--check", script=script, env=env, exit_code=1).err
    assert "stdout differs at byte 0" in said
    assert "made/link leads to 'b' and should to 'a'" in said
    assert "made/more is there and should not be" in said
    assert "made/same" not in said
