"""Packs whose files have each other's names, or none: nothing in them is lost."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import trio

from tests.thinned import thinned
from tests.unit.fsck.sample_vault import Facts, bytes_of, check, lines, opened, read_everything
from tvfs.filesystem.model import WORK

pytestmark = pytest.mark.damages_vault("its packs are called otherwise")


async def add_a_pack(home: Path) -> None:
    async with opened(home) as world:
        await world.write(WORK, b"in another pack", os.urandom(3000))
        await world.filesystem.seal_all()


@pytest.fixture
def two(sample: Path) -> tuple[Path, Facts]:
    """A vault of two packs, and what can be read in it."""
    trio.run(add_a_pack, sample)
    facts = trio.run(read_everything, sample)
    assert len(packs(sample)) == 2
    return sample, facts


def packs(home: Path) -> list[Path]:
    return sorted((home / "packs").iterdir())


def swapped(home: Path) -> None:
    first, second = packs(home)
    first.rename(home / "x")
    second.rename(first)
    (home / "x").rename(second)


def renamed(home: Path) -> None:
    first, _ = packs(home)
    first.rename(first.with_suffix(".pack.bak"))


def called_as_one_that_never_was(home: Path) -> None:
    first, _ = packs(home)
    first.rename(first.with_name(f"{77:016x}.pack"))


def moved_over_the_other(home: Path) -> None:
    first, second = packs(home)
    shutil.copyfile(second, second.with_suffix(".pack.bak"))
    first.rename(second)


DAMAGES = [swapped, renamed, called_as_one_that_never_was, moved_over_the_other]


@pytest.mark.parametrize("plant", DAMAGES)
def test_a_pack_gets_its_name_again_and_nothing_is_lost(two: tuple[Path, Facts], plant: object) -> None:
    home, facts = two
    names = [path.name for path in packs(home)]
    plant(home)  # type: ignore[operator]
    before = bytes_of(home)
    proposed = check(home, dry=True)
    assert bytes_of(home) == before
    repaired = check(home)
    assert lines(proposed) == lines(repaired)
    assert {finding.check for finding in repaired.findings} <= {"pack files", "counters"}
    assert [path.name for path in packs(home)] == names
    assert lines(check(home, content=True)) == []
    assert trio.run(read_everything, home) == facts


@pytest.mark.parametrize("renames", thinned([0, 1, 2, 3]))
def test_a_run_that_is_killed_between_two_renames_is_made_up_for(
    two: tuple[Path, Facts], monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    home, facts = two
    swapped(home)
    done = 0

    def rename(source: Path, target: Path) -> None:
        nonlocal done
        if done == renames:
            raise KeyboardInterrupt
        done += 1
        source.rename(target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            check(home)
    check(home)
    assert lines(check(home, content=True)) == []
    assert trio.run(read_everything, home) == facts


def test_an_old_copy_of_a_pack_that_is_no_more_is_set_aside_and_kept(two: tuple[Path, Facts]) -> None:
    home, facts = two
    stray = home / "packs" / "copy"
    raw = bytearray(packs(home)[0].read_bytes())
    raw[16:24] = (99).to_bytes(8, "big")
    stray.write_bytes(raw)
    check(home)
    assert (home / "set-aside" / "copy").read_bytes() == raw
    assert trio.run(read_everything, home) == facts
