from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvfs.catalog.catalog import Batch, Catalog, Family
from tvfs.catalog.memory import MemoryCatalog
from tvfs.clock import ManualClock
from tvfs.vault.audit import AuditBroken, AuditLog, verify_chain


def filled(records: int, catalog: Catalog | None = None) -> tuple[Catalog, AuditLog]:
    catalog = catalog or MemoryCatalog()
    audit = AuditLog(catalog, ManualClock())
    for number in range(records):
        batch = Batch()
        audit.append_to(batch, action="save", scope="main", key=f"k{number}", who="uid 0")
        catalog.write(batch)
    return catalog, audit


def test_records_are_numbered_from_one_and_verify() -> None:
    _, audit = filled(3)
    assert [record.seq for record in audit.latest(10)] == [3, 2, 1]
    assert [record.key for record in audit.latest(1)] == ["k2"]
    assert audit.verify() == 3


def test_an_empty_log_verifies() -> None:
    assert filled(0)[1].verify() == 0


def test_two_records_in_one_batch_follow_each_other() -> None:
    catalog, audit = filled(1)
    batch = Batch()
    audit.append_to(batch, action="save", key="a", who="x")
    audit.append_to(batch, action="save", key="b", who="x")
    catalog.write(batch)
    assert audit.verify() == 3


def test_a_batch_that_is_not_written_leaves_no_gap() -> None:
    catalog, audit = filled(1)
    audit.append_to(Batch(), action="save", key="given up", who="x")
    filled(1, catalog)
    assert audit.verify() == 2


@given(st.integers(1, 6), st.data())
def test_any_changed_byte_is_found(records: int, data: st.DataObject) -> None:
    catalog, audit = filled(records)
    rows = list(catalog.scan(Family.AUDIT))
    position = data.draw(st.integers(0, records - 1))
    key, stored = rows[position]
    at = data.draw(st.integers(0, len(stored) - 1))
    changed = bytearray(stored)
    changed[at] ^= data.draw(st.integers(1, 255))
    rows[position] = (key, bytes(changed))
    if position == records - 1:
        # Nothing follows the last record yet; the next one will bind it.
        batch = Batch()
        audit.append_to(batch, action="save", key="next", who="x")
        catalog.write(batch)
        rows.append(list(catalog.scan(Family.AUDIT))[-1])
    with pytest.raises(AuditBroken):
        verify_chain(rows, len(rows) + 1)


@pytest.mark.parametrize("removed", [1, 2, 3])
def test_a_removed_record_is_found_also_after_others_were_appended(removed: int) -> None:
    catalog, audit = filled(3)
    batch = Batch()
    batch.delete(Family.AUDIT, removed.to_bytes(8, "big"))
    catalog.write(batch)
    with pytest.raises(AuditBroken):
        audit.verify()
    filled(2, catalog)
    with pytest.raises(AuditBroken):
        audit.verify()
