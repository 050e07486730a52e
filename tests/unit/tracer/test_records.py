"""What the tracers write is understood, or makes the observation incomplete."""

from __future__ import annotations

import errno
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tvplugins.tracer.calls import FORBIDDEN, O_TRUNC, SIGNATURES, Call, Called, Clone, Exec, Exit, Place, Raw, Trouble
from tvplugins.tracer.native_record import NativeRecord
from tvplugins.tracer.native_tracer import PROGRAM
from tvplugins.tracer.programs import HeaderUnclear, interpreter_of
from tvplugins.tracer.strace_output import StraceOutput

from tests.unit.tracer.native_entries import native_entry, native_record

paths = st.binary(min_size=1, max_size=40).filter(lambda raw: b"\0" not in raw)


def quoted(raw: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in raw)


def text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def parse(*lines: str) -> list[Raw]:
    output = StraceOutput(7)
    events = list(output.feed("".join(f"7  1700000000.000001 {line}\n" for line in lines)))
    return events + list(output.finish())


@given(path=paths, base=paths)
def test_any_name_comes_through_strace(path: bytes, base: bytes) -> None:
    (event,) = parse(f'openat(3</{quoted(base)}>, "{quoted(path)}", 0x80000) = -1 ENOENT (No such file or directory)')
    place = Place(text(path), "")
    assert isinstance(event, Trouble)  # a descriptor's path is all hexadecimal
    (event,) = parse(f'openat(3<{quoted(base)}>, "{quoted(path)}", 0x80000) = -1 ENOENT (No such file or directory)')
    assert event == Called(
        7, 1700000000000001000, Call("openat", -errno.ENOENT, 0x80000, (Place(place.path, text(base)),))
    )


def test_calls_that_others_interrupt_are_put_together() -> None:
    output = StraceOutput(7)
    lines = [
        '7  1.000001 unlink("\\x61" <unfinished ...>',
        "8  1.000002 +++ exited with 3 +++",
        "7  1.000003 <... unlink resumed>) = 0",
        "7  1.000004 --- SIGCHLD {si_signo=17, si_code=1} ---",
        "7  1.000005 +++ killed by SIGRT_1 +++",
    ]
    events = list(output.feed("\n".join(lines) + "\n"))
    assert events == [
        Exit(8, 1_000_002_000, 3),
        Called(7, 1_000_003_000, Call("unlink", 0, 0, (Place("a"),))),
        Exit(7, 1_000_005_000, -33),
    ]
    assert output.alive == set()


def test_a_child_began_before_it_ended_however_late_its_parent_returns() -> None:
    output = StraceOutput(7)
    lines = [
        "7  1.000001 vfork( <unfinished ...>",
        "8  1.000002 +++ exited with 0 +++",
        "7  1.000003 <... vfork resumed>) = 8",
        "7  1.000004 +++ exited with 0 +++",
    ]
    assert list(output.feed("\n".join(lines) + "\n")) == [
        Exit(8, 1_000_002_000, 0),
        Clone(7, 1_000_001_000, 8, 0),
        Exit(7, 1_000_004_000, 0),
    ]


def test_a_thread_that_executes_takes_its_process_over() -> None:
    output = StraceOutput(7)
    lines = [
        '8  1.000001 execve("\\x61", [...], 0x7f /* 3 vars */ <pid changed to 7 ...>',
        "7  1.000002 +++ superseded by execve in pid 8 +++",
        "7  1.000003 <... execve resumed>) = -1 (errno 18446744073709551595)",
    ]
    assert list(output.feed("\n".join(lines) + "\n")) == [Exec(7, 1_000_003_000, 8, Place("a"))]


CUT_SHORT = [
    "7  1.000001 clone3({flags=0x3d0f00, stack_size=0x7fff80} <unfinished ...>",
    '8  1.000002 execve("\\x61", [...], 0x7f /* 3 vars */ <pid changed to 7 ...>',
    "7  1.000003 <... clone3 resumed> <unfinished ...>) = ?",
]


def test_a_thread_may_take_its_process_over_before_the_call_that_made_it_has_returned() -> None:
    output = StraceOutput(7)
    lines = [*CUT_SHORT, "7  1.000004 +++ superseded by execve in pid 8 +++", "7  1.000005 <... execve resumed>) = 0"]
    assert list(output.feed("\n".join(lines) + "\n")) == [
        Clone(7, 1_000_001_000, 8, 0x3D0F00),
        Exec(7, 1_000_005_000, 8, Place("a")),
    ]
    assert list(output.finish()) == []


@pytest.mark.parametrize("end", [[], ["7  1.000004 +++ killed by SIGKILL +++"]])
def test_a_call_that_makes_a_task_and_never_returns_is_trouble(end: list[str]) -> None:
    output = StraceOutput(7)
    seen = [*output.feed("\n".join([CUT_SHORT[0], CUT_SHORT[2], *end]) + "\n"), *output.finish()]
    assert Trouble("a process ended in a call that makes processes") in seen


def test_a_thread_that_was_made_before_is_not_taken_for_the_one_that_was_being_made() -> None:
    output = StraceOutput(7)
    lines = [
        "7  1.000000 clone3({flags=0x3d0f00, stack_size=0x7fff80}) = 8",
        *CUT_SHORT,
        "7  1.000004 +++ superseded by execve in pid 8 +++",
        "7  1.000005 <... execve resumed>) = 0",
    ]
    made, *rest = output.feed("\n".join(lines) + "\n")
    assert made == Clone(7, 1_000_000_000, 8, 0x3D0F00)
    assert rest == [Trouble("a process ended in a call that makes processes"), Exec(7, 1_000_005_000, 8, Place("a"))]


def test_what_was_being_made_and_is_no_thread_takes_no_process_over() -> None:
    output = StraceOutput(7)
    lines = [
        CUT_SHORT[0].replace("0x3d0f00", "0x11"),
        *CUT_SHORT[1:],
        "7  1.000004 +++ superseded by execve in pid 8 +++",
    ]
    assert [*output.feed("\n".join(lines) + "\n"), *output.finish()] == [
        Trouble("a process ended in a call that makes processes"),
        Trouble("a call of execve did not return"),
    ]


def test_addresses_flags_and_clones_are_read() -> None:
    (talked,) = parse('connect(3, {sa_family=0x2, sin_port="\\x00\\x09", sin_addr="\\x7f\\x00\\x00\\x01"}, 16) = 0')
    assert talked == Called(7, 1700000000000001000, Call("connect", 0, outcome="internet 127.0.0.1:9"))
    (clone,) = parse("clone(child_stack=NULL, flags=0x1200000|17, child_tidptr=0x7f) = 9")
    assert isinstance(clone, Clone)
    assert (clone.child, clone.flags) == (9, 0x1200000)
    (looked,) = parse('statx(-100<\\x2f>, "\\x2e", |0x900, 0x102, {stx_mask=0x1, ...}) = 0')
    assert isinstance(looked, Called)
    assert looked.call.flags == 0x900


@given(st.text(alphabet="abc(){}[]<>=, \"'\\x0+-?.", max_size=60))
def test_no_line_is_passed_over(line: str) -> None:
    assert parse(line) != []


KINDS = {1: "openat", 2: "newfstatat"}
ENTRIES = st.builds(
    native_entry,
    st.sampled_from(sorted(KINDS)),
    st.integers(1, 3),
    st.integers(1, 9),
    st.sampled_from([0, 3, -errno.ENOENT]),
    st.sampled_from([0, O_TRUNC]),
    st.sampled_from([(b"", b"a", b""), (b"", b"b", b""), (b"", b"a", b"/d"), (b"", b"a")]),
)


@given(st.lists(ENTRIES, max_size=12))
def test_a_call_of_a_native_record_is_the_same_wherever_it_stands(entries: list[bytes]) -> None:
    alone = [next(NativeRecord(native_record(entry), KINDS).events()) for entry in entries]
    assert list(NativeRecord(native_record(*entries), KINDS).events())[: len(entries)] == alone


@given(cut=st.integers(0, 200), name=st.sampled_from(sorted(SIGNATURES)), garbage=st.binary(max_size=200), path=paths)
def test_a_damaged_native_record_is_declared_and_never_raises(cut: int, name: str, garbage: bytes, path: bytes) -> None:
    entry = native_entry(1, 7, 5, 0, 0, (b"", path, b""))
    events = list(NativeRecord(native_record((entry + garbage)[:cut]), {1: name}).events())
    assert isinstance(events[-1], Trouble)


def test_the_native_program_and_the_fold_agree_on_every_call() -> None:
    listed = subprocess.run([PROGRAM, "--calls"], capture_output=True, text=True, check=True).stdout
    theirs = {fields[1]: fields[2:] for fields in (line.split() for line in listed.splitlines())}
    ours = {}
    for name, signature in SIGNATURES.items():
        at = [-1 if number is None else number for place in signature.at for number in place]
        at += [-1] * (4 - len(at))
        rest = [-1 if number is None else number for number in (signature.flags, signature.address)]
        ours[name] = [str(number) for number in (*at, *rest, 0)]
    ours |= {name: ["-1"] * 6 + ["1"] for name in FORBIDDEN}
    assert theirs == ours


@given(st.binary(max_size=300))
def test_no_header_of_a_program_raises_anything_else(header: bytes) -> None:
    for beginning in (b"", b"#!", b"\x7fELF\x02", b"\x7fELF\x01"):
        try:
            interpreter_of(beginning + header)
        except HeaderUnclear:
            continue
