from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tvfs.catalog.catalog import Batch, Family
from tvfs.catalog.memory import MemoryCatalog
from tvfs.clock import ManualClock
from tvfs.packs.pack_directory import PackDirectory
from tvfs.packs.pack_row import PackRow, encode_pack_row, pack_key
from tvfs.vault.audit import AuditLog
from tvfs.vault.counters import NEXT_INO, NEXT_PACK, Counters
from tvfs.vault.recovery import RecoveryReport, mark_clean, recover

UUID = bytes(16)


def recovered(catalog: MemoryCatalog, directory: Path) -> tuple[RecoveryReport, Counters]:
    counters = Counters(catalog)
    report = recover(catalog, PackDirectory(directory, UUID), counters, AuditLog(catalog, ManualClock()))
    return report, counters


def commit(catalog: MemoryCatalog, number: int, length: int) -> None:
    batch = Batch()
    batch.put(Family.PACK, pack_key(number), encode_pack_row(PackRow(length, 0)))
    catalog.write(batch)


def test_packs_are_brought_in_line_with_their_rows(tmp_path: Path) -> None:
    catalog = MemoryCatalog()
    for number, length in ((1, 100), (2, 150), (3, 60), (4, 40)):
        (tmp_path / f"{number:016x}.pack").write_bytes(bytes(length))
    for number in (1, 2, 3, 5):
        commit(catalog, number, 100)
    report, counters = recovered(catalog, tmp_path)
    assert report.truncated_packs == {2: 50}
    assert report.short_packs == {3: 40}
    assert report.removed_packs == [4]
    assert report.missing_packs == [5]
    assert report.damaged
    sizes = {int(path.stem, 16): path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes == {1: 100, 2: 100, 3: 60}
    assert counters.take(NEXT_PACK) == 6
    assert [record.action for record in AuditLog(catalog, ManualClock()).latest(5)] == ["damage found at start"]


def test_an_undamaged_vault_is_not_audited(tmp_path: Path) -> None:
    catalog = MemoryCatalog()
    mark_clean(catalog)
    report, _ = recovered(catalog, tmp_path)
    assert report == RecoveryReport(clean=True)
    assert not recovered(catalog, tmp_path)[0].clean
    assert list(catalog.scan(Family.AUDIT)) == []


def test_inode_numbers_start_after_the_last_inode(tmp_path: Path) -> None:
    catalog = MemoryCatalog()
    batch = Batch()
    batch.put(Family.INODE, (1000).to_bytes(8, "big"), b"")
    catalog.write(batch)
    report, counters = recovered(catalog, tmp_path)
    assert counters.take(NEXT_INO) == 1001
    assert report.raised_counters == [NEXT_INO]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.integers(1, 6), st.integers(0, 300)), st.dictionaries(st.integers(1, 6), st.integers(0, 300)))
def test_recovering_twice_changes_nothing_more(
    tmp_path: Path, lengths: dict[int, int], committed: dict[int, int]
) -> None:
    for path in tmp_path.iterdir():
        path.unlink()
    catalog = MemoryCatalog()
    for number, length in lengths.items():
        (tmp_path / f"{number:016x}.pack").write_bytes(bytes(length))
    for number, length in committed.items():
        commit(catalog, number, length)
    first, _ = recovered(catalog, tmp_path)
    again, _ = recovered(catalog, tmp_path)
    assert not again.truncated_packs
    assert not again.removed_packs
    assert (again.short_packs, again.missing_packs) == (first.short_packs, first.missing_packs)
    for number, length in committed.items():
        if number in lengths:
            assert (tmp_path / f"{number:016x}.pack").stat().st_size == min(length, lengths[number])
