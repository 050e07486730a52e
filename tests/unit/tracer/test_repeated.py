"""Records that are folded past what repeats come to what every call, taken by itself, comes to."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from dataclasses import replace

from hypothesis import example, given, settings
from hypothesis import strategies as st
from tvplugins.tracer import repeats
from tvplugins.tracer.calls import CLONE_FS, CLONE_THREAD, O_CREAT, O_RDWR, O_TRUNC, O_WRONLY
from tvplugins.tracer.fold import observe
from tvplugins.tracer.native_record import NativeRecord
from tvplugins.tracer.repeated import observe_repeated

from tests.unit.tracer.native_entries import (
    CLONED,
    END,
    ENDED,
    EXECUTED,
    in_a_file,
    native_entry,
    native_record,
)
from tests.unit.tracer.test_fold import DictDisk
from tvfs.plugin_api import Observation

NAMES = dict(
    enumerate(
        (
            "openat", "stat", "lstat", "readlink", "unlink", "chdir", "mkdir", "open", "execve", "symlink", "rename",
            "newfstatat", "getdents64", "unshare", "listen", "made_up",
        ),
        start=1,
    )
)  # fmt: skip
KINDS = {name: kind for kind, name in NAMES.items()}
DISK = DictDisk(
    links={"/work/l": "d", "/l2": "/proc/1/cwd", "/l3": "proc"},
    directories={"/work", "/work/d"},
    headers={"/work/a": b"#!/bin/sh\n"},
)
BEFORE = struct.Struct("=IIIIQq")
Entry = Callable[[int], bytes]
"""Of a task."""
FINISHED = native_entry(END, 0, 9, 0, 0)


def folded(*entries: bytes) -> tuple[Observation, int]:
    """What comes of a record, and how often the walk over it stopped."""
    library = repeats.library()
    assert library is not None
    record = native_record(*entries, FINISHED)
    seen = NativeRecord(record, NAMES)
    stops = 0

    class Counted(NativeRecord):
        def events_at(self, *arguments: object) -> object:  # type: ignore[override]
            nonlocal stops
            for event in super().events_at(*arguments):  # type: ignore[arg-type]
                stops += 1
                yield event

    plain = observe(list(seen.events()), command=1, directory="/work", disk=replace(DISK))
    with in_a_file(record) as descriptor:
        quick = observe_repeated(
            Counted(record, NAMES), descriptor, library, command=1, directory="/work", disk=replace(DISK)
        )
    assert quick == plain
    return quick, stops


def made(
    name: str, *paths: str, result: int = 0, flags: int = 0, outcome: str = "", before: int | None = None
) -> Entry:
    """A call, by whoever makes it; `before` is the size of what was there."""
    places = [text for path in paths for text in (path.encode(), b"")]
    told = [] if before is None else [BEFORE.pack(0o100644, 1, 0, 0, before, 7)] * len(paths)
    return lambda tid: native_entry(KINDS[name], tid, 5, result, flags, [outcome.encode(), *places, *told])


def looked(path: str, result: int = 0, flags: int = 0, name: str = "openat") -> Entry:
    return made(name, path, result=result, flags=flags)


def cloned(child: int, flags: int = 0) -> Entry:
    return lambda tid: native_entry(CLONED, tid, 5, child, flags)


def ended(tid: int) -> bytes:
    return native_entry(ENDED, tid, 9, 0, 0)


def executed(former: int, path: str) -> Entry:
    return lambda tid: native_entry(EXECUTED, tid, 6, former, 0, [b"", path.encode(), b"", b"\x7fELF", b"a\0b\0"])


def of_as_many_bytes(tid: int) -> bytes:
    """An entry that differs from that of an empty path in the number of its strings only."""
    return native_entry(KINDS["openat"], tid, 5, 0, 0, [b""])


PATHS = st.sampled_from(
    ["a", "/work/a", "d/x", "/work/d/x", "l/x", "..", "/", "/proc/1/exe", "/proc/self/stat", "proc/1/cwd/a", "/l2",
     "/l3/1/cwd/a"]
)  # fmt: skip
TASKS = st.integers(1, 4)
LOOKS = ["openat", "stat", "lstat", "readlink", "open", "execve", "newfstatat", "getdents64"]
CALLS = st.one_of(
    st.builds(
        lambda name, path, result, flags, outcome, before: made(
            name, path, result=result, flags=flags, before=before,
            outcome=outcome or (path if name == "readlink" else ""),
        ),
        st.sampled_from([*LOOKS, *LOOKS, "unlink", "chdir", "mkdir", "unshare", "listen", "made_up"]),
        PATHS,
        st.sampled_from([0, -errno.ENOENT, -errno.EACCES, -errno.ENOTDIR, 3]),
        st.sampled_from([0, 0, 0, CLONE_FS, O_WRONLY | O_CREAT | O_TRUNC, O_RDWR]),
        st.sampled_from(["", "", "", "/work/other"]),
        st.sampled_from([None, None, 3]),
    ),
    st.builds(
        lambda name, source, target: made(name, source, target, before=1),
        st.sampled_from(["symlink", "rename"]),
        PATHS,
        PATHS,
    ),
)  # fmt: skip
ENTRIES = st.one_of(
    CALLS,
    CALLS,
    CALLS,
    st.builds(cloned, TASKS, st.sampled_from([0, CLONE_FS, CLONE_THREAD | CLONE_FS])),
    st.builds(executed, TASKS, PATHS),
    st.just(ended),
)
CHILDREN = (cloned(2)(1), cloned(3, CLONE_FS)(1), cloned(4, CLONE_THREAD | CLONE_FS)(2))
PICKS = st.lists(st.tuples(st.integers(0, 7), TASKS, st.integers(1, 3)), max_size=30)
GO_AWAY = looked("d", name="chdir")


@settings(max_examples=600)
@given(st.lists(ENTRIES, min_size=1, max_size=8), PICKS)
@example([looked("a"), GO_AWAY], [(0, 1, 3), (1, 1, 1), (0, 1, 3)])
@example([looked("a"), GO_AWAY], [(0, 3, 3), (1, 1, 1), (0, 3, 3), (0, 1, 1)])
@example([looked("/proc/1/exe")], [(0, 1, 2), (0, 2, 1)])
@example([looked("proc/1/cwd/x"), looked("/", name="chdir")], [(1, 1, 1), (0, 1, 3), (0, 2, 3)])
@example([looked("a"), made("symlink", "d", "a")], [(0, 1, 3), (1, 1, 1), (0, 2, 1), (0, 1, 1)])
@example([looked("a"), ended], [(0, 2, 3), (1, 2, 1), (0, 2, 1)])
@example([looked("a"), ended, cloned(2), GO_AWAY], [(0, 2, 3), (1, 2, 1), (3, 1, 1), (2, 1, 1), (0, 2, 2)])
@example([looked("a"), executed(4, "/bin/x")], [(0, 4, 3), (1, 2, 1), (0, 4, 1), (0, 2, 1)])
@example([looked(""), of_as_many_bytes], [(0, 1, 3), (1, 1, 1)])
@example([made("unlink", "a", before=3)], [(0, 1, 1)])
@example([made("openat", "a", flags=O_RDWR, before=3)], [(0, 1, 1)])
@example([looked("a"), made("openat", "a", flags=O_RDWR, before=3)], [(0, 1, 3), (0, 2, 1), (1, 2, 1)])
def test_whatever_repeats_means_what_it_would_mean_by_itself(
    different: list[Entry], picks: list[tuple[int, int, int]]
) -> None:
    entries = (different[number % len(different)](tid) for number, tid, times in picks for _ in range(times))
    folded(*CHILDREN, *entries)


def test_what_all_processes_look_at_is_understood_twice_and_noted_of_each() -> None:
    paths = [f"/usr/include/{number}" for number in range(50)]
    entries: list[bytes] = []
    for child in range(2, 102):
        entries.append(cloned(child)(1))
        entries += [looked(path, -errno.ENOENT)(child) for path in paths]
        entries.append(ended(child))
    seen, stops = folded(*entries, ended(1))
    assert len(seen.events) == 100 * 50
    assert {event.process for event in seen.events} == set(range(2, 102))
    assert stops == 1 + 2 * 50 + 100 + 100 + 1, "once more to see when it began"
    assert seen.incomplete == ()


def test_thousands_of_different_calls_of_many_tasks_are_told_apart() -> None:
    entries: list[bytes] = [cloned(child)(1) for child in range(2, 10)]
    for _ in range(3):
        for number in range(3000):
            entries.append(looked(f"f{number}")(1 + number % 9))
    seen, stops = folded(*entries)
    assert [event.path for event in seen.events] == [f"/work/f{number}" for number in range(3000)]
    assert stops == 1 + 8 + 2 * 3000


def test_a_process_that_no_kernel_makes_is_declared() -> None:
    for child in (0, -1, 1 << 22, (1 << 40) + 2):
        seen, _ = folded(cloned(child)(1), looked("a")(2), ended(1))
        assert "the tracer wrote something that is not understood" in seen.incomplete


def test_a_record_that_is_full_has_no_walk() -> None:
    library = repeats.library()
    assert library is not None
    record = (1 << 60).to_bytes(8, "little") + native_record(looked("a")(1))[8:]
    with in_a_file(record) as descriptor:
        told = observe_repeated(
            NativeRecord(record, NAMES), descriptor, library, command=1, directory="/work", disk=DISK
        )
    assert told.incomplete[0] == "more happened than the tracer's record has room for"


def test_a_record_that_was_cut_says_so_all_the_same() -> None:
    entry = looked("a")(1)
    whole = native_record(entry, entry, entry, entry)
    library = repeats.library()
    for cut in range(len(whole) - 2 * len(entry), len(whole)):
        record = whole[:65536].replace((65536 + 4 * len(entry)).to_bytes(8, "little"), cut.to_bytes(8, "little"), 1)
        record += whole[65536:cut]
        seen = NativeRecord(record, NAMES)
        with in_a_file(record) as descriptor:
            assert library is not None
            quick = observe_repeated(seen, descriptor, library, command=1, directory="/work", disk=DISK)
        assert quick == observe(list(seen.events()), command=1, directory="/work", disk=DISK)
        assert len(quick.incomplete) == 2, "it was still running, and the record has no end"
