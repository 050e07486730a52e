"""Ways in which a cache of runs could give a wrong result, each refused or mended."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Said, Vault

pytestmark = pytest.mark.kernel


def run(vault: Vault, place: Path, script: str, *options: str, **more: object) -> Said:
    """`tv run` of a script on the input `in`; the place is in the script, so that no other test shares its result."""
    command = ["run", "--root", ".", "--input", "in", *options, "--", "sh", "-c", f"{script} # {place}"]
    return vault.tv(*command, cwd=place, **more)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def an_input(place: Path) -> None:
    (place / "in").write_text("in\n")


@pytest.mark.parametrize("output", ["out", "made", "made/*"])
def test_an_output_that_the_run_did_not_make_is_not_stored(vault: Vault, place: Path, output: str) -> None:
    (place / "made").mkdir()
    for name in ("out", "made/old"):
        (place / name).write_text("of an earlier run")
    said = run(vault, place, "echo new > made/new", "--output", output)
    assert "not stored: the output" in said.err
    assert "was there before" in said.err


@pytest.mark.parametrize("how", ["> out", "> tmp; mv tmp out", "> tmp; rm out; mv tmp out"])
def test_an_output_that_was_there_and_was_made_anew_is_stored(vault: Vault, place: Path, how: str) -> None:
    (place / "out").write_text("in\n")
    assert ", stored" in run(vault, place, f"cat in {how}", "--output", "out").err


def test_an_input_that_changed_and_changed_back_is_noticed(vault: Vault, place: Path) -> None:
    os.utime(place / "in", (1, 1))
    script = "echo other > in; cat in > out; echo in > in"
    said = run(vault, place, script, "--output", "out")
    assert "the input 'in' changed while the command ran" in said.err


def test_an_input_that_only_got_another_link_or_mode_is_no_change(vault: Vault, place: Path) -> None:
    assert ", stored" in run(vault, place, "chmod g+w in; cat in > out", "--output", "out").err


def test_a_program_that_changes_while_it_runs_is_noticed(vault: Vault, place: Path, tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\ncat in > out; echo '# other' >> $0.new; chmod +x $0.new; mv $0.new $0\n")
    tool.chmod(0o755)
    said = vault.tv("run", "--root", ".", "--input", "in", "--output", "out", "--", str(tool), cwd=place)
    assert f"the program {tool} changed while the command ran" in said.err.replace("'", "")


def test_two_programs_that_change_their_roles_are_a_miss(vault: Vault, place: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("one", "other"):
        (tools / name).write_text(f"#!/bin/sh\necho {name}\n")
        (tools / name).chmod(0o755)
    path = f"{tools}:{os.environ['PATH']}"
    for cc, clang, expected in (("one", "other", "one\n"), ("other", "one", "other\n")):
        for name, target in (("cc", cc), ("clang", clang)):
            (tools / name).unlink(missing_ok=True)
            (tools / name).symlink_to(target)
        run(vault, place, "cc > out", "--output", "out", env={"PATH": path})
        assert (place / "out").read_text() == expected


def test_without_inputs_there_is_no_key(vault: Vault, place: Path) -> None:
    command = ["run", "--root", ".", "--output", "out", "--", "cp", "in", "out"]
    assert "no input is declared" in vault.tv(*command, cwd=place).err
    (place / "in").write_text("changed\n")
    vault.tv(*command, cwd=place)
    assert (place / "out").read_text() == "changed\n"


def test_a_link_to_a_directory_that_names_the_root_binds_the_result(vault: Vault, place: Path) -> None:
    for checkout in ("one", "other"):
        root = place / checkout
        (root / "sub").mkdir(parents=True)
        (root / "in").write_text("in")
        command = ["run", "--root", ".", "--input", "in", "--output", "made", "--", "sh", "-c",
                   'mkdir made; ln -s "$PWD/sub" made/link']  # fmt: skip
        vault.tv(*command, cwd=root)
        assert os.readlink(root / "made/link") == str(root / "sub")


def test_a_root_known_by_a_link_binds_the_result_from_a_directory_below_too(vault: Vault, tmp_path: Path) -> None:
    for checkout in ("one", "other"):
        root = tmp_path / checkout
        (root / "sub").mkdir(parents=True)
        (root / "in").write_text("in")
        link = tmp_path / f"link-{checkout}"
        link.symlink_to(root)
        script = f"cd ..; pwd -L > out # {tmp_path}"
        options = ["run", "--root", "..", "--input", "in", "--output", "out", "--", "sh", "-c", script]
        vault.tv(*options, cwd=link / "sub", env={"PWD": str(link / "sub")})
        assert (root / "out").read_text() == f"{link}\n"


def test_a_replay_that_fails_half_way_leaves_everything_as_it_was(vault: Vault, place: Path) -> None:
    made = ("a", "b/x", "second/z", "c")
    script = "[ -e second ] && exit 9; mkdir -p b second; " + "; ".join(f"echo new > {name}" for name in made)
    outputs = ["--output", "a", "--output", "b", "--output", "c", "--output", "second/z"]
    run(vault, place, script, *outputs)
    for name in ("a", "b/x"):
        (place / name).write_text("old")
    (place / "c").unlink()
    (place / "second/z").unlink()
    (place / "second").rmdir()
    (place / "second").write_text("a file where a directory belongs")
    said = run(vault, place, script, *outputs, exit_code=9)
    assert "running again" in said.err
    assert {name: (place / name).read_text() for name in ("a", "b/x")} == {"a": "old", "b/x": "old"}
    assert sorted(os.listdir(place)) == ["a", "b", "in", "second"]


def test_what_was_read_from_stdin_is_there_for_a_command_that_runs_plainly(vault: Vault, place: Path) -> None:
    # The daemon answers the greeting, and is stopped before it is asked: when the key is made, stdin has been read.
    reading, writing = os.pipe()
    process = vault.start(
        "run", "--root", ".", "--stdin", "--input", "in", "--", "cat", cwd=place, stdin=reading,
        env={"TASKVAULT_PATIENCE_S": "1"},
    )  # fmt: skip
    os.close(reading)
    pid = vault.pid
    with open(writing, "wb", buffering=0) as stdin:
        stdin.write(b"first ")
        while fionread(writing):
            time.sleep(0.01)
        os.kill(pid, signal.SIGSTOP)
        stdin.write(b"second")
    try:
        out, err = process.communicate(timeout=30)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert b"without the vault" in err
    assert out == b"first second"


def fionread(descriptor: int) -> int:
    """How much in a pipe has not been read."""
    return int.from_bytes(fcntl.ioctl(descriptor, 0x541B, b"\0" * 4), sys.byteorder)


def test_nothing_is_lost_when_whoever_reads_our_output_is_slow(vault: Vault, place: Path) -> None:
    for _ in range(2):
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        process = subprocess.Popen(
            [sys.executable, "-m", "taskvault", "run", "--root", ".", "--input", "in", "--",
             "sh", "-c", f"head -c 1000000 /dev/zero # {place}"],
            cwd=place, env=vault.environment(), stdout=writing, stderr=subprocess.PIPE,
        )  # fmt: skip
        os.close(writing)
        time.sleep(1)
        with open(reading, "rb") as file:
            read = file.read()
        _, err = process.communicate()
        assert (len(read), process.returncode) == (1_000_000, 0), err


def test_output_that_cannot_be_written_is_an_error(vault: Vault, place: Path) -> None:
    for _ in range(2):
        with open("/dev/full", "wb") as full:
            process = subprocess.Popen(
                [sys.executable, "-m", "taskvault", "run", "--root", ".", "--input", "in", "--",
                 "sh", "-c", f"echo something # {place}"],
                cwd=place, env=vault.environment(), stdout=full, stderr=subprocess.PIPE,
            )  # fmt: skip
            _, err = process.communicate()
        assert process.returncode == 5
        assert b"No space left" in err


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_gets_no_byte_into_the_vault(vault: Vault, place: Path, closed: str) -> None:
    script = f"cat in > out; echo text; echo warning >&2; head -c 300000 /dev/urandom > big # {place}"
    options = "--root . --input in --output out --output big"
    for _ in range(2):
        done = subprocess.run(
            ["sh", "-c", f'{sys.executable} -m taskvault run {options} -- sh -c "$0" {closed}', script],
            cwd=place, env=vault.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        assert done.returncode == 0
        assert b"Traceback" not in done.stdout
    assert vault.json("runs", "--limit", "1")[0]["outcome"] == "hit"


def test_a_command_whose_output_cannot_be_kept_runs_to_its_end(vault: Vault, place: Path) -> None:
    command = f'ulimit -f 1000; exec {sys.executable} -m taskvault run --root . --input in -- sh -c "$0"'
    done = subprocess.run(
        ["sh", "-c", command, f"head -c 3000000 /dev/zero; echo end # {place}"],
        cwd=place, env=vault.environment(), capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stdout == b"\0" * 3_000_000 + b"end\n"
    assert b"not stored" in done.stderr


def test_a_process_left_behind_that_never_stops_writing_holds_nobody_up(vault: Vault, place: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "taskvault", "run", "--root", ".", "--input", "in", "--", "sh", "-c",
         f"yes & # {place}"],
        cwd=place, env=vault.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    _, err = process.communicate(timeout=20)
    assert b"still held its output" in err


def test_two_runs_that_make_the_same_outputs_take_turns(vault: Vault, place: Path) -> None:
    script = f"rm -rf made; mkdir made; for n in 1 2 3 4 5 6 7 8; do cat in > made/$n; sleep 0.05; done # {place}"
    command = ["run", "--root", ".", "--input", "in", "--output", "made", "--", "sh", "-c", script]
    processes = [vault.start(*command, cwd=place) for _ in range(3)]
    said = sorted(process.communicate(timeout=60)[1].decode() for process in processes)
    assert ["hit" in text for text in said] == [False, True, True] or ["hit" in text for text in said].count(True) == 2
    assert sorted(os.listdir(place / "made")) == list("12345678")
    subprocess.run(["rm", "-r", "made"], cwd=place, check=True)
    assert "hit" in vault.tv(*command, cwd=place).err
    assert sorted(os.listdir(place / "made")) == list("12345678")


def test_a_run_inside_a_run_with_the_same_outputs_does_not_wait_for_itself(vault: Vault, place: Path) -> None:
    inner = f"{sys.executable} -m taskvault run --root . --input in --output out -- cp in out"
    assert ", stored" in run(vault, place, f"{inner}; echo {place.name}", "--output", "out").err
    assert (place / "out").read_text() == "in\n"
