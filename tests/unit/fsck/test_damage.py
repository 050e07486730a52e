"""Every kind of damage is found, proposed, repaired; a second run finds nothing; and what was good is as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tests.unit.fsck.damages import DAMAGES, Damage
from tests.unit.fsck.sample_vault import Facts, bytes_of, check, lines, read_everything


def _one_for_each_check() -> list[object]:
    """Return what each check finds first; the other damages are planted where there is time."""
    first = {damage.found_by: damage for damage in reversed(DAMAGES)}
    return [
        damage if first[damage.found_by] is damage else pytest.param(damage, marks=pytest.mark.slow)
        for damage in DAMAGES
    ]


def test_a_vault_that_is_in_order_has_no_findings_and_is_not_changed(sample: Path) -> None:
    before = bytes_of(sample)
    assert lines(check(sample, dry=True, content=True)) == []
    assert bytes_of(sample) == before
    assert lines(check(sample, content=True)) == []


@pytest.mark.damages_vault("in one way each")
@pytest.mark.parametrize("damage", _one_for_each_check(), ids=lambda damage: damage.name.replace(" ", "_"))
def test_damage_is_found_and_repaired_and_a_second_run_finds_nothing(
    damage: Damage, sample: Path, facts: Facts
) -> None:
    damage.plant(sample)
    before = bytes_of(sample)
    proposed = check(sample, dry=True, **damage.options)
    assert bytes_of(sample) == before, "a dry run changed something"
    assert damage.found_by in {finding.check for finding in proposed.findings}, lines(proposed)
    repaired = check(sample, **damage.options)
    assert damage.found_by in {finding.check for finding in repaired.findings}, lines(repaired)
    assert proposed.count == repaired.count, (lines(proposed), lines(repaired))
    again = check(sample, **damage.options)
    assert [f for f in lines(again) if not damage.lasting] == [], lines(repaired)
    assert_nothing_else_is_lost(damage, facts, trio.run(read_everything, sample))
    after_use = check(sample, dry=True)
    assert [f for f in lines(after_use) if not damage.lasting] == [], lines(repaired)


def assert_nothing_else_is_lost(damage: Damage, before: Facts, after: Facts) -> None:
    lost = {place for place, content in before.items() if after.get(place) != content}
    unexpected = {place for place in lost if not place.startswith(damage.may_lose or ("nothing",))}
    assert not unexpected, sorted(unexpected)[:9]
    gained = {place for place in after.keys() - before.keys() if not place.startswith(damage.gains or ("nothing",))}
    assert not gained, sorted(gained)[:9]


def test_what_has_lost_its_name_is_found_again_with_its_content(
    sample: Path, facts: Facts, damage_called: Callable[[str], Damage]
) -> None:
    for name in ("directory's name gone", "name gone"):
        damage_called(name).plant(sample)
    check(sample)
    after = trio.run(read_everything, sample)
    found = [content for place, content in after.items() if place.startswith("work/lost+found/")]
    wanted = [content for place, content in facts.items() if place.startswith(("work/plain/sub", "work/plain/medium"))]
    assert sorted(map(str, found)) == sorted(map(str, wanted))
