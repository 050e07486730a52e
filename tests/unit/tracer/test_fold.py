"""The fold: what records mean.  The machine is a dictionary here."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from tvplugins.tracer.calls import (
    CLONE_FS,
    CLONE_THREAD,
    O_CREAT,
    O_RDWR,
    O_TRUNC,
    O_WRONLY,
    Call,
    Called,
    Clone,
    Exec,
    Exit,
    Place,
    Raw,
    Trouble,
)
from tvplugins.tracer.fold import observe
from tvplugins.tracer.links import Links, RealDisk

from tvfs.plugin_api import Observation, Use


@dataclass
class DictDisk:
    links: dict[str, str] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    headers: dict[str, bytes] = field(default_factory=dict)

    def link(self, path: str) -> str | None:
        return self.links.get(path)

    def header(self, path: str) -> bytes | None:
        return self.headers.get(path)

    def is_directory(self, path: str) -> bool:
        return path in self.directories

    def gains_rights(self, path: str) -> bool:
        return path.endswith("sudo")


def call(name: str, *places: str | Place, result: int = 0, flags: int = 0, tid: int = 1, outcome: str = "") -> Called:
    given = tuple(place if isinstance(place, Place) else Place(place) for place in places)
    return Called(tid, 5, Call(name, result, flags, given, outcome))


def fold(*events: Raw, disk: DictDisk | None = None, ended: bool = True) -> Observation:
    record = [*events, Exit(1, 9, 0)] if ended else list(events)
    return observe(record, command=1, directory="/work", disk=disk or DictDisk())


def uses(seen: Observation) -> list[tuple[Use, str]]:
    return [(event.use, event.path) for event in seen.events]


def test_how_a_file_is_opened_decides_what_it_is() -> None:
    seen = fold(
        call("openat", "read", result=3),
        call("openat", "both", result=3, flags=O_RDWR),
        call("openat", "new", result=3, flags=O_WRONLY | O_CREAT | O_TRUNC),
        call("openat", "more", result=3, flags=O_WRONLY | O_CREAT),
        call("openat", "gone", result=-errno.ENOENT),
        call("openat", "secret", result=-errno.EACCES),
        call("openat", "folder", result=3),
        disk=DictDisk(directories={"/work/folder"}),
    )
    assert uses(seen) == [
        (Use.READ, "/work/read"),
        (Use.READ, "/work/both"),
        (Use.CHANGED, "/work/both"),
        (Use.MADE, "/work/new"),
        (Use.CHANGED, "/work/more"),
        (Use.ABSENT, "/work/gone"),
        (Use.REFUSED, "/work/secret"),
        (Use.STATED, "/work/folder"),
    ]
    assert seen.events[6].detail == "EACCES"
    assert seen.incomplete == ()


def test_a_link_that_the_command_makes_was_none_before() -> None:
    seen = fold(
        call("stat", "link", result=-errno.ENOENT),
        call("symlink", "target", "link"),
        call("open", "link", result=3),
        disk=DictDisk(links={"/work/link": "target"}),
    )
    assert uses(seen) == [
        (Use.ABSENT, "/work/link"),
        (Use.CREATED, "/work/link"),
        (Use.FOLLOWED, "/work/link"),
        (Use.READ, "/work/target"),
    ]


def test_a_link_that_is_made_and_removed_is_followed_meanwhile() -> None:
    seen = fold(call("symlink", "target", "link"), call("open", "link", result=3), call("unlink", "link"))
    assert (Use.READ, "/work/target") in uses(seen)
    assert seen.incomplete == ()


def test_what_was_used_and_then_moved_is_declared() -> None:
    assert fold(call("open", "folder/file", result=3), call("rename", "folder", "other")).incomplete != ()
    made = fold(call("mkdir", "folder"), call("open", "folder/file", result=3), call("rename", "folder", "other"))
    assert made.incomplete == ()


def test_a_path_that_leads_elsewhere_than_the_kernel_went_is_declared() -> None:
    assert fold(call("open", "file", result=3, outcome="/elsewhere/file")).incomplete != ()


def test_only_the_kernel_knows_where_proc_leads() -> None:
    seen = fold(
        call("open", "/proc/self/fd/3", result=4, outcome="/work/file"),
        call("open", "/proc/self/fd/3", result=4, outcome="pipe:[7]"),
        call("open", "/proc/1/status", result=4),
        call("stat", "/proc/self/cwd/file"),
    )
    assert uses(seen) == [(Use.READ, "/work/file"), (Use.READ, "/proc/self/status"), (Use.STATED, "/work/file")]
    assert fold(call("stat", "/proc/77/root/file")).incomplete != ()


def test_the_events_of_a_child_wait_until_its_parent_is_known() -> None:
    child = call("open", "file", result=3, tid=2)
    gone = call("chdir", "sub", tid=1)
    early = fold(child, Exit(2, 6, 0), Clone(1, 5, 2, 0), gone)
    late = fold(Clone(1, 5, 2, 0), child, Exit(2, 6, 0), gone)
    assert early == late
    assert early.incomplete == ()
    assert fold(child).incomplete != ()


def test_a_child_has_not_begun_after_it_ended() -> None:
    (_, child) = fold(Exit(2, 6, 0), Clone(1, 8, 2, 0)).processes
    assert (child.started_ns, child.ended_ns) == (6, 6)


def test_threads_are_one_process_and_may_share_a_directory() -> None:
    seen = fold(
        Clone(1, 5, 2, CLONE_FS | CLONE_THREAD),
        Clone(1, 5, 3, 0),
        call("chdir", "sub", tid=2),
        call("open", "file", result=3),
        call("open", "file", result=3, tid=3),
        Exit(2, 6, 0),
        Exit(3, 6, 1),
    )
    assert [(process.pid, process.parent, process.status) for process in seen.processes] == [(1, 0, 0), (3, 1, 1)]
    assert {(event.process, event.path) for event in seen.events if event.use is Use.READ} == {
        (1, "/work/sub/file"),
        (3, "/work/file"),
    }


def test_a_script_leads_to_its_interpreter() -> None:
    disk = DictDisk(headers={"/work/script": b"#!/bin/sh -e\n"}, links={"/bin": "usr/bin"})
    seen = fold(Exec(1, 5, 1, Place("script"), program="/usr/bin/sh", header=b"\x7fELF\x02" + bytes(60)), disk=disk)
    assert seen.paths(Use.EXECUTED) == {"/work/script"}
    assert "/usr/bin/sh" in seen.paths(Use.READ)
    assert fold(Exec(1, 5, 1, Place("script"))).incomplete != ()


def test_rights_forbidden_calls_and_unknown_ones_are_declared() -> None:
    plain = DictDisk(headers={"/work/sudo": b"\x7fELF\x02" + bytes(60)})
    assert "rights" in fold(Exec(1, 5, 1, Place("sudo")), disk=plain).incomplete[0]
    assert "io_uring" in fold(Called(1, 5, Call("io_uring_setup", 3))).incomplete[0]
    assert fold(Called(1, 5, Call("io_uring_setup", -errno.EPERM))).incomplete == ()
    assert fold(Called(1, 5, Call("number 600", 0))).incomplete != ()
    assert fold(Called(1, 5, Call("number 600", -errno.ENOSYS))).incomplete == ()
    assert fold(Trouble("why")).incomplete == ("why",)
    assert fold(ended=False).incomplete != ()


names = st.sampled_from(["a", "b", "c", "d"])
parts = st.lists(st.sampled_from(["a", "b", "c", "d", "..", "."]), min_size=1, max_size=5).map("/".join)


@given(
    folders=st.lists(st.lists(names, min_size=1, max_size=3).map("/".join), max_size=5),
    links=st.lists(st.tuples(st.lists(names, min_size=1, max_size=3).map("/".join), parts), max_size=5),
    asked=parts,
    follow=st.booleans(),
)
def test_paths_lead_where_the_kernel_goes(
    tmp_path_factory: object, folders: list[str], links: list[tuple[str, str]], asked: str, follow: bool
) -> None:
    root = Path(tmp_path_factory.mktemp("links"))  # type: ignore[attr-defined]
    for folder in folders:
        try:
            (root / folder).mkdir(parents=True)
        except OSError:
            continue
    for link, target in links:
        try:
            (root / link).symlink_to(target)
        except OSError:
            continue
    try:
        # The kernel's own answer; what it refuses (loops, names below files) is none of ours.
        # Joined as text, since `root / asked` would drop a dot at the end.
        descriptor = os.open(f"{root}/{asked}", os.O_PATH | (0 if follow else os.O_NOFOLLOW))
    except OSError:
        return
    try:
        expected = os.readlink(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    assert Links(RealDisk()).resolve(str(root), asked, follow=follow).path == expected


def looked(path: str, result: int = 0, flags: int = 0, name: str = "openat") -> Call:
    return Call(name, result, flags, (Place(path),))


def test_what_is_looked_at_through_another_process_is_declared() -> None:
    told = "a process looked through /proc where only the kernel knows the way"
    there = Called(1, 5, looked("/", name="chdir"))
    for path in ("/proc/7/cwd/x", "/proc/self/fd/3/x"):
        for result in (0, -errno.ENOENT):
            assert fold(Called(1, 5, looked(path, result))).incomplete == (told,), (path, result)
            assert fold(there, Called(1, 5, looked(path[1:], result))).incomplete == (told,), (path, result)
    for directory in ("/proc", "/proc/7"):
        here = Called(1, 5, looked(directory, name="chdir"))
        path = "/proc/7/cwd/x".removeprefix(f"{directory}/")
        assert fold(here, Called(1, 5, looked(path))).incomplete == (told,), directory
