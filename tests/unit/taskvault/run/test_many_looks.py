from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from taskvault.run import many_looks, quick_sight
from taskvault.run import memory as memory_module
from taskvault.run.digests import Digests
from taskvault.run.many_looks import (
    NOTHING,
    TOLD_BYTES,
    differing,
    followed,
    itself,
    looks,
    told_followed,
    told_itself,
)
from taskvault.run.memory import Memory, identity_of, planned
from taskvault.run.pathset import PATHSET_FORMAT, Item, Look, Pathset, encode
from taskvault.run.quick_sight import QuickSight
from taskvault.run.states import Sight
from taskvault.run.steady import FileSystems, mapped_ns
from tvfs.plugin_api import PluginRegistry

BLAKE3 = PluginRegistry().hash_function("blake3")


class Believed(FileSystems):
    def kind(self, device: int, place: bytes) -> str:
        return "ext4"


@pytest.fixture
def root(tmp_path: Path) -> bytes:
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "file").write_text("content")
    (tmp_path / "d" / "file").chmod(0o4751)
    (tmp_path / "link").symlink_to("d")
    (tmp_path / "nowhere").symlink_to("missing")
    os.mkfifo(tmp_path / "pipe")
    os.utime(tmp_path / "pipe", ns=(1, 1_234_567_890_123_456_789))
    os.utime(tmp_path / "d" / "e", ns=(1, -1_500_000_000))
    return os.fsencode(tmp_path)


PLACES = [
    b"d",
    b"d/file",
    b"link",
    b"link/file",
    b"nowhere",
    b"nowhere/x",
    b"pipe",
    b"d/file/x",
    b"missing",
    b"d/e",
    b".",
]


def test_one_call_tells_the_same_as_a_look_at_each(root: bytes) -> None:
    places = [*PLACES, b"/dev/null", b"/proc/self", b"/", root]
    told = looks(root, b"".join(itself(place) + followed(place) for place in places), 2 * len(places))
    assert told is not None
    for number, place in enumerate(places):
        here = os.path.join(root, place)
        first, second = (told[64 * n : 64 * n + 64] for n in (2 * number, 2 * number + 1))
        assert first == told_itself(os.lstat(here) if os.path.lexists(here) else None), place
        assert second == told_followed(identity_of(os.stat(here)) if os.path.exists(here) else None), place


def test_what_cannot_be_looked_at_is_left_to_who_says_why(root: bytes) -> None:
    os.symlink("loop", os.path.join(root, b"loop"))
    assert looks(root, itself(b"loop"), 1) not in (None, NOTHING)
    assert looks(root, followed(b"loop"), 1) is None
    assert looks(root, itself(b"x" * 300), 1) is None
    assert looks(os.path.join(root, b"missing"), itself(b"/"), 1) is None
    assert looks(root, b"", 0) == b""


@pytest.mark.parametrize("count", [0, 1, 2, 3, 100])
def test_what_differs_is_found_wherever_it_is(count: int) -> None:
    chance = random.Random(count)
    for _ in range(50):
        one = bytearray(chance.randbytes(count * TOLD_BYTES))
        changed = {chance.randrange(count) for _ in range(chance.randrange(4))} if count else set()
        other = bytearray(one)
        for number in changed:
            other[number * TOLD_BYTES + chance.randrange(TOLD_BYTES)] ^= 1
        assert sorted(differing(one, bytes(other))) == sorted(changed)


def test_without_the_library_there_is_no_answer(root: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(many_looks, "LIBRARY", tmp_path / "gone.so")
    many_looks._function.cache_clear()
    try:
        assert looks(root, itself(b"d"), 1) is None
    finally:
        many_looks._function.cache_clear()


class Looks:
    """Counts the looks at single paths."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.places: list[bytes] = []
        lstat = os.lstat

        def counted(place: bytes) -> os.stat_result:
            self.places.append(place)
            return lstat(place)

        monkeypatch.setattr(quick_sight.os, "lstat", counted)

    def at(self, root: bytes) -> list[str]:
        """Return them since the last time, relative to the root."""
        found, self.places = self.places, []
        return [os.path.relpath(os.fsdecode(place), os.fsdecode(root)) for place in found]


@pytest.mark.parametrize("changed", ["d/file", "d/e", "d/none", "d/other", ""])
def test_only_what_has_changed_is_looked_at_by_itself(
    root: bytes, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    newest_ns = os.lstat(os.path.join(root, b"nowhere")).st_ctime_ns
    memory = Memory(file_systems=Believed(), now_ns=lambda: newest_ns + 2 * mapped_ns())
    items = [Item(b"d/file", int(Look.STATE)), Item(b"d/e", int(Look.STATE)), Item(b"d/none", int(Look.ABSENCE))]
    plan = planned(Pathset(PATHSET_FORMAT, items, [], [], False))
    single = Looks(monkeypatch)

    def states() -> list[bytes]:
        return QuickSight(root, BLAKE3, memory).planned_states(plan)

    states()
    assert sorted(single.at(root)) == ["d/e", "d/file", "d/none"]
    states()
    assert sorted(single.at(root)) == ["d/e", "d/file"], "what it was made of is noted at the second time"
    states()
    assert single.at(root) == []
    place = Path(os.fsdecode(root), changed)
    match changed:
        case "d/file":
            place.write_text("other")
        case "d/e":
            place.chmod(0o700)
        case "d/none" | "d/other":
            place.touch()
    fresh = Sight(root, Digests(BLAKE3)).states(plan.pathset)
    single.at(root)
    assert states() == fresh
    assert single.at(root) == [each for each in ["d/none" if changed == "d/other" else changed] if each]


def test_what_was_not_steady_is_remembered_when_it_is(root: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    age_ns = [0]
    born_ns = os.lstat(os.path.join(root, b"d/file")).st_ctime_ns
    memory = Memory(file_systems=Believed(), now_ns=lambda: born_ns + age_ns[0])
    plan = planned(Pathset(PATHSET_FORMAT, [Item(b"d/file", int(Look.STATE))], [], [], False))
    for age_ns[0], is_anew in ((0, True), (0, True), (mapped_ns() + 1, False), (mapped_ns() + 1, False)):
        QuickSight(root, BLAKE3, memory).planned_states(plan)
        seen = plan.seen[root]
        assert seen is None or seen.anew == ({0} if is_anew else set())
    single = Looks(monkeypatch)
    QuickSight(root, BLAKE3, memory).planned_states(plan)
    assert single.at(root) == []


def test_a_look_that_fails_leaves_nothing_half_known(root: bytes) -> None:
    memory = Memory(file_systems=Believed(), now_ns=lambda: 1 << 62)
    plan = planned(Pathset(PATHSET_FORMAT, [Item(b"d/file", 1), Item(b"x" * 300, 1)], [], [], False))
    plan.seen[root] = None
    with pytest.raises(OSError, match="too long"):
        QuickSight(root, BLAKE3, memory).planned_states(plan)
    assert plan.seen == {}


def test_each_root_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "MOST_SEEN", 10)
    chance, memory = random.Random(3), Memory(file_systems=Believed(), now_ns=lambda: 1 << 62)
    plan = memory.plan(encode(Pathset(PATHSET_FORMAT, [Item(b"in", int(Look.STATE))], [], [], False)))
    roots = [tmp_path / str(number) for number in range(20)]
    for root in roots:
        root.mkdir()
        (root / "in").write_text(root.name)
    most = 0
    for root in chance.choices(roots, k=200):
        fresh = Sight(os.fsencode(root), Digests(BLAKE3)).states(plan.pathset)
        assert QuickSight(os.fsencode(root), BLAKE3, memory).planned_states(plan) == fresh
        most = max(most, len(plan.seen))
    assert most == 10
