"""What every tracer promises.  Subclass it and say how one is made; needs gcc."""

from __future__ import annotations

import errno
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import pytest

from tvfs.plugin_api import Before, Observation, TracedCommand, Tracer, Use
from tvfs.testing.tracer_programs import REFUSED, SOURCES

READ = [
    "open_read", "read_and_map", "openat2", "path_descriptor", "vfork_child", "small_stack_child", "clone_child",
    "clone3_child", "direct_calls", "thread_executes", "killed_child", "unreadable_path", "filters_itself",
    "filters_what_follows", "large_environment",
]  # fmt: skip
"""Programs that read `file`, one way or another."""

ESCAPES = ["io_uring", "namespace", "changes_root", "daemon", "killed_waiting"]
"""Programs that do what a tracer cannot follow, where they may."""


@functools.cache
def compiled(name: str, static: bool = False) -> Path:
    """Compile one of the programs, once; return its path."""
    folder = Path(tempfile.mkdtemp(prefix="taskvault-traced-"))
    source, program = folder / f"{name}.c", folder / name
    source.write_text(SOURCES[name])
    options = ["-static"] if static else []
    subprocess.run(["gcc", "-O1", "-w", "-pthread", *options, "-o", program, source], check=True)
    return program


def prepare(place: Path, *programs: str, static: bool = False) -> None:
    """Put the files that the programs expect, and the programs, into a directory."""
    (place / "folder").mkdir()
    for name in ("file", "other", "folder/inner", "folder/deep"):
        (place / name).write_text("content\n")
    for name in {*programs, "open_read"}:
        shutil.copy(compiled(name, static), place / name)


def watch(tracer: Tracer, arguments: Sequence[str], place: Path) -> tuple[int, Observation]:
    """Run a command to its end; return its status and what was observed."""
    with open(os.devnull, "r+b") as null:
        nothing = null.fileno()
        process = tracer.start(
            TracedCommand(arguments, str(place), dict(os.environ), stdin=nothing, stdout=nothing, stderr=nothing)
        )
        return process.wait(), process.observe()


class TracerContract(ABC):
    """The promises of `Tracer`."""

    knows_what_was_before = True
    """Whether `Event.before` is told; a tracer that leaves it open says False."""

    @abstractmethod
    def make_tracer(self) -> Tracer:
        """Return the tracer under test."""

    @pytest.fixture
    def tracer(self) -> Tracer:
        """One that works here."""
        tracer = self.make_tracer()
        assert tracer.trouble() == ""
        return tracer

    @pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
    @pytest.mark.parametrize("name", READ)
    def test_every_way_of_reading_is_seen(self, tracer: Tracer, tmp_path: Path, name: str, static: bool) -> None:
        """Whatever the call, and whether or not the program was linked with anything that could be watched."""
        prepare(tmp_path, name, static=static)
        status, seen = watch(tracer, [f"./{name}"], tmp_path)
        assert status == 0
        assert str(tmp_path / "file") in seen.paths(Use.READ, Use.STATED)
        if name != "path_descriptor":
            assert str(tmp_path / "file") in seen.paths(Use.READ)
        assert seen.incomplete == ()

    def test_paths_start_at_descriptors_and_working_directories(self, tracer: Tracer, tmp_path: Path) -> None:
        """Also at copies of descriptors, and after fchdir."""
        prepare(tmp_path, "relative_to_descriptor")
        status, seen = watch(tracer, ["./relative_to_descriptor"], tmp_path)
        assert (status, seen.incomplete) == (0, ())
        assert {str(tmp_path / "folder/inner"), str(tmp_path / "folder/deep")} <= seen.paths(Use.READ)
        assert str(tmp_path / "folder/none") in seen.paths(Use.ABSENT)

    def test_a_working_directory_may_be_shared(self, tracer: Tracer, tmp_path: Path) -> None:
        """Where a child goes, its parent is, if the kernel was told so."""
        prepare(tmp_path, "shared_directory")
        status, seen = watch(tracer, ["./shared_directory"], tmp_path)
        assert (status, seen.incomplete) == (0, ())
        assert str(tmp_path / "folder/inner") in seen.paths(Use.READ)

    def test_a_program_in_memory_is_followed(self, tracer: Tracer, tmp_path: Path) -> None:
        """What it reads is seen; that it cannot be read again may make the observation incomplete."""
        prepare(tmp_path, "memory_program")
        status, seen = watch(tracer, ["./memory_program"], tmp_path)
        assert status == 0
        assert str(tmp_path / "file") in seen.paths(Use.READ)

    def test_what_is_made_changed_moved_and_deleted_is_seen(self, tracer: Tracer, tmp_path: Path) -> None:
        """And told apart."""
        prepare(tmp_path, "changes_names")
        status, seen = watch(tracer, ["./changes_names"], tmp_path)
        assert (status, seen.incomplete) == (0, ())
        assert {str(tmp_path / name) for name in ("made", "moved", "new", "second", "link")} == seen.paths(
            Use.MADE, Use.CREATED
        )
        assert seen.paths(Use.DELETED) == {str(tmp_path / "other")}
        assert seen.paths(Use.CHANGED) == {str(tmp_path / "file")}
        assert seen.paths(Use.ATTRIBUTES) == {str(tmp_path / "made")}
        renamed = [(event.path, event.detail) for event in seen.events if event.use is Use.RENAMED]
        assert renamed == [(str(tmp_path / "made"), str(tmp_path / "moved"))]
        assert (str(tmp_path / "link"), "file") in {(e.path, e.detail) for e in seen.events if e.use is Use.FOLLOWED}

    def test_a_file_without_a_name_gets_one(self, tracer: Tracer, tmp_path: Path) -> None:
        """Made by O_TMPFILE, named by linkat."""
        prepare(tmp_path, "unnamed_file")
        status, seen = watch(tracer, ["./unnamed_file"], tmp_path)
        assert (status, seen.incomplete) == (0, ())
        assert seen.paths(Use.CREATED) == {str(tmp_path / "made")}

    def test_addresses_are_seen_and_told_apart(self, tracer: Tracer, tmp_path: Path) -> None:
        """Whether or not anybody answers."""
        prepare(tmp_path, "sockets")
        status, seen = watch(tracer, ["./sockets"], tmp_path)
        assert status == 0
        assert seen.paths(Use.INTERNET) == {"127.0.0.1:9", "127.0.0.1:10", "127.0.0.1:11"}
        assert str(tmp_path / "no-socket") in seen.paths(Use.LOCAL_SOCKET)

    def test_a_thread_that_talks_has_changed_no_path(self, tracer: Tracer, tmp_path: Path) -> None:
        """What it wrote over was the path of a call that has ended."""
        prepare(tmp_path, "thread_talks")
        status, seen = watch(tracer, ["./thread_talks"], tmp_path)
        assert (status, seen.incomplete) == (0, ())
        assert str(tmp_path / "none") in seen.paths(Use.ABSENT)
        assert str(tmp_path / "no-socket") in seen.paths(Use.LOCAL_SOCKET)

    @pytest.mark.parametrize("name", ESCAPES)
    def test_what_cannot_be_followed_is_declared(self, tracer: Tracer, tmp_path: Path, name: str) -> None:
        """One reason a name; the command itself is not disturbed."""
        prepare(tmp_path, name)
        plain = subprocess.run([f"./{name}"], cwd=tmp_path, check=False).returncode
        status, seen = watch(tracer, [f"./{name}"], tmp_path)
        assert status == plain
        assert (seen.incomplete == ()) == (plain == REFUSED)

    def test_a_program_with_rights_of_its_own_is_declared(self, tracer: Tracer, tmp_path: Path) -> None:
        """It does not get them under a tracer, so it may behave otherwise."""
        prepare(tmp_path)
        (tmp_path / "open_read").chmod(0o4755)
        assert watch(tracer, ["./open_read"], tmp_path)[1].incomplete != ()

    def test_threads_that_race_lose_nothing(self, tracer: Tracer, tmp_path: Path) -> None:
        """Eight threads look for fifty names each."""
        prepare(tmp_path, "threads")
        status, seen = watch(tracer, ["./threads"], tmp_path)
        assert (status, seen.incomplete) == (0, ())
        expected = {str(tmp_path / f"none-{thread}-{at}") for thread in range(8) for at in range(50)}
        assert expected <= seen.paths(Use.ABSENT)

    def test_fifty_thousand_events_are_all_seen(self, tracer: Tracer, tmp_path: Path) -> None:
        """As fast as they come."""
        prepare(tmp_path, "many")
        status, seen = watch(tracer, ["./many"], tmp_path)
        assert (status, seen.incomplete) == (0, ())
        assert {str(tmp_path / f"none-{at}") for at in range(50_000)} <= seen.paths(Use.ABSENT)

    def test_a_bad_pointer_is_the_programs_own_affair(self, tracer: Tracer, tmp_path: Path) -> None:
        """The kernel's answer is the same as without a tracer."""
        prepare(tmp_path, "bad_pointer")
        status, seen = watch(tracer, ["./bad_pointer"], tmp_path)
        assert (status, seen.incomplete) == (0, ())

    def test_asking_for_a_handle_is_asking_whether_it_is_there(self, tracer: Tracer, tmp_path: Path) -> None:
        """Where the filesystem has handles or not."""
        prepare(tmp_path, "file_handles")
        status, seen = watch(tracer, ["./file_handles"], tmp_path)
        assert (status, seen.incomplete) == (0, ())
        assert str(tmp_path / "other") in seen.paths(Use.STATED)
        assert str(tmp_path / "none") in seen.paths(Use.ABSENT)

    def test_what_a_path_leaves_again_must_be_there(self, tracer: Tracer, tmp_path: Path) -> None:
        """If it is not, that is what was found absent, and not what the path would lead to."""
        prepare(tmp_path)
        status, seen = watch(tracer, ["sh", "-c", "test -e none/../file || test -e other/../file"], tmp_path)
        assert (status, seen.incomplete) == (1, ())
        assert str(tmp_path / "none") in seen.paths(Use.ABSENT)
        assert str(tmp_path / "other") in seen.paths(Use.STATED)
        assert str(tmp_path / "file") not in seen.paths(Use.ABSENT)

    def test_a_program_that_may_not_debug_is_declared(self, tracer: Tracer, tmp_path: Path) -> None:
        """It could without a tracer, so it may behave otherwise."""
        prepare(tmp_path, "traces")
        assert watch(tracer, ["./traces"], tmp_path)[1].incomplete != ()

    @pytest.mark.parametrize(
        "name", ["locks_memory", "cancelled", "keeps_registers", "handles_signals", "second_library"]
    )
    def test_a_program_behaves_as_it_would(self, tracer: Tracer, tmp_path: Path, name: str) -> None:
        """Memory, registers and signals are its own, and its threads can be cancelled where they wait."""
        prepare(tmp_path, name)
        assert watch(tracer, [f"./{name}"], tmp_path)[0] == 0

    def test_a_script_leads_to_its_interpreter_and_the_loader(self, tracer: Tracer, tmp_path: Path) -> None:
        """What the kernel reads itself is no system call, and still an input."""
        prepare(tmp_path)
        script = tmp_path / "script"
        script.write_text("#!/bin/sh\ncat file | cat; ls folder; test -e none; exit 3\n")
        script.chmod(0o755)
        status, seen = watch(tracer, ["./script"], tmp_path)
        assert (status, seen.incomplete) == (3, ())
        assert str(script) in seen.paths(Use.EXECUTED)
        assert os.path.realpath("/bin/sh") in seen.paths(Use.READ)
        assert os.path.realpath("/bin/cat") in seen.paths(Use.EXECUTED)
        assert any("ld-" in path for path in seen.paths(Use.READ))
        assert str(tmp_path / "folder") in seen.paths(Use.LISTED)
        assert str(tmp_path / "none") in seen.paths(Use.ABSENT)

    def test_processes_are_told_with_parent_programs_and_end(self, tracer: Tracer, tmp_path: Path) -> None:
        """The command first."""
        prepare(tmp_path, "vfork_child")
        _, seen = watch(tracer, ["./vfork_child"], tmp_path)
        command, child = seen.processes
        assert (command.parent, command.status, child.status) == (0, 0, 0)
        assert child.parent == command.pid
        assert child.programs == (str(tmp_path / "open_read"),)
        assert command.started_ns <= child.started_ns <= (child.ended_ns or 0) <= (command.ended_ns or 0)
        readers = {event.process for event in seen.events if event.path == str(tmp_path / "file")}
        assert readers == {child.pid}

    def test_what_was_there_before_a_change_is_told_or_left_open(self, tracer: Tracer, tmp_path: Path) -> None:
        """A tracer that cannot know it says so."""
        (tmp_path / "file").write_text("12345")
        (tmp_path / "file").chmod(0o640)
        (tmp_path / "other").write_text("1234567")
        os.utime(tmp_path / "other", ns=(5, 7))
        script = "echo x > new; echo y >> file; mkdir d; mv new d/x; rm other; cd d; echo y > ../file"
        status, seen = watch(tracer, ["sh", "-c", script], tmp_path)
        assert (status, seen.incomplete) == (0, ())
        before: dict[tuple[Use, str], Before | None] = {}
        for event in seen.events:
            before.setdefault((event.use, event.path.removeprefix(f"{tmp_path}/")), event.before)
        assert (Use.CREATED, "d") in before
        known = self.knows_what_was_before
        assert before[Use.MADE, "new"] == before[Use.MADE, "d/x"] == (Before(0) if known else None)
        assert before[Use.DELETED, "other"] == (Before(0o100644, 7, 7, 1, os.getuid(), os.getgid()) if known else None)
        changed, made = before[Use.CHANGED, "file"], before[Use.MADE, "file"]
        assert ((changed.mode, changed.size, changed.links) if changed else None) == (
            (0o100640, 5, 1) if known else None
        )
        assert (made and made.size) == (7 if known else None)

    def test_python_is_seen_through(self, tracer: Tracer, tmp_path: Path) -> None:
        """A large dynamic program that looks in many places."""
        prepare(tmp_path)
        program = "import json, os, pathlib; pathlib.Path('file').read_text(); os.listdir('folder')"
        status, seen = watch(tracer, [os.path.realpath(sys.executable), "-I", "-c", program], tmp_path)
        assert (status, seen.incomplete) == (0, ())
        assert str(tmp_path / "file") in seen.paths(Use.READ)
        assert str(tmp_path / "folder") in seen.paths(Use.LISTED)

    def test_exit_statuses_and_signals_come_through(self, tracer: Tracer, tmp_path: Path) -> None:
        """As `subprocess` says them; a signal that is sent reaches the command itself."""
        assert watch(tracer, ["sh", "-c", "exit 7"], tmp_path)[0] == 7
        process = tracer.start(TracedCommand(["sleep", "60"], str(tmp_path), dict(os.environ)))
        _tracer_of(process.pid)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM
        assert process.observe().processes[0].status == -signal.SIGTERM

    def test_a_command_sees_no_trace_of_the_tracer(self, tracer: Tracer, tmp_path: Path) -> None:
        """Its environment and its descriptors are as they would be."""
        shell = ["sh", "-c", "{ env; ls /proc/self/fd; } | grep -v -e ^_= -e ^OLDPWD= | sort > seen"]
        watch(tracer, shell, tmp_path)
        traced = (tmp_path / "seen").read_text().splitlines()
        subprocess.run(shell, cwd=tmp_path, env=dict(os.environ), stdin=subprocess.DEVNULL, check=True)
        plain = (tmp_path / "seen").read_text().splitlines()
        assert traced == plain, set(traced) ^ set(plain)

    def test_a_program_is_loaded_with_what_it_would_be(self, tracer: Tracer, tmp_path: Path) -> None:
        """As the loader tells, and with a sanitizer that insists on being the first library."""
        prepare(tmp_path)
        shell = ["sh", "-c", "LD_TRACE_LOADED_OBJECTS=1 ./open_read | sed 's/ (.*//' > seen"]
        watch(tracer, shell, tmp_path)
        traced = (tmp_path / "seen").read_text()
        subprocess.run(shell, cwd=tmp_path, check=True)
        assert traced == (tmp_path / "seen").read_text()
        (tmp_path / "main.c").write_text("int main(void) { return 0; }")
        subprocess.run(["gcc", "-fsanitize=address", "-o", "sanitized", "main.c"], cwd=tmp_path, check=True)
        assert watch(tracer, ["env", "ASAN_OPTIONS=detect_leaks=0", "./sanitized"], tmp_path)[0] == 0

    @pytest.mark.parametrize(("name", "error"), [("./file", errno.EACCES), ("no-such-program", errno.ENOENT)])
    def test_what_cannot_be_started_is_said_at_once(
        self, tracer: Tracer, tmp_path: Path, name: str, error: int
    ) -> None:
        """As `subprocess.Popen` does."""
        prepare(tmp_path)
        with pytest.raises(OSError) as caught:
            tracer.start(TracedCommand([name], str(tmp_path), dict(os.environ)))
        assert caught.value.errno == error

    def test_a_killed_tracer_neither_hangs_the_command_nor_is_believed(self, tracer: Tracer, tmp_path: Path) -> None:
        """The command may end with it."""
        prepare(tmp_path)
        process = tracer.start(TracedCommand(["sh", "-c", "sleep 1; cat file"], str(tmp_path), dict(os.environ)))
        os.kill(_tracer_of(process.pid), signal.SIGKILL)
        deadline_s = time.monotonic() + 20
        while process.poll() is None:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        assert process.observe().incomplete != ()


def _tracer_of(pid: int) -> int:
    """Wait until a process is traced; return by whom."""
    deadline_s = time.monotonic() + 10
    while True:
        status = Path(f"/proc/{pid}/status").read_text()
        found = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("TracerPid:"))
        if found:
            return found
        assert time.monotonic() < deadline_s
        time.sleep(0.001)
