from __future__ import annotations

import os
import random
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from taskvault.mounted import exchange
from taskvault.run import digest_table, quick_sight
from taskvault.run.digest_table import DigestTable
from taskvault.run.digests import Digests
from taskvault.run.many_looks import looks
from taskvault.run.memory import Memory, identity_of, planned
from taskvault.run.pathset import PATHSET_FORMAT, Item, Look, Pathset
from taskvault.run.quick_sight import QuickSight
from taskvault.run.states import DIRECTORY, Sight, state_of_directory
from taskvault.run.steady import FILES_OF, TICK_NS, FileSystems, mapped_ns
from tvfs.plugin_api import HashFunction, PluginRegistry

BLAKE3 = PluginRegistry().hash_function("blake3")


class Believed(FileSystems):
    """Every file system is one whose times are believed."""

    def kind(self, device: int, place: bytes) -> str:
        return "ext4"


class Reading:
    """A hash function that knows how often it was asked."""

    name = "blake3"

    def __init__(self) -> None:
        self.read = 0

    def digest(self, content: bytes) -> bytes:
        self.read += 1
        return BLAKE3.digest(content)

    hasher = staticmethod(BLAKE3.hasher)


def later(ns: int) -> Callable[[], int]:
    return lambda: time.time_ns() + ns


def digest_of(place: Path, hash_function: HashFunction, memory: Memory) -> bytes:
    return Digests(hash_function, memory)(os.fsencode(place), os.lstat(place))


@pytest.mark.parametrize(("age_ns", "read"), [(mapped_ns() + 1_000_000_000, 1), (mapped_ns() - 1_000_000_000, 3)])
def test_a_file_is_read_once_when_its_last_change_is_old_enough(tmp_path: Path, age_ns: int, read: int) -> None:
    (tmp_path / "in").write_text("a")
    counted, memory = Reading(), Memory(file_systems=Believed(), now_ns=later(age_ns))
    for _ in range(3):
        assert digest_of(tmp_path / "in", counted, memory) == BLAKE3.digest(b"a")
    assert counted.read == read


def test_nothing_is_remembered_where_times_are_not_believed(tmp_path: Path) -> None:
    class Unknown(FileSystems):
        def kind(self, device: int, place: bytes) -> str:
            return "nfs4"

    (tmp_path / "in").write_text("a")
    counted, memory = Reading(), Memory(file_systems=Unknown(), now_ns=later(2 * mapped_ns()))
    for _ in range(3):
        digest_of(tmp_path / "in", counted, memory)
    assert counted.read == 3
    assert not memory.is_steady(b"/proc/cpuinfo", os.lstat("/proc/cpuinfo"), time.time_ns())


def test_the_kinds_of_file_systems_are_those_of_the_mounts() -> None:
    assert FileSystems().kind(os.lstat("/proc").st_dev, b"/proc/self") == "proc"
    assert FileSystems().kind(os.lstat("/sys").st_dev, b"/sys") == "sysfs"


def test_what_was_rewritten_with_the_same_size_and_time_is_read_anew(tmp_path: Path) -> None:
    place = tmp_path / "in"
    place.write_text("a")
    status = place.stat()
    memory = Memory(file_systems=Believed(), now_ns=later(2 * mapped_ns()))
    assert digest_of(place, BLAKE3, memory) == BLAKE3.digest(b"a")
    _await_tick(tmp_path)
    place.write_text("b")
    os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digest_of(place, BLAKE3, memory) == BLAKE3.digest(b"b")


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_what_is_remembered_never_tells_anything_else_than_a_fresh_look(
    tmp_path: Path, seed: int, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not native:
        monkeypatch.setattr(quick_sight, "looks", lambda root, paths, count: None)
    chance = random.Random(seed)
    names = [b"a", b"b", b"d/a", b"d/b", b"d/e/a", b"d/e/b", b"f/a", b"f/b", b"f/g/a", b"none", b"l/a", b"l"]
    looks = [Look.ABSENCE] * 4 + [Look.STATE, Look.TARGET, Look.STATE | Look.NAMES, Look.ROOM, Look.REFUSAL]
    items = [Item(name, int(chance.choice(looks))) for name in (*names, b"", os.fsencode(tmp_path / "beside"))]
    plan = planned(Pathset(PATHSET_FORMAT, items, [], [], False))
    root = tmp_path / "root"
    root.mkdir()
    # Beyond a tick, as the kernel's clock has it; files are never steady then, but directories are.
    memory = Memory(file_systems=Believed(), now_ns=later(TICK_NS if seed % 2 else 2 * mapped_ns()))
    for _ in range(12):
        _await_tick(tmp_path)
        _change(root, chance)
        fresh = _seen(Sight(os.fsencode(root), Digests(BLAKE3)).states, plan.pathset)
        for _ in range(3):
            assert _seen(QuickSight(os.fsencode(root), BLAKE3, memory).planned_states, plan) == fresh


@pytest.mark.parametrize("mode", [0o755, 0o700, 0o1777, 0o2775])
def test_a_directory_is_the_same_at_a_quick_look(tmp_path: Path, mode: int) -> None:
    place = tmp_path / "root" / "d"
    place.mkdir(parents=True)
    place.chmod(mode)
    root = os.fsencode(place.parent)
    # Also one of somebody else, and the root by its whole path.
    paths = [b"d", os.fsencode(place), root, b"/", b"/proc/1"]
    pathset = Pathset(PATHSET_FORMAT, [Item(path, int(Look.STATE)) for path in paths], [], [], False)
    fresh = Sight(root, Digests(BLAKE3)).states(pathset)
    assert QuickSight(root, BLAKE3, Memory()).planned_states(planned(pathset)) == fresh
    for user, is_mine in ((7, True), (8, False)):
        told = msgspec.msgpack.encode([[DIRECTORY, mode, is_mine, 0]])
        assert state_of_directory(stat.S_IFDIR | mode, 7, user, 0) == told


def _seen(look: Callable[[Any], list[bytes]], at: object) -> list[bytes] | None:
    """Return the states; None where a path cannot be looked at."""
    try:
        return look(at)
    except OSError:
        return None


def _change(root: Path, chance: random.Random) -> None:
    if chance.random() < 0.3 and (root / "d").is_dir() and (root / "f").is_dir():
        # No inode below has another time then, and what was seen before may be there again.
        exchange(root / "d", root / "f")
    for _ in range(chance.randrange(3)):
        place = root / chance.choice(["a", "b", "d", "d/a", "d/e", "d/e/b", "f", "f/a", "f/g", "l", "none"])
        if not place.parent.is_dir() or place.parent.is_symlink():
            continue
        if place.is_symlink() or place.is_file():
            place.unlink()
        elif place.is_dir():
            place.rename(root.parent / f"gone-{chance.random()}")
        match chance.randrange(5):
            case 0:
                place.mkdir()
            case 1 | 2:
                place.write_text(chance.choice("xyz"))
            case 3:
                place.symlink_to(chance.choice(["d", "a", "nowhere"]))


def _await_tick(place: Path) -> None:
    """Return when the file system stamps with another time than now."""
    probe = place / "probe"
    probe.touch()
    first = probe.stat().st_ctime_ns
    while probe.stat().st_ctime_ns == first:
        os.utime(probe)


@pytest.fixture
def table_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(digest_table, "private_directory", lambda: tmp_path)
    return tmp_path / "digests-blake3"


def test_digests_are_shared_by_a_file_as_long_as_the_system_runs(table_place: Path) -> None:
    one, other = DigestTable.open(BLAKE3), DigestTable.open(BLAKE3)
    assert one is not None
    assert other is not None
    identity = identity_of(os.lstat(table_place))
    assert other.get(identity) is None
    one.put(identity, b"x" * 32)
    assert other.get(identity) == b"x" * 32
    with open(table_place, "r+b") as file:
        file.write(b"taskvault digests 1 of another boot")
    anew = DigestTable.open(BLAKE3)
    assert anew is not None
    assert anew.get(identity) is None


def test_a_row_that_was_torn_is_no_row(table_place: Path) -> None:
    table = DigestTable.open(BLAKE3)
    assert table is not None
    identity = identity_of(os.lstat(table_place))
    table.put(identity, b"x" * 32)
    content = table_place.read_bytes()
    with open(table_place, "r+b") as file:
        file.seek(content.index(b"x" * 32))
        file.write(b"y" * 16)
    assert table.get(identity) is None
    table.put(identity, b"z" * 32)
    assert table.get(identity) == b"z" * 32


def test_a_full_table_forgets_and_stays_right(table_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest_table, "ROWS", 64)
    table = DigestTable.open(BLAKE3)
    assert table is not None
    known = {(1, number, 2, 3, 4, 5): BLAKE3.digest(b"%d" % number) for number in range(1, 500)}
    for identity, digest in known.items():
        table.put(identity, digest)
    found = {identity: table.get(identity) for identity in known}
    assert any(found.values())
    assert all(digest in (None, known[identity]) for identity, digest in found.items())


def test_a_directory_of_somebody_else_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from taskvault.run import private_directory

    monkeypatch.setattr(private_directory, "_ABOVE", str(tmp_path))
    place = private_directory.private_directory()
    assert place.stat().st_mode & 0o777 == 0o700
    place.chmod(0o755)
    with pytest.raises(private_directory.NotPrivate):
        private_directory.private_directory()
    assert DigestTable.open(BLAKE3) is None


def test_a_link_is_on_the_file_system_where_it_lies_and_not_where_it_leads(tmp_path: Path) -> None:
    """Else files of a tmpfs, whose mappings leave no time, would be believed for a link to a disk."""
    (tmp_path / "link").symlink_to("/proc/self")
    device = os.lstat(tmp_path / "link").st_dev
    assert FileSystems().kind(device, os.fsencode(tmp_path / "link")) != "proc"
    assert FileSystems().kind(os.makedev(7, 1), os.fsencode(tmp_path)) == "", "a loop device: another image tomorrow"


@pytest.mark.parametrize("kind", ["tmpfs", "overlay", "squashfs", "erofs", "iso9660", "fuse.taskvault", "nfs4", ""])
def test_content_is_remembered_only_where_every_change_has_a_time_of_this_machine(kind: str) -> None:
    assert kind not in FILES_OF


@pytest.mark.parametrize("look", [Look.ABSENCE, Look.STATE])
def test_a_second_pathset_does_not_remember_what_the_first_one_saw_long_ago(tmp_path: Path, look: Look) -> None:
    """Between them whoever looks may have waited long enough for everything to be steady."""
    root, moment = os.fsencode(tmp_path), [0]
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "other").touch()
    born_ns = os.lstat(tmp_path / "d").st_ctime_ns
    memory = Memory(file_systems=Believed(), now_ns=lambda: born_ns + moment[0])
    items = [Item(b"d/x", int(look)), Item(b"d/other", int(Look.STATE))]
    first, second = (planned(Pathset(PATHSET_FORMAT, each, [], [], False)) for each in (items, items[:1]))
    moment[0] = 2 * mapped_ns()
    sight = QuickSight(root, BLAKE3, memory)
    sight.planned_states(first)
    (tmp_path / "d" / "x").write_text("made meanwhile")
    moment[0] = 2 * mapped_ns() + (os.lstat(tmp_path / "d").st_ctime_ns - born_ns) + 2 * mapped_ns()
    sight.planned_states(second)
    for _ in range(3):
        fresh = Sight(root, Digests(BLAKE3)).states(second.pathset)
        assert QuickSight(root, BLAKE3, memory).planned_states(second) == fresh


def test_what_was_read_while_it_could_change_is_not_remembered_by_a_later_pathset(tmp_path: Path) -> None:
    root, place, moment = os.fsencode(tmp_path), tmp_path / "in", [0]
    place.write_text("a")
    status = os.lstat(place)
    memory = Memory(file_systems=Believed(), now_ns=lambda: status.st_ctime_ns + moment[0])
    plans = [planned(Pathset(PATHSET_FORMAT, [Item(b"in", 1)], [], [], bound)) for bound in (False, True)]
    sight = QuickSight(root, BLAKE3, memory)
    sight.planned_states(plans[0])
    moment[0] = 2 * mapped_ns()
    sight.planned_states(plans[1])
    assert memory.states == {}


@pytest.mark.parametrize("year", [1901, 1969, 2262, 2400])
def test_files_of_any_time_can_be_looked_at(tmp_path: Path, year: int, table_place: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "in").write_text("a")
    for place in (tmp_path / "d" / "in", tmp_path / "d"):
        os.utime(place, ((year - 1970) * 31_557_600, (year - 1970) * 31_557_600))
    memory = Memory(DigestTable.open(BLAKE3), file_systems=Believed(), now_ns=lambda: 1 << 62)
    items = [Item(b"d/in", int(Look.STATE)), Item(b"d/none", int(Look.ABSENCE))]
    plan, root = planned(Pathset(PATHSET_FORMAT, items, [], [], False)), os.fsencode(tmp_path)
    fresh = Sight(root, Digests(BLAKE3)).states(plan.pathset)
    for _ in range(4):
        assert QuickSight(root, BLAKE3, memory).planned_states(plan) == fresh
    seen = plan.seen[root]
    assert seen is not None
    assert looks(root, plan.paths, 2) == bytes(seen.told)
