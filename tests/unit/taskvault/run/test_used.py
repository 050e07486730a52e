"""What events mean: what was input, what is the run's own, and why nothing may be stored."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from taskvault.run.environment import without_job_options
from taskvault.run.places import Place, Places
from taskvault.run.used import Seen, Used, use_of
from taskvault.run.weak_key import WeakKey, counting
from tvfs.plugin_api import CHANGES, Before, Event, Observation, PluginRegistry, Process, Use

PLACES = Places(root="/p", scratch="/tmp/s", home="/home/me")
FILE, NOTHING = Before(0o100644, 3, 5, 1), Before(0)


def used(*events: Event, program: str = "/bin/sh") -> Used:
    process = Process(1, 0, 0, 1, (program,), 0)
    return use_of(Observation(events, (process,), ()), PLACES)


def event(use: Use, path: str, before: Before | None = None, detail: str = "") -> Event:
    return Event(use, path, 1, detail, before)


@pytest.mark.parametrize(
    ("use", "seen"),
    [
        (Use.READ, Seen.CONTENT),
        (Use.EXECUTED, Seen.CONTENT),
        (Use.STATED, Seen.STATUS),
        (Use.LISTED, Seen.NAMES),
        (Use.ABSENT, Seen.ABSENCE),
        (Use.REFUSED, Seen.REFUSAL),
        (Use.FOLLOWED, Seen.TARGET),
    ],
)
def test_every_look_is_an_input_until_the_path_is_the_runs_own(use: Use, seen: Seen) -> None:
    assert used(event(use, "/p/x")).seen == {"/p/x": seen}
    made = event(Use.MADE, "/p/x", NOTHING)
    assert used(made, event(use, "/p/x"), event(use, "/p/x/below")).seen == {}
    assert used(event(use, "/p/x"), made).seen == {"/p/x": seen}


@pytest.mark.parametrize(
    ("events", "rewritten", "changed"),
    [
        ([event(Use.CHANGED, "/p/x", FILE)], {"/p/x": "written to"}, {}),
        ([event(Use.CHANGED, "/p/x")], {"/p/x": "written to"}, {}),
        ([event(Use.CHANGED, "/p/x", NOTHING)], {}, {"/p/x": (True, False, False)}),
        ([event(Use.ATTRIBUTES, "/p/x", FILE)], {"/p/x": "given other attributes"}, {}),
        ([event(Use.CREATED, "/p/x")], {}, {"/p/x": (True, False, False)}),
        ([event(Use.MADE, "/p/x", FILE)], {}, {"/p/x": (False, False, True)}),
        ([event(Use.MADE, "/p/x", FILE, "/p/y")], {}, {"/p/x": (False, False, False)}),
        ([event(Use.MADE, "/p/x", FILE), event(Use.ATTRIBUTES, "/p/x")], {}, {"/p/x": (False, False, False)}),
        ([event(Use.DELETED, "/p/x", FILE)], {}, {"/p/x": (False, True, False)}),
        ([event(Use.DELETED, "/p/x", FILE), event(Use.MADE, "/p/x", NOTHING)], {}, {"/p/x": (False, True, False)}),
        ([event(Use.MADE, "/tmp/s/x", NOTHING), event(Use.CHANGED, "/home/me/.cache/x", FILE)], {}, {}),
    ],
)
def test_what_is_made_is_told_from_what_is_changed(
    events: list[Event], rewritten: dict[str, str], changed: dict[str, tuple[bool, bool, bool]]
) -> None:
    found = used(*events)
    assert found.rewritten == rewritten
    assert {
        path: (change.only_where_nothing_was, change.only_where_something_was, change.keeps_attributes)
        for path, change in found.changes.items()
    } == changed


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (event(Use.INTERNET, "10.0.0.1:80"), "used the network"),
        (event(Use.LOCAL_SOCKET, "/run/x"), "talked to /run/x"),
        (event(Use.OTHER_SOCKET, "16"), "family 16"),
        (event(Use.LISTED, "/proc"), "other processes"),
        (event(Use.READ, "/proc/17/stat"), "other processes"),
        (event(Use.READ, "/dev/tty"), "from the terminal"),
        (event(Use.RENAMED, "/p/x", FILE, "/p/y"), "it moved /p/x"),
        (event(Use.RENAMED, "/p/x", NOTHING, "/p/y"), "it moved /p/x"),
    ],
)
def test_what_cannot_be_known_again_is_a_reason(one: Event, reason: str) -> None:
    assert [reason in each for each in used(one).reasons] == [True]


MOVED = (event(Use.RENAMED, "/p/x", FILE, "/p/y"), event(Use.MADE, "/p/y", NOTHING, "/p/x"))


def test_what_is_moved_away_and_removed_unseen_is_as_good_as_removed() -> None:
    found = used(*MOVED, event(Use.DELETED, "/p/y", FILE))
    assert found.reasons == []
    assert found.changes["/p/x"].only_where_something_was


@pytest.mark.parametrize(
    "events",
    [
        (*MOVED, event(Use.READ, "/p/y"), event(Use.DELETED, "/p/y", FILE)),
        (*MOVED, event(Use.STATED, "/p/y"), event(Use.DELETED, "/p/y", FILE)),
        (*MOVED, event(Use.RENAMED, "/p/y", FILE, "/p/x"), event(Use.MADE, "/p/x", NOTHING, "/p/y")),
        (*MOVED, event(Use.MADE, "/p/y", FILE), event(Use.DELETED, "/p/y", FILE)),
        # Reading it again would not be told again.
        (event(Use.CREATED, "/p/y"), event(Use.READ, "/p/y"), *MOVED, event(Use.DELETED, "/p/y", FILE)),
    ],
)
def test_what_is_moved_away_and_looked_at_or_kept_is_a_reason(events: tuple[Event, ...]) -> None:
    assert used(*events).reasons == ["it moved /p/x, which was there before"]


EXCHANGED = (
    event(Use.RENAMED, "/p/new", FILE, "/p/x"),
    event(Use.RENAMED, "/p/x", FILE, "/p/new"),
    event(Use.MADE, "/p/new", FILE, "/p/x"),
    event(Use.MADE, "/p/x", FILE, "/p/new"),
)


def test_what_is_exchanged_for_something_new_and_removed_is_replaced() -> None:
    created = event(Use.CREATED, "/p/new")
    assert used(created, *EXCHANGED, event(Use.DELETED, "/p/new", FILE)).reasons == []
    assert used(created, *EXCHANGED).reasons == ["it moved /p/x, which was there before"]


def test_what_the_owner_of_the_vault_prepared_is_no_input_and_takes_what_was_there() -> None:
    events = [
        msgspec.structs.replace(
            each, **{name: getattr(each, name).replace("/p/new", "/mnt/.taskvault/0/x") for name in ("path", "detail")}
        )
        for each in EXCHANGED
    ]
    process = Process(1, 0, 0, 1, ("/bin/tv",), 0)
    places = replace(PLACES, prepared="/mnt/.taskvault")
    found = use_of(Observation((*events,), (process,), ()), places)
    assert (found.reasons, found.seen, list(found.changes)) == ([], {}, ["/p/x"])
    read = use_of(Observation((*events, event(Use.READ, "/mnt/.taskvault/0/x")), (process,), ()), places)
    assert read.reasons == ["it moved /p/x, which was there before"]


def test_whether_a_replay_is_under_way_is_no_input() -> None:
    assert used(event(Use.STATED, "/p/.taskvault-replay-0"), event(Use.ABSENT, "/p/.taskvault-replay-1")).seen == {}


def test_a_socket_where_nobody_listens_is_an_absence() -> None:
    assert used(event(Use.LOCAL_SOCKET, "/run/x", detail="ENOENT")).seen == {"/run/x": Seen.ABSENCE}


@pytest.mark.parametrize(
    ("program", "seen"),
    [
        ("tar", Seen.STATUS | Seen.TIMES),
        ("find", Seen.STATUS | Seen.TIMES_OF_FILE),
        ("cp", Seen.STATUS),
        ("sh", Seen.STATUS),
    ],
)
def test_times_count_for_programs_that_keep_them(program: str, seen: Seen) -> None:
    assert used(event(Use.STATED, "/p/x"), program=f"/bin/{program}").seen == {"/p/x": seen}


def test_times_count_for_a_copy_that_sets_them() -> None:
    copied = (event(Use.STATED, "/p/x"), event(Use.MADE, "/p/y", NOTHING), event(Use.ATTRIBUTES, "/p/y"))
    assert used(*copied, program="/bin/cp").seen == {"/p/x": Seen.STATUS | Seen.TIMES}


def test_the_time_of_a_source_counts_where_its_compiled_form_was_read() -> None:
    source, compiled = event(Use.STATED, "/p/m.py"), event(Use.READ, "/p/__pycache__/m.cpython-311.pyc")
    assert used(source, compiled).seen["/p/m.py"] == Seen.STATUS | Seen.TIMES


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/p", Place.PROJECT),
        ("/p/x", Place.PROJECT),
        ("/px", Place.SYSTEM),
        ("/tmp/s/x", Place.SCRATCH),
        ("/tmp/sx", Place.SYSTEM),
        ("/home/me/.cache/pip/x", Place.CACHE),
        ("/usr/lib/__pycache__/x.pyc", Place.CACHE),
        ("/dev/null", Place.NOTHING),
        ("/dev/sda", Place.SYSTEM),
        ("/proc/self/maps", Place.NOTHING),
        ("/proc/self/mounts", Place.SYSTEM),
        ("/proc/12", Place.PROCESSES),
        ("/proc/cpuinfo", Place.SYSTEM),
        ("/proc/uptime", Place.NOTHING),
    ],
)
def test_every_path_lies_in_one_kind_of_place(path: str, place: Place) -> None:
    assert PLACES.place(path) is place


def test_every_part_of_a_weak_key_counts() -> None:
    hash_function = PluginRegistry().hash_function("blake3")
    parts = {
        "arguments": [["a"], ["a", ""], ["a "]],
        "workdir": ["", "d"],
        "program": ["/bin/a", "a"],
        "environment": [{}, {"A": ""}, {"A": "B"}],
        "platform": [{}, {"umask": "022"}],
    }
    first = {name: values[0] for name, values in parts.items()}
    keys = [WeakKey(**{**first, name: each}).hash(hash_function) for name in parts for each in parts[name][1:]]  # type: ignore[arg-type]
    keys.append(WeakKey(**first).hash(hash_function))  # type: ignore[arg-type]
    assert len(set(keys)) == len(keys)


def test_variables_of_the_session_and_job_options_do_not_count() -> None:
    environment = {"SSH_TTY": "x", "COLUMNS": "80", "MAKEFLAGS": "-j8 -k", "A": ""}
    assert counting(environment, ()) == {"COLUMNS": "80", "MAKEFLAGS": without_job_options("-j8 -k"), "A": ""}


@pytest.mark.parametrize("path", ["/proc/self/mountinfo", "/proc/self/cgroup", "/proc/cgroups"])
def test_only_who_counts_processors_may_read_its_limits_unnoticed(path: str) -> None:
    ninja, shell = event(Use.EXECUTED, "/usr/bin/ninja"), event(Use.EXECUTED, "/bin/sh")
    read = event(Use.READ, path)
    assert path not in used(ninja, read).seen
    assert used(ninja, event(Use.READ, "/proc/mounts")).seen["/proc/mounts"]
    assert used(read).seen[path] == Seen.CONTENT
    assert used(shell, read, ninja).seen[path] == Seen.CONTENT
    assert used(ninja, shell, read).seen[path] == Seen.CONTENT


PATHS = ["/p/x", "/usr/d", "/usr/d/m.py", "/usr/d/__pycache__/m.pyc", "/tmp/s/t"]
WHO = {
    1: "/bin/make",
    2: "/usr/bin/gcc",
    3: "/usr/bin/cc1",
    4: "/bin/tar",
    5: "/bin/sh",
    6: "/usr/bin/ninja",
    7: "/usr/bin/find",
}
EVENTS = st.builds(
    lambda use, path, detail, before: Event(use, path, 0, detail, before if use in CHANGES else None),
    st.sampled_from([use for use in Use if use not in (Use.INTERNET, Use.LOCAL_SOCKET, Use.OTHER_SOCKET)]),
    st.sampled_from([*PATHS, "/proc/self/cgroup"]),
    st.sampled_from(PATHS),
    st.sampled_from([FILE, NOTHING, None]),
)
BY_WHOM = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(sorted(WHO))), max_size=30)


@settings(max_examples=1000)
@given(st.lists(EVENTS, min_size=1, max_size=6), BY_WHOM)
@example([event(Use.STATED, "/usr/d"), event(Use.DELETED, "/usr/d", FILE)], [(0, 5), (1, 5), (0, 3)])
@example([event(Use.STATED, "/usr/d")], [(0, 5), (0, 7)])
@example(
    [event(Use.ABSENT, "/usr/d"), event(Use.RENAMED, "/p/x", FILE, "/usr/d"), event(Use.DELETED, "/usr/d", FILE)],
    [(0, 5), (1, 5), (0, 3), (2, 5)],
)
def test_what_many_processes_looked_at_is_what_each_alone_would_have_told(
    different: list[Event], done: list[tuple[int, int]]
) -> None:
    events = [msgspec.structs.replace(different[number % len(different)], process=pid) for number, pid in done]
    processes = tuple(Process(pid, 0, 0, 1, (program,), 0) for pid, program in WHO.items())
    observation = Observation(tuple(events), processes, ())
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr("taskvault.run.used._SAID_ONCE", frozenset())
        apart = use_of(observation, PLACES)
    assert use_of(observation, PLACES) == apart
