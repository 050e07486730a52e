"""Whatever is typed and wherever: one sentence and a documented exit status."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from taskvault.cli.exit_codes import ExitCode
from tests.cli.conftest import Vault

pytestmark = pytest.mark.kernel

PLACES: list[bytes] = [b"/", b"..", b"../..", b"/" * 5000]
"""Only where a name belongs: as paths they would have the whole machine read."""
TEXTS: list[bytes] = [
    b"", b" ", b".", b"-", b"--", b"a/b", b"caf\xe9", b"\xff\xfe", "ü".encode(), b"k" * 255, b"k" * 256, b"k" * 5000,
    b"new\nline", b"\x1b[31m", b"*", b"[", b"%s{}", b"99999999999999999999999",
]  # fmt: skip
COMMANDS = """
init ?
init ? --size ?
init ? --hash ?
up --mount ?
status ?
why !
runs --limit ?
cache save ! ?
cache get ! --to ?
cache show !
cache rm !
cache get k --fallback !
cache ls --scope !
snapshot ? !
attach ! ?
rm ?
hash ?
hash --hash ? /
du ?
show ?
top --once --interval ?
config check ?
completion ?
run --input ? --output ? -- true
run --root ? --input . -- true
run --env ? --input . -- true
run --scope ! --input . -- true
run --json ? --input . -- true
run --input . -- ?
?
cache ?
--home ? status
--home ? doctor
--home ? run --input . -- true
"""
FUZZ = """
import json, os, sys
from taskvault.cli.application import every_command, run
assert list(every_command())  # loaded once, before the forks
for line in sys.stdin:
    arguments = [os.fsdecode(bytes.fromhex(word)) for word in json.loads(line)]
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        status = run(arguments)
        sys.stdout.flush()
        os._exit(status)
    sys.stderr.write("\\x00%d\\x00" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    sys.stderr.flush()
"""


def in_turn(vault: Vault, commands: Sequence[list[bytes]], place: Path) -> list[tuple[str, int]]:
    """Return what each command said on stderr, and its exit status; started by forking, as Python starts slowly."""
    lines = "".join(json.dumps([word.hex() for word in command]) + "\n" for command in commands)
    done = subprocess.run(
        [sys.executable, "-c", FUZZ], input=lines.encode(), cwd=place, env=vault.environment(), capture_output=True,
        check=False, timeout=200,
    )  # fmt: skip
    parts = os.fsdecode(done.stderr).split("\0")
    assert len(parts) == 2 * len(commands) + 1, parts[-1]
    return list(zip(parts[::2], map(int, parts[1::2]), strict=False))


def test_no_argument_whatever_it_is_shows_a_traceback(vault: Vault, tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    commands = [
        [draw.choice({b"?": TEXTS, b"!": TEXTS + PLACES}.get(word, [word])) for word in command.encode().split()]
        for command in COMMANDS.splitlines()[1:]
        for _ in range(2)
    ]
    for command, (said, status) in zip(commands, in_turn(vault, commands, tmp_path), strict=True):
        assert "Traceback" not in said, command
        assert "inside tv" not in said, (command, said)
        assert status in set(ExitCode), (command, status, said)
        assert (
            status == ExitCode.OK
            or said.startswith("tv: ")
            or b"[" in command
            or b"doctor" in command
            or b"check" in command
        ), (
            command,
            said,
        )
    assert vault.tv("status").out.startswith("Up")


@pytest.mark.parametrize(
    "command",
    ["status", "stats", "runs", "cache ls", "doctor", "hash .", "up", "cache rm no", "down --nonsense", "why 99999999"],
)
def test_json_is_one_value_on_stdout_or_nothing(vault: Vault, tmp_path: Path, command: str) -> None:
    process = vault.start(*command.split(), "--json", cwd=tmp_path)
    out, err = process.communicate(timeout=30)
    if process.returncode == 0:
        json.loads(out)
    else:
        assert out == b""
        assert err.startswith(b"tv: ")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-", "> /dev/full"])
@pytest.mark.parametrize("command", ["status", "hash /etc/hostname", "cache ls", "--help", "nonsense"])
def test_a_stream_that_is_closed_or_full_is_no_traceback(vault: Vault, closed: str, command: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m taskvault {command} {closed}"],
        env=vault.environment(), cwd=vault.home.parent,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr + done.stdout
    assert "inside tv" not in done.stderr + done.stdout
    assert "Exception" not in done.stderr
    assert done.returncode in set(ExitCode)


@pytest.mark.parametrize(("command", "status"), [("status", 4), ("doctor", 4), ("run -- false", 1)])
def test_without_a_home_directory_it_says_so(vault: Vault, command: str, status: int) -> None:
    said = vault.tv(*command.split(), env={"TASKVAULT_HOME": "~nobody-knows-them/vault"}, exit_code=status)
    assert said.err.count("\n") == 1
    assert "name the vault with --home or TASKVAULT_HOME" in said.err


def test_in_a_directory_that_is_gone_a_command_runs_and_others_say_so(vault: Vault, tmp_path: Path) -> None:
    script = "mkdir gone; cd gone; rmdir ../gone; " + sys.executable + " -m taskvault "
    for command, status in (("run --input x -- sh -c 'exit 7'", 7), ("cache save key x", 5)):
        done = subprocess.run(
            ["sh", "-c", script + command],
            cwd=tmp_path,
            env=vault.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stderr
        assert "working directory" in done.stderr


@pytest.mark.parametrize("patience", ["nan", "inf", "-1", "0", "1e300", "soon", ""])
def test_a_patience_that_makes_no_sense_is_as_if_it_were_not_set(vault: Vault, tmp_path: Path, patience: str) -> None:
    command = ["run", "--root", ".", "--input", "in", "--", "true"]
    (tmp_path / "in").touch()
    vault.tv(*command, cwd=tmp_path, env={"TASKVAULT_PATIENCE_S": patience})


def test_with_few_open_files_the_command_still_runs(vault: Vault, tmp_path: Path) -> None:
    (tmp_path / "in").touch()
    for most in range(5, 24, 4):
        program = f"ulimit -n {most}; exec {sys.executable} -m taskvault run --root . --input in -- sh -c 'exit 7'"
        done = subprocess.run(
            ["sh", "-c", program], cwd=tmp_path, env=vault.environment(), capture_output=True, text=True, check=False
        )
        if "Fatal Python error" in done.stderr:
            continue
        assert done.returncode in (7, 126), (most, done.stderr)


def test_ctrl_c_at_any_moment_leaves_no_traceback_and_nothing_half_done(
    vault: Vault, tmp_path: Path, seed: int
) -> None:
    (tmp_path / "tree").mkdir()
    for number in range(300):
        (tmp_path / "tree" / str(number)).write_bytes(os.urandom(20_000))
    draw = random.Random(seed)
    for number in range(8):
        process = vault.start("cache", "save", f"ctrl-c-{seed}-{number}", "tree", cwd=tmp_path)
        time.sleep(draw.uniform(0.03, 0.5))
        process.send_signal(draw.choice([signal.SIGINT, signal.SIGTERM]))
        _, err = process.communicate(timeout=30)
        # Before our first function, while modules are found and read, Python itself says what it thinks of it.
        ours = re.search(rb'/taskvault/[^"]*", line \d+, in (?!<module>)', err)
        assert not (b"Traceback" in err and ours), err
        found = vault.start("cache", "show", f"ctrl-c-{seed}-{number}", "--json", cwd=tmp_path)
        shown, _ = found.communicate(timeout=30)
        if process.returncode == 0 or found.returncode == 0:
            assert json.loads(shown)["files"] == 300
    assert vault.json("stats")["leased_chunks"] == 0


@pytest.mark.parametrize("while_", ["signal.SIG_DFL", "application._terminate"], ids=["leaving", "entering"])
def test_a_signal_while_handlers_come_and_go_is_a_sentence(while_: str) -> None:
    script = f"""
import os, signal, sys
from taskvault.cli import application
install = signal.signal
def kill_after(number, handler):
    install(number, handler)
    if handler is {while_} and number != signal.SIGHUP:
        os.kill(os.getpid(), signal.SIGTERM)
signal.signal = kill_after
signal.signal(signal.SIGINT, signal.SIG_IGN)
install(signal.SIGINT, signal.SIG_DFL)
sys.exit(application.run(["--version"]))
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in ended.stderr
    assert ended.returncode in (128 + signal.SIGTERM, -signal.SIGTERM)
