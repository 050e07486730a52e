"""Several kinds of damage at once, in any order: repaired in one run, and nothing that none of them touches is lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.fsck.damages import DAMAGES, Damage
from tests.unit.fsck.sample_vault import Facts, bytes_of, check, copy, lines, read_everything

COMBINED = [d for d in DAMAGES if d.name not in ("RocksDB's manifest gone", "RocksDB's CURRENT gone", "all packs gone")]

_ROWS_OF_ONE_CHUNK = ("chunk row gone", "chunk row elsewhere", "chunk row of wrong length", "chunk row unreadable")
TOO_MUCH = [
    # Row and record are each other's only copies, and all of these are about the same chunk.
    *({row, "record header flipped"} for row in _ROWS_OF_ONE_CHUNK),
    # Nothing says which of the two names is the right one.
    {"parent wrong", "second name of directory"},
    {"ring of directories", "second name of directory"},
]
"""What cannot be undone together, though each alone can."""


def planted(damages: list[Damage], home: Path) -> list[Damage]:
    """Plant what can be planted after what came before; return those."""
    done = []
    for damage in damages:
        if any({damage.name, before.name} in TOO_MUCH for before in done):
            continue
        try:
            damage.plant(home)
        except (AssertionError, KeyError, StopIteration, FileNotFoundError, ValueError, IndexError):
            continue  # an earlier one has already taken away what this one would damage
        except Exception as exc:
            if not type(exc).__module__.startswith(("tvfs", "msgspec")):
                raise
            continue
        done.append(damage)
    return done


@pytest.mark.slow
@pytest.mark.damages_vault("in several ways at once")
@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(damages=st.lists(st.sampled_from(COMBINED), min_size=2, max_size=5, unique_by=lambda damage: damage.name))
def test_damages_together_are_repaired_in_one_run(
    damages: list[Damage], template: Path, facts: Facts, place: Path
) -> None:
    shutil.rmtree(place / "home", ignore_errors=True)
    home = copy(template, place / "home")
    done = planted(damages, home)
    lasting = {"audit"} if any(damage.lasting for damage in done) else set()
    before = bytes_of(home)
    check(home, dry=True, content=True)
    assert bytes_of(home) == before
    first = check(home, content=True)
    again = check(home, content=True)
    assert [line for line in lines(again) if line.split(":")[0] not in lasting] == [], lines(first)
    after = trio.run(read_everything, home)
    may_lose = tuple(place for damage in done for place in damage.may_lose) or ("nothing",)
    lost = [place for place, content in facts.items() if after.get(place) != content and not place.startswith(may_lose)]
    assert not lost, (lost[:9], [damage.name for damage in done], lines(first)[:40])
    wrong = [
        place
        for place, content in after.items()
        if place in facts and isinstance(content, bytes) and isinstance(facts[place], bytes) and content != facts[place]
    ]
    assert set(wrong) <= {"work/plain/large"}, "wrong bytes are worse than none"
