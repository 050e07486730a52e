"""Both tracers keep the contract, and see the same: of small programs, and of real builds."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tvplugins.tracer import native_tracer, repeats, strace

from taskvault.demo import BUILD, Demo, fetched_source
from tests.waiting import wait_until
from tvfs.plugin_api import Observation, TracedCommand, Tracer, Use
from tvfs.testing.hash_contract import refuses_unknown_parameters
from tvfs.testing.tracer_contract import ESCAPES, TracerContract, prepare, watch
from tvfs.testing.tracer_programs import SOURCES

TRACERS = {"native": native_tracer.make, "strace": strace.make}
PROGRAM = str(native_tracer.PROGRAM)
RUST = 'fn main() { let _ = std::fs::read("file").unwrap(); assert!(std::fs::metadata("none").is_err()); }'


class TestStrace(TracerContract):
    knows_what_was_before = False

    def make_tracer(self) -> Tracer:
        return strace.make({})


class TestNative(TracerContract):
    def make_tracer(self) -> Tracer:
        return native_tracer.make({})


class TestNativeWithNothingInside(TracerContract):
    """What it sees does not depend on what it puts into programs."""

    def make_tracer(self) -> Tracer:
        return native_tracer.NativeTracer(image=None)


class TestNativeWithoutTheLibrary(TracerContract):
    """Nor on what passes over repeats."""

    @pytest.fixture(autouse=True)
    def no_library(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
        monkeypatch.setattr(repeats, "LIBRARY", tmp_path / "gone.so")
        repeats.library.cache_clear()
        assert repeats.library() is None
        yield
        repeats.library.cache_clear()

    def make_tracer(self) -> Tracer:
        return native_tracer.make({})


def test_without_memory_for_the_walk_each_call_is_taken_by_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(repeats.Repeats, "__init__", refuse)
    (tmp_path / "file").write_text("x")
    process = native_tracer.make({}).start(TracedCommand(["cat", "file"], str(tmp_path), {"PATH": os.defpath}))
    seen = process.observe()
    assert (str(tmp_path / "file") in seen.paths(Use.READ), seen.incomplete) == (True, ())


def test_unknown_parameters_are_refused_by_name() -> None:
    refuses_unknown_parameters(strace.make)
    refuses_unknown_parameters(native_tracer.make)


def test_a_tracer_that_was_not_compiled_says_what_to_do(tmp_path: Path) -> None:
    tracer = native_tracer.NativeTracer(program=tmp_path / "nothing")
    assert "gcc" in tracer.trouble()
    with pytest.raises(OSError, match="gcc"):
        tracer.start(TracedCommand(["true"], "/", {}))


@pytest.mark.parametrize("caller", ["ulimit -f 8192; ulimit -v 900000", "exec 0<&- 1>&-", "exec 0<&-", "exec 2>&-"])
@pytest.mark.parametrize("name", ["native", "strace"])
def test_a_caller_may_have_limits_and_closed_streams(tmp_path: Path, name: str, caller: str) -> None:
    (tmp_path / "file").touch()
    program = [sys.executable, "-c", f"from tests.contract.test_tracer_plugins import trace; trace({name!r})"]
    environment = dict(os.environ) | {"PYTHONPATH": str(Path(__file__).parents[2])}
    shell = ["sh", "-c", f'{caller}; exec "$@"', "sh", *program]
    subprocess.run(shell, cwd=tmp_path, env=environment, check=True)


def trace(name: str) -> None:
    """Run in a process of its own."""
    here = str(Path.cwd())
    process = TRACERS[name]({}).start(TracedCommand(["sh", "-c", "test -e file && exit 3"], here, dict(os.environ)))
    assert process.wait() == 3
    seen = process.observe()
    assert seen.incomplete == ()
    assert f"{here}/file" in seen.paths(Use.STATED)


def test_what_a_command_leaves_behind_goes_on_after_the_record_was_closed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    script = "(exec 3>>pipe; echo yes > survived) & echo $! > pid"
    assert watch(native_tracer.make({}), ["sh", "-c", script], tmp_path)[1].incomplete != ()
    left = Path("/proc", (tmp_path / "pid").read_text().strip())
    tracer = re.search(r"TracerPid:\s+(\d+)", (left / "status").read_text())
    assert tracer is not None
    wait_until(lambda: "taskvault-trace" not in Path("/proc", tracer[1], "maps").read_text().replace(PROGRAM, ""))
    (tmp_path / "pipe").read_bytes()
    wait_until(lambda: (tmp_path / "survived").exists() or not left.exists())
    assert (tmp_path / "survived").exists()


def test_a_full_record_is_declared_and_stops_nobody(tmp_path: Path) -> None:
    prepare(tmp_path, "many")
    program = "from tests.contract.test_tracer_plugins import fill; fill()"
    environment = dict(os.environ) | {"PYTHONPATH": str(Path(__file__).parents[2])}
    # As little as the tracer takes.
    limited = ["prlimit", f"--fsize={1 << 21}", "--", sys.executable, "-c", program]
    subprocess.run(limited, cwd=tmp_path, env=environment, check=True)


def test_frequent_calls_do_not_stop(tmp_path: Path) -> None:
    prepare(tmp_path, "many")
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_nvcsw
    assert watch(native_tracer.make({}), ["./many"], tmp_path)[0] == 0
    # Each of 50,000 calls would have stopped twice, and a stop waits for the tracer.
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_nvcsw - before < 1000


def test_a_dump_of_a_crash_leaves_the_record_out(tmp_path: Path) -> None:
    watch(native_tracer.make({}), ["sh", "-c", "cat /proc/self/smaps > maps"], tmp_path)
    (mapped,) = re.findall(
        r" rw-s .*?/memfd:taskvault-trace.*?VmFlags: ([^\n]*)", (tmp_path / "maps").read_text(), re.DOTALL
    )
    assert "dd" in mapped.split()


def test_the_code_with_jumps_is_shared_by_all_programs(tmp_path: Path) -> None:
    watch(native_tracer.make({}), ["sh", "-c", "cat /proc/self/smaps > maps"], tmp_path)
    mapped = re.findall(
        r" r-xp \w+ [^\n]*/memfd:taskvault-trace(.*?)VmFlags", (tmp_path / "maps").read_text(), re.DOTALL
    )
    assert len(mapped) == 3  # the block, the loader, the C library
    assert all(re.search(r"^Anonymous: +0 kB$", facts, re.MULTILINE) for facts in mapped)


def fill() -> None:
    """Run in a process of its own."""
    status, seen = watch(native_tracer.make({}), ["./many"], Path.cwd())
    assert status == 0
    assert any("room" in reason for reason in seen.incomplete)


def test_a_program_that_may_not_read_the_record_does_not_hear_of_it(tmp_path: Path) -> None:
    image = tmp_path / "inside.bin"
    shutil.copy(native_tracer.IMAGE, image)
    shell = ["sh", "-c", f"setpriv --reuid=65534 --clear-groups cat /dev/null 2>{tmp_path}/said"]
    plain = subprocess.run(shell, check=False).returncode
    said = (tmp_path / "said").read_text()
    assert watch(native_tracer.NativeTracer(image=image), shell, tmp_path)[0] == plain
    assert (tmp_path / "said").read_text() == said


def told(seen: Observation) -> set[tuple[str, str, str, str]]:
    """What happened, with the program that did it in place of numbers that differ from run to run."""
    programs = {process.pid: process.programs[-1] if process.programs else "" for process in seen.processes}
    return {(event.use, event.path, event.detail, programs[event.process]) for event in seen.events}


@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
@pytest.mark.parametrize("name", sorted(set(SOURCES) - set(ESCAPES) - {"many"}))
def test_both_see_the_same_of_a_small_program(tmp_path: Path, name: str, static: bool) -> None:
    seen = []
    for tracer in (strace.make({}), native_tracer.make({})):
        place = tmp_path / "place"
        place.mkdir()
        prepare(place, name, static=static)
        seen.append(watch(tracer, [f"./{name}"], place))
        shutil.rmtree(place)
    (first, referee), (second, native) = seen
    assert first == second
    assert native.incomplete == () or referee.incomplete != (), native.incomplete
    assert told(referee) == told(native)


@pytest.fixture(scope="module")
def rust_program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if shutil.which("rustc") is None:
        pytest.skip("needs rustc")
    folder = tmp_path_factory.mktemp("rust")
    (folder / "reads.rs").write_text(RUST)
    subprocess.run(["rustc", "-o", "reads", "reads.rs"], cwd=folder, check=True)
    return folder / "reads"


def test_both_see_the_same_of_a_rust_program(tmp_path: Path, rust_program: Path) -> None:
    prepare(tmp_path)
    (first, referee), (second, native) = (
        watch(tracer, [str(rust_program)], tmp_path) for tracer in (strace.make({}), native_tracer.make({}))
    )
    assert (first, second, referee.incomplete, native.incomplete) == (0, 0, (), ())
    assert told(referee) == told(native)
    assert str(tmp_path / "file") in native.paths(Use.READ)


@pytest.fixture(scope="module")
def lua() -> Path:
    """The source that the demonstration builds, kept between test runs."""
    place = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "taskvault-tests"
    place.mkdir(parents=True, exist_ok=True)
    return fetched_source(Demo(place))


PART = ("lapi.o", "lauxlib.o", "lcode.o", "lctype.o", "ldump.o", "linit.o", "lmem.o", "lzio.o")


@pytest.mark.parametrize("targets", [PART, pytest.param(("lua",), marks=pytest.mark.slow)], ids=["part", "whole"])
def test_both_see_the_same_of_a_real_build(tmp_path: Path, lua: Path, targets: tuple[str, ...]) -> None:
    build = [argument.replace("-j2", "-j1") for argument in BUILD if argument != "lua"] + list(targets)
    seen = []
    for tracer in (strace.make({}), native_tracer.make({})):
        place = tmp_path / "lua"
        shutil.copytree(lua, place)
        seen.append(watch(tracer, build, place))
        shutil.rmtree(place)
    (first, referee), (second, native) = seen
    assert (first, second, referee.incomplete, native.incomplete) == (0, 0, (), ())
    assert with_same_temporary_names(referee) == with_same_temporary_names(native)
    assert len(native.events) > 100 * len(targets)


def with_same_temporary_names(seen: Observation) -> set[tuple[str, ...]]:
    """Compilers and archivers make up new names each time."""
    return {tuple(re.sub(r"/(cc|st)[A-Za-z0-9]{6}(?=$|[./])", r"/\1", word) for word in fact) for fact in told(seen)}
