"""What does not depend on how much is looked at at a time, catalogs that are damaged inside, and small parts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.fsck.damages import chunk_row_gone, reference_count_low, rows, tree_root_gone
from tests.unit.fsck.sample_vault import Facts, bytes_of, check, lines, opened, read_everything
from tvfs.catalog.catalog import Family
from tvfs.fsck.number_set import NumberSet
from tvfs.fsck.run import CHECKS, NothingToCheck
from tvfs.vault.lock import VaultInUse, VaultLock


@given(st.lists(st.one_of(st.integers(0, 5000), st.integers(0, (1 << 64) - 1))))
def test_a_number_set_is_a_set(numbers: list[int]) -> None:
    found, model = NumberSet(), set[int]()
    for number in numbers:
        assert found.add(number) == (number not in model)
        model.add(number)
    assert all(number in found for number in model)
    assert all((number in found) == (number in model) for number in range(0, 5000, 7))


@pytest.mark.slow
@pytest.mark.parametrize("at_a_time", [1, 100, 1000])
def test_findings_do_not_depend_on_how_many_objects_are_kept_in_memory(sample: Path, at_a_time: int) -> None:
    for plant in (chunk_row_gone, tree_root_gone, reference_count_low):
        plant(sample)
    whole = lines(check(sample, dry=True))
    assert sorted(lines(check(sample, dry=True, objects_at_a_time=at_a_time))) == sorted(whole)
    check(sample, objects_at_a_time=at_a_time)
    assert lines(check(sample)) == []


def test_a_damaged_table_of_the_catalog_loses_its_rows_and_nothing_gives_wrong_bytes(
    sample: Path, facts: Facts
) -> None:
    tables = sorted((sample / "meta").glob("*.sst"), key=lambda path: path.stat().st_size)
    assert tables
    for table in tables[-2:]:
        content = bytearray(table.read_bytes())
        middle = len(content) // 3
        content[middle : middle + 64] = b"\xff" * 64
        table.write_bytes(content)
    before = bytes_of(sample)
    assert "catalog" in {finding.check for finding in check(sample, dry=True, content=True).findings}
    assert bytes_of(sample) == before
    first = check(sample, content=True)
    assert [line for line in lines(check(sample, content=True)) if not line.startswith("audit")] == [], lines(first)
    assert (sample / "meta.broken-1").is_dir()
    after = trio.run(read_everything, sample)
    assert not [
        place
        for place, content in after.items()
        if isinstance(content, bytes)
        and isinstance(facts.get(place, content), bytes)
        and facts.get(place) != content
        and place in facts
        and place != "work/plain/large"
    ]


def test_with_the_whole_catalog_gone_packs_are_indexed_and_saving_again_sends_nothing(
    sample: Path,
) -> None:
    with rows(sample) as catalog:
        stored = [key for key, _ in catalog.scan(Family.CHUNK)]
    shutil.rmtree(sample / "meta")
    first = check(sample)
    assert {"catalog", "superblock"} <= {finding.check for finding in first.findings}
    assert lines(check(sample)) == []
    assert trio.run(missing, sample, stored) == []
    assert lines(check(sample, dry=True)) == []


async def missing(home: Path, chunk_ids: list[bytes]) -> list[bytes]:
    """Return which of these chunks a client would have to send."""
    async with opened(home) as world:
        found = [await world.vault.committer.find_missing(chunk_ids, "client")]
        world.vault.end_holder("client")
    return found[0]


def test_a_vault_in_use_is_refused_and_a_directory_that_is_none_too(sample: Path, tmp_path: Path) -> None:
    lock = VaultLock(sample / "lock")
    try:
        for dry in (False, True):
            with pytest.raises(VaultInUse):
                check(sample, dry=dry)
    finally:
        lock.release()
    with pytest.raises(NothingToCheck):
        check(tmp_path)


def test_every_check_has_a_name_of_its_own() -> None:
    names = [each.name for each in CHECKS]
    assert len(names) == len(set(names))
