"""The native launcher and the warm process: a hit without Python, and Python for everything else."""

from __future__ import annotations

import os
import resource
import select
import shutil
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from taskvault.warm.launch_request import HEADER, MAGIC
from taskvault.warm.running import LOCK, running
from tests.cli.conftest import Vault
from tests.launched import Launcher
from tests.runs.driver import Said
from tests.waiting import wait_until

PATIENCE_S = 1.5
"""Of a launcher; see `native/ask.c`."""
DONE = struct.Struct("=c4I")
ORDER = struct.Struct("=c5I")


@pytest.fixture(scope="module")
def launcher(vault: Vault, tmp_path_factory: pytest.TempPathFactory) -> Launcher:
    made = Launcher(tmp_path_factory.mktemp("launcher") / "l", ["gcc", "sh", "true", "cat"])
    made.warm_up(tmp_path_factory.mktemp("warm"), vault.environment())
    return made


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "in").write_text("a\n")
    return tmp_path / "project"


@pytest.fixture
def sh(
    vault: Vault, launcher: Launcher, project: Path, request: pytest.FixtureRequest
) -> Callable[..., tuple[Said, int]]:
    scope = f"s{abs(hash(request.node.nodeid)):x}"

    def run(script: str, *options: str, **more: Any) -> tuple[Said, int]:
        env = vault.environment(**more.pop("env", {}))
        arguments = ["run", "--root", ".", "--scope", scope, *options, "--", "sh", "-c", script]
        return launcher.counted(lambda: launcher.tool("tv", *arguments, cwd=project, env=env, **more))

    return run


def test_neither_a_miss_nor_a_hit_starts_python(sh: Any, project: Path) -> None:
    script = "cat in > out; mkdir -p d; echo x > d/y; echo one; echo two >&2; echo three"
    first, starts = sh(script)
    assert (starts, first.out, first.command_err) == (0, b"one\nthree\n", b"two\n")
    assert first.is_stored
    (project / "out").unlink()
    shutil.rmtree(project / "d")
    again, starts = sh(script)
    assert starts == 0
    assert (again.status, again.out, again.command_err) == (0, b"one\nthree\n", b"two\n")
    assert again.is_hit
    assert ((project / "out").read_text(), (project / "d/y").read_text()) == ("a\n", "x\n")


def test_a_tool_is_replayed_and_told_to_the_history(vault: Vault, launcher: Launcher, project: Path) -> None:
    (project / "a.c").write_text("int a;\n")
    call = ("-c", "a.c", "-o", "a.o")
    outcomes = []
    for _ in range(3):
        _, starts = launcher.counted(lambda: launcher.tool("gcc", *call, cwd=project, env=vault.environment()))
        outcomes.append((starts, (project / "a.o").exists()))
        (project / "a.o").unlink()
    assert outcomes == [(0, True)] * 3
    runs = [run for run in vault.json("runs") if run["root"] == str(project)]
    assert [run["outcome"] for run in runs] == ["hit", "hit", "stored"]
    (project / "a.c").write_text("int b;\n")
    _, starts = launcher.counted(lambda: launcher.tool("gcc", *call, cwd=project, env=vault.environment()))
    assert starts == 0
    latest = vault.json("runs", "--limit", "1")[0]["run"]
    assert [change["name"] for change in vault.json("why", latest)["changes"]] == ["a.c"]


@pytest.mark.parametrize(
    ("differs", "python"),
    [
        ({"umask": 0o077}, 0),
        ({"env": {"LANG": "de_DE.UTF-8"}}, 0),
        ({"env": {"TASKVAULT": "off"}}, 1),
        ({"env": {"TASKVAULT_WARM": "off"}}, 1),
    ],
    ids=str,
)
def test_what_differs_counts_whoever_runs_it(sh: Any, project: Path, differs: dict[str, Any], python: int) -> None:
    script = "umask > out; echo $LANG >> out"
    assert sh(script)[0].is_stored
    (project / "out").unlink()
    told, starts = sh(script, **differs)
    assert starts == python
    assert told.is_hit == ("TASKVAULT_WARM" in differs.get("env", {}))
    umask, language = (project / "out").read_text().splitlines()
    assert int(umask, 8) == differs.get("umask", 0o022)
    assert language == differs.get("env", {}).get("LANG", "")


def test_the_command_has_the_variables_of_its_caller_whatever_python_needs(sh: Any) -> None:
    assert b"LC_CTYPE" not in sh("env")[0].out
    assert b"\nLC_CTYPE=C.UTF-8\n" in b"\n" + sh("env", env={"LC_CTYPE": "C.UTF-8"})[0].out


def test_a_replay_has_the_umask_and_the_directory_of_its_caller(sh: Any, project: Path) -> None:
    script = "echo x > out"
    assert sh(script, umask=0o027)[0].is_stored
    (project / "out").unlink()
    assert sh(script, umask=0o027)[1] == 0
    assert (project / "out").stat().st_mode & 0o777 == 0o640


def test_a_caller_with_other_limits_does_not_get_what_this_one_does(sh: Any) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))

    assert sh("echo x")[0].is_stored
    assert sh("echo x")[1] == 0
    assert sh("echo x", preexec_fn=limit)[1] == 1


@pytest.mark.parametrize("length", [10, 70_000, 3_000_000])
def test_long_output_is_given_back_whole(sh: Any, length: int) -> None:
    script = f"head -c {length} /dev/zero; echo end; echo err >&2"
    sh(script)
    told, starts = sh(script)
    assert starts == 0
    assert (len(told.out), told.out[-4:], told.command_err) == (length + 4, b"end\n", b"err\n")


def test_output_that_is_lost_is_no_success_and_a_reader_that_went_is_no_trouble(sh: Any) -> None:
    script = "head -c 200000 /dev/zero"
    sh(script)
    with open("/dev/full", "wb") as full:
        told, starts = sh(script, stdout=full)
    assert (told.status, starts) == (5, 0)
    assert "could not be passed on" in told.report
    reading, writing = os.pipe()
    os.close(reading)
    told, starts = sh(script, stdout=writing)
    os.close(writing)
    assert (told.status, starts) == (0, 0)


def test_options_that_python_must_understand_are_left_to_it(sh: Any) -> None:
    assert sh("echo x")[0].is_stored
    assert sh("echo x", "--check")[1] == 1
    assert sh("echo x", "--scope", "other")[1] == 0


def test_inside_another_run_everything_is_seen_by_that_one(vault: Vault, project: Path, tmp_path: Path) -> None:
    launcher = Launcher(tmp_path / "own", ["cat"], counting=False)
    env = vault.environment(PATH=f"{launcher.directory}:{os.environ['PATH']}")
    command = ["run", "--root", ".", "--", "make", "-s"]
    (project / "Makefile").write_text("all:\n\tcat in\n")

    def make() -> Said:
        return launcher.tool("tv", *command, cwd=project, env=env).wait()

    for _ in range(3):
        assert launcher.tool("cat", "in", cwd=project, env=vault.environment()).wait().out == b"a\n"
    assert make().is_stored
    assert make().is_hit
    (project / "in").write_text("b\n")
    changed = make()
    assert changed.is_stored
    assert changed.out == b"b\n"


def test_without_tv_the_tool_runs_plainly(launcher: Launcher, project: Path, tmp_path: Path, vault: Vault) -> None:
    own = Launcher(tmp_path / "own", ["cat"])
    (tmp_path / "own" / "tv").unlink()
    env = vault.environment(TASKVAULT_WARM="off")
    assert own.tool("cat", "in", cwd=project, env=env).wait().out == b"a\n"


# --- what the launcher runs -------------------------------------------------------------------------------------------


@pytest.fixture
def gate(project: Path) -> Path:
    """Where a command waits to be let through; what it reads there it does not count as its own."""
    place = project.parent / "gate"
    os.mkfifo(place)
    return place


def test_a_command_is_in_the_place_of_its_launcher(launcher: Launcher, vault: Vault, project: Path) -> None:
    script = "read -r _ _ _ parent group session _ < /proc/$$/stat; echo $parent $group $session"
    run = launcher.tool(
        "tv", "run", "--", "sh", "-c", script, cwd=project, env=vault.environment(), start_new_session=True
    )
    assert run.wait().out == f"{run.pid} {run.pid} {run.pid}\n".encode()


def test_a_command_has_the_pipes_of_makes_jobserver_and_nothing_else(
    launcher: Launcher, vault: Vault, project: Path
) -> None:
    reading, writing = os.pipe()
    other, another = os.pipe()
    env = vault.environment(MAKEFLAGS=f" -j2 --jobserver-auth={reading},{writing}")
    script = "cd /proc/self/fd && for each in *; do [ -p $each ] && echo $each; done"
    arguments = ["run", "--", "sh", "-c", script]
    said, starts = launcher.counted(
        lambda: launcher.tool("tv", *arguments, cwd=project, env=env, pass_fds=(reading, writing, other, another))
    )
    for descriptor in (reading, writing, other, another):
        os.close(descriptor)
    assert starts == 0
    # The command's own stdout and stderr are pipes too.
    assert sorted(map(int, said.out.split())) == sorted((1, 2, reading, writing))


def test_what_a_command_writes_arrives_while_it_runs(
    launcher: Launcher, vault: Vault, project: Path, gate: Path
) -> None:
    reading, writing = os.pipe()
    arguments = ["run", "--quiet", "--", "sh", "-c", "echo first; read line < ../gate; echo $line"]
    run = launcher.tool("tv", *arguments, cwd=project, env=vault.environment(), stdout=writing)
    os.close(writing)
    with open(reading, "rb", buffering=0) as stream:
        assert stream.read(6) == b"first\n"
        gate.write_text("second\n")
        assert run.wait().status == 0
        assert stream.read(7) == b"second\n"


@pytest.mark.parametrize("stream", ["1", "2"])
def test_a_closed_stream_of_the_caller_stays_closed_to_the_vault(
    launcher: Launcher, vault: Vault, project: Path, stream: str
) -> None:
    tv = launcher.directory / "tv"
    script = f"exec {stream}>&-; exec {tv} run --quiet -- sh -c 'echo x >&{stream}; echo y > made'"
    done = subprocess.run(["sh", "-c", script], cwd=project, env=vault.environment(), capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (project / "made").read_text() == "y\n"


def test_standard_input_that_is_not_read_is_left_to_the_caller(launcher: Launcher, vault: Vault, project: Path) -> None:
    tv = launcher.directory / "tv"
    script = f"{tv} run -- true; cat; "
    done = subprocess.run(
        ["sh", "-c", script], input=b"a\nb\n", cwd=project, env=vault.environment(), capture_output=True, check=True
    )
    assert done.stdout == b"a\nb\n"
    done = subprocess.run(
        [tv, "run", "--", "head", "-c", "1"], input=b"ab", cwd=project, env=vault.environment(), capture_output=True,
        check=True,
    )  # fmt: skip
    assert done.stdout == b"a"
    assert b"not stored: it read its standard input" in done.stderr


def test_what_cannot_be_started_is_said_as_python_says_it(launcher: Launcher, vault: Vault, project: Path) -> None:
    said = launcher.tool("tv", "run", "--", "nowhere", cwd=project, env=vault.environment()).wait()
    assert (said.status, said.err) == (127, b"tv: nowhere: command not found\n")
    (project / "unreadable").write_text("#!/nothing/here\n")
    (project / "unreadable").chmod(0o755)
    said = launcher.tool("tv", "run", "--", "./unreadable", cwd=project, env=vault.environment()).wait()
    assert said.status == 127
    assert said.err == b"tv: ./unreadable: command not found\n"


def test_a_command_ended_by_a_signal_has_the_status_that_a_shell_says(sh: Any) -> None:
    said, starts = sh("kill -KILL $$")
    assert (said.status, starts) == (137, 0)
    assert "not stored: exit status 137" in said.report


def test_what_looks_at_its_caller_in_proc_is_stored_as_that_sees_it_and_python_looks_it_up(sh: Any) -> None:
    script = "cat /proc/self/cgroup"
    first, starts = sh(script)
    assert (first.is_stored, starts) == (True, 0)
    second, starts = sh(script)
    assert (second.is_hit, starts) == (True, 1)
    assert second.out == first.out


def test_a_command_goes_on_when_the_warm_process_is_killed(
    launcher: Launcher, vault: Vault, project: Path, gate: Path
) -> None:
    # A warm process of its own.
    env = vault.environment(PYTHONPATH=f"{vault.environment()['PYTHONPATH']}:/nothing")
    launcher.warm_up(project, env)
    script = "echo one; read line < ../gate; echo $line; echo err >&2; echo made > out; exit 7"
    run = launcher.tool("tv", "run", "--", "sh", "-c", script, cwd=project, env=env)
    before = launcher.python_starts
    wait_until(lambda: run.out_so_far() == b"one\n")
    for process in warm_processes(env["PYTHONPATH"]):
        os.kill(process, signal.SIGKILL)
    gate.write_text("two\n")
    said = run.wait()
    assert (said.status, said.out, said.err) == (7, b"one\ntwo\n", b"err\n")
    assert (project / "out").read_text() == "made\n"
    assert launcher.python_starts == before


def warm_processes(python_path: str) -> list[int]:
    """Return all that were started with this variable."""
    wanted, found = os.fsencode(f"PYTHONPATH={python_path}"), []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if wanted in (place / "environ").read_bytes().split(b"\0") and b"taskvault.warm" in (
                place / "cmdline"
            ).read_bytes().split(b"\0"):
                found.append(int(place.name))
    return found


# --- the other side misbehaves ---------------------------------------------------------------------------------------


@pytest.fixture
def alone(tmp_path: Path, project: Path, launcher: Launcher) -> Iterator[Path]:
    """Where the warm process of a vault that is not there would listen."""
    home = tmp_path / "none"
    home.mkdir()
    # The launcher asks only where a daemon has been.
    (home / "control.sock").touch()
    launcher.tool("cat", "in", cwd=project, env={"PATH": os.environ["PATH"], "TASKVAULT_HOME": str(home)}).wait()
    locks = Path(f"/tmp/taskvault-{os.geteuid()}").glob(f"warm-*{LOCK}")
    (lock,) = [place for place in locks if place.read_text() == str(home)]
    place = Path(str(lock).removesuffix(LOCK))
    # It ends at once: nobody listens there.
    wait_until(lambda: place not in [each.place for each in running()])
    yield place
    place.unlink(missing_ok=True)
    lock.unlink()


def listening(place: Path, serve: Callable[[socket.socket], None]) -> threading.Thread:
    """Serve whoever connects first, then close."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(place))
    listener.listen()

    def listen() -> None:
        with listener:
            connection, _ = listener.accept()
            with connection:
                serve(connection)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    return thread


def answering(place: Path, *answers: bytes) -> threading.Thread:
    """Listen once; answer what comes, then close."""

    def answer(connection: socket.socket) -> None:
        for each in answers:
            connection.recv(1 << 20)
            connection.sendall(each)

    return listening(place, answer)


@pytest.mark.parametrize(
    "answers",
    [
        (),
        (b"N",),
        (b"X",),
        (b"R",),
        (b"D",),
        (DONE.pack(b"D", 0, 5, 9, 9) + b"too short",),
        (b"N" * 17,),
        (b"M",),
        (b"M", b"N"),
        (b"M", b"D"),
        (b"M", b"E" * 30),
        (b"M", ORDER.pack(b"X", 1 << 30, 1, 1, 1, 1)),
        (b"M", ORDER.pack(b"X", 12, 9, 0, 0, 0) + b"/bin/true\0a\0"),
        (b"M", ORDER.pack(b"X", 9, 1, 0, 0, 0) + b"/nothing\0", b"N"),
    ],
    ids=str,
)
def test_whatever_the_warm_process_does_the_tool_runs_once(
    alone: Path, launcher: Launcher, project: Path, tmp_path: Path, answers: tuple[bytes, ...]
) -> None:
    thread = answering(alone, *answers)
    env = {"PATH": os.environ["PATH"], "TASKVAULT_HOME": str(tmp_path / "none")}
    said, starts = launcher.counted(lambda: launcher.tool("sh", "-c", "cat in; echo x >> out", cwd=project, env=env))
    thread.join(20)
    assert (said.status, said.out, starts) == (0, b"a\n", 1)
    assert (project / "out").read_text() == "x\n"


def test_what_it_answers_is_given_back(alone: Path, launcher: Launcher, project: Path, tmp_path: Path) -> None:
    parts = struct.pack("=BI", 2, 3) + b"two" + struct.pack("=BI", 1, 3) + b"one"
    thread = answering(alone, DONE.pack(b"D", 3, 5, 4, len(parts)) + b"said" + parts)
    env = {"PATH": os.environ["PATH"], "TASKVAULT_HOME": str(tmp_path / "none")}
    said, starts = launcher.counted(lambda: launcher.tool("cat", "in", cwd=project, env=env))
    thread.join(20)
    assert (said.status, said.out, said.err, starts) == (3, b"one", b"twosaid", 0)


def test_what_it_has_started_is_the_command_even_if_it_dies(
    alone: Path, launcher: Launcher, project: Path, tmp_path: Path
) -> None:
    texts = b"/bin/sh\0-c\0echo alone; echo err >&2; exit 3\0"
    thread = answering(alone, b"M", ORDER.pack(b"X", len(texts), 3, 0, 0, 0) + texts)
    env = {"PATH": os.environ["PATH"], "TASKVAULT_HOME": str(tmp_path / "none")}
    said, starts = launcher.counted(lambda: launcher.tool("cat", "in", cwd=project, env=env))
    thread.join(20)
    assert (said.status, said.out, said.err, starts) == (3, b"alone\n", b"err\n", 0)


def acting(place: Path, *, takes_turn: bool) -> tuple[threading.Thread, list[bytes]]:
    """Listen once; act or not, and answer when the launcher's patience must have ended; note what the turn held."""
    found: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        _, (directory, turn), _, _ = socket.recv_fds(connection, 1 << 20, 2)
        if takes_turn:
            found.append(os.read(turn, 1))
        # It says nothing as long as it waits, and closes when it goes on alone.
        gone, _, _ = select.select([connection], [], [], PATIENCE_S + 0.5 if takes_turn else 20)
        while gone and connection.recv(1 << 20):
            pass
        if not takes_turn:
            found.append(os.read(turn, 1))
        with suppress(BrokenPipeError):
            connection.sendall(DONE.pack(b"D", 3, 5, 4, 0) + b"said")
        os.close(directory)
        os.close(turn)

    return listening(place, answer), found


@pytest.mark.parametrize("takes_turn", [True, False])
def test_a_launcher_whose_patience_ends_goes_on_alone_unless_a_replay_has_begun(
    alone: Path, launcher: Launcher, project: Path, tmp_path: Path, takes_turn: bool
) -> None:
    thread, found = acting(alone, takes_turn=takes_turn)
    env = {"PATH": os.environ["PATH"], "TASKVAULT_HOME": str(tmp_path / "none")}
    said, starts = launcher.counted(lambda: launcher.tool("cat", "in", cwd=project, env=env))
    thread.join(20)
    if takes_turn:
        assert (said.status, said.out, said.err, starts, found) == (3, b"", b"said", 0, [b"G"])
    else:
        assert (said.status, said.out, starts, found) == (0, b"a\n", 1, [b""])


class Asked:
    """A request like a launcher's, whose turn this test can take back or not."""

    def __init__(self, place: Path, request: bytes, directory: Path, turn: bytes = b"G") -> None:
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.settimeout(20)
        self.connection.connect(str(place))
        descriptor = os.open(directory, os.O_PATH)
        reads, self._writes = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.write(self._writes, turn)
        socket.send_fds(self.connection, [request], [descriptor, reads])
        os.close(descriptor)
        os.close(reads)

    def await_end(self) -> None:
        """Return when the worker has let go of the turn."""
        poll = select.poll()
        poll.register(self._writes, 0)
        assert poll.poll(20_000) == [(self._writes, select.POLLERR)]

    def __enter__(self) -> socket.socket:
        return self.connection

    def __exit__(self, *_exception: object) -> None:
        self.connection.close()
        os.close(self._writes)


def ask(place: Path, request: bytes, directory: Path) -> Asked:
    return Asked(place, request, directory)


def request_of(identity: bytes, arguments: list[bytes], environment: dict[str, str], magic: bytes = MAGIC) -> bytes:
    variables = [os.fsencode(f"{name}={value}") for name, value in environment.items()]
    body = b"".join(text + b"\0" for text in [identity, *arguments, *variables])
    return HEADER.pack(magic, len(body), 0o022, len(arguments), len(variables)) + body


def serving(vault: Vault) -> tuple[Path, bytes]:
    """Return socket and identity of the process that serves a vault."""
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        words = place.read_bytes().split(b"\0") if place.exists() else []
        if b"taskvault.warm" in words and os.fsencode(vault.home) in words:
            if resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY and b" 1073741824 " in words[-3]:
                continue  # the one of the test of other limits
            return Path(os.fsdecode(words[-2])), words[-3]
    raise AssertionError("none serves")


def serving_processes(place: Path) -> list[int]:
    """Return all that listen at a socket."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if os.fsencode(place) in each.read_bytes().split(b"\0"):
                found.append(int(each.parent.name))
    return found


def test_a_launcher_that_goes_before_it_begins_leaves_all_as_it_was(vault: Vault, sh: Any, project: Path) -> None:
    sh("echo x > out")
    sh("echo x > out")
    (project / "out").unlink()
    place, identity = serving(vault)
    scope = os.fsencode(vault.json("runs", "--limit", "1")[0]["scope"])
    arguments = [b"run", b"--root", b".", b"--scope", scope, b"--", b"sh", b"-c", b"echo x > out"]
    request = request_of(identity, arguments, vault.environment())
    workers = serving_processes(place)
    for each in workers:
        os.kill(each, signal.SIGSTOP)
    asked = Asked(place, request, project)
    asked.connection.close()
    for each in workers:
        os.kill(each, signal.SIGCONT)
    asked.await_end()
    assert list(project.iterdir()) == [project / "in"]
    with Asked(place, request, project, turn=b"") as connection:
        # It has taken the turn itself: nothing is to be read there any more.
        assert connection.recv(1) == b"N"
    assert list(project.iterdir()) == [project / "in"]
    with ask(place, request, project) as connection:
        assert connection.recv(1) == b"D"
    assert (project / "out").read_text() == "x\n"
    with ask(place, request_of(identity + b"x", arguments, vault.environment()), project) as connection:
        assert connection.recv(1) == b"N"


def test_nonsense_is_not_answered_and_harms_nobody(vault: Vault, sh: Any, project: Path) -> None:
    place, identity = serving(vault)
    good = request_of(identity, [b"run", b"--", b"true"], {})
    scope = [b"run", b"--scope", b"\xff", b"--root", b".", b"--", b"sh", b"-c", b"echo"]
    for nonsense in (
        b"x" * HEADER.size,
        good[: len(good) // 2],
        HEADER.pack(MAGIC, 1 << 31, 0, 1, 1),
        HEADER.pack(MAGIC, 3, 0, 7, 7) + b"abc",
        request_of(identity, [b"run"], {}),
        request_of(identity, scope, vault.environment()),
    ):
        with ask(place, nonsense, project) as connection:
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1) in (b"", b"N")
    sh("echo x")
    assert sh("echo x")[1] == 0


def test_a_warm_process_that_is_killed_is_replaced(vault: Vault, sh: Any, launcher: Launcher, project: Path) -> None:
    sh("echo x")
    place, _ = serving(vault)
    for pid in serving_processes(place):
        os.kill(pid, signal.SIGKILL)
    assert sh("echo x")[0].is_hit
    launcher.warm_up(project, vault.environment())
    assert sh("echo x")[1] == 0
    assert subprocess.run(["true"], check=False).returncode == 0
