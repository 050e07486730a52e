"""Checking a vault that serves: content that went bad is found, named, never served or shared, and heals."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from taskvault.client import Client
from taskvault.errors import Refused
from taskvault.protocol import messages as m
from taskvault.snapshots import take_snapshot
from tests.daemon.test_content import assert_same, read_back
from tests.thinned import thinned
from tvfs.catalog.catalog import Batch, Family
from tvfs.catalog.rocks import RocksCatalog
from tvfs.chunks.store import ChunkMissing
from tvfs.vault.audit import HEAD


def verify(client: Client, most_bytes: int = 1 << 20) -> tuple[list[bytes], int, int]:
    """Verify everything; return what is bad, how many chunks were read and how many answers that took."""
    after: bytes | None = b""
    bad: list[bytes] = []
    chunks = answers = 0
    while after is not None:
        found = client.call(m.VerifySome(after, most_bytes))
        bad += found.bad
        chunks += found.chunks
        answers += 1
        after = found.after
    return bad, chunks, answers


def flip_a_bit_of(daemon: Any, client: Client, tree: Path) -> None:
    """Change one bit of the content of `deep/deeper/large`, where its pack has it."""
    pack = max((daemon.home / "packs").iterdir(), key=lambda path: path.stat().st_size)
    with pack.open("r+b") as file:
        file.seek(pack.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A tree whose large file does not get smaller: it is most of its pack."""
    root = tmp_path / "large"
    (root / "deep").mkdir(parents=True)
    (root / "deep" / "noise").write_bytes(os.urandom(3_000_000))
    (root / "small").write_text("small")
    return root


def test_a_flipped_bit_is_found_named_not_served_not_shared_and_healed(
    daemon: Any, large: Path, tmp_path: Path
) -> None:
    daemon.start()
    with daemon.client() as client:
        snapshot = take_snapshot(client, large, ["deep", "small"])
        client.call(m.SaveEntry("main", "key", "saved", snapshot))
        assert verify(client)[0] == []
        flip_a_bit_of(daemon, client, large)
        bad, chunks, answers = verify(client)
        assert len(bad) == 1
        assert answers > 1
        assert client.call(m.NameHolders(bad)).holders == ["entry main/key: deep/noise"]
        # Known to be bad, it is bad until it is healed, and nobody reads it again to find out.
        again, chunks_again, _ = verify(client)
        assert (again, chunks_again) == (bad, chunks - 1)
        with pytest.raises(ChunkMissing):
            read_back(client, snapshot, tmp_path / "bad")
        # Not deduplicated against: it is asked for, sent, and good from then on.
        assert client.call(m.FindMissing(bad)).chunk_ids == bad
    with daemon.client() as client:
        assert take_snapshot(client, large, ["deep", "small"]) == snapshot
        assert verify(client)[0] == []
        assert_same(large, read_back(client, snapshot, tmp_path / "good"))
        assert [line.action for line in client.call(m.ReadAudit()).records] == ["quarantine", "save"]
        assert client.call(m.VerifyAudit()) == m.AuditVerified(2)
    assert daemon.stop() == 0
    assert [line["event"] for line in daemon.log() if line["level"] == "error"] == ["a chunk is damaged"]


def test_verifying_refuses_what_makes_no_sense(shared_daemon: Any) -> None:
    with shared_daemon.client() as client:
        for request in (m.VerifySome(b"short"), m.VerifySome(b"", 0), m.VerifySome(b"", 1 << 40), m.ReadAudit(limit=0)):
            with pytest.raises(Refused):
                client.call(request)


def test_the_audit_log_is_listed_latest_first_in_pages(daemon: Any) -> None:
    daemon.start()
    with daemon.client() as client:
        for number in range(25):
            save_nothing(client, f"key {number}")
        first = client.call(m.ReadAudit(limit=10)).records
        assert [line.seq for line in first] == list(range(25, 15, -1))
        assert [line.seq for line in client.call(m.ReadAudit(before=16, limit=100)).records] == list(range(15, 0, -1))
        assert first[0].key == "key 24"
        assert first[0].action == "save"
    assert daemon.stop() == 0


def save_nothing(client: Client, key: str) -> None:
    """Save a directory with one file."""
    with tempfile.TemporaryDirectory() as place:
        Path(place, "file").write_text("x")
        snapshot = take_snapshot(client, Path(place), ["file"])
    client.call(m.SaveEntry("main", key, "saved", snapshot))


def records(catalog: RocksCatalog) -> list[tuple[bytes, bytes]]:
    return list(catalog.scan(Family.AUDIT))


def edited(catalog: RocksCatalog, batch: Batch) -> int:
    key, stored = records(catalog)[4]
    record = msgspec.msgpack.decode(stored)
    record[6] = "nobody"
    batch.put(Family.AUDIT, key, msgspec.msgpack.encode(record))
    return 6


def last_one_edited(catalog: RocksCatalog, batch: Batch) -> int:
    key, stored = records(catalog)[-1]
    record = msgspec.msgpack.decode(stored)
    record[6] = "nobody"
    batch.put(Family.AUDIT, key, msgspec.msgpack.encode(record))
    return 12


def last_one_edited_and_its_hash_removed(catalog: RocksCatalog, batch: Batch) -> int:
    batch.delete(Family.SYS, HEAD)
    return last_one_edited(catalog, batch)


def renumbered(catalog: RocksCatalog, batch: Batch) -> int:
    """A number far beyond the others: whoever reads on from there would begin anew for ever."""
    key, stored = records(catalog)[4]
    record = msgspec.msgpack.decode(stored)
    record[1] = 10**6
    batch.put(Family.AUDIT, key, msgspec.msgpack.encode(record))
    return 5


def removed(catalog: RocksCatalog, batch: Batch) -> int:
    batch.delete(Family.AUDIT, records(catalog)[4][0])
    return 5


def cut_off(catalog: RocksCatalog, batch: Batch) -> int:
    for key, _ in records(catalog)[8:]:
        batch.delete(Family.AUDIT, key)
    return 9


def exchanged(catalog: RocksCatalog, batch: Batch) -> int:
    (one, first), (other, second) = records(catalog)[3:5]
    batch.put(Family.AUDIT, one, second)
    batch.put(Family.AUDIT, other, first)
    return 4


def inserted(catalog: RocksCatalog, batch: Batch) -> int:
    key, stored = records(catalog)[-1]
    batch.put(Family.AUDIT, (int.from_bytes(key, "big") + 1).to_bytes(8, "big"), stored)
    return 13


def garbage(catalog: RocksCatalog, batch: Batch) -> int:
    batch.put(Family.AUDIT, records(catalog)[2][0], b"\xc1")
    return 3


TAMPERED = [
    edited, last_one_edited, last_one_edited_and_its_hash_removed, renumbered, removed, cut_off, exchanged, inserted,
    garbage,
]  # fmt: skip


@pytest.mark.damages_vault("records of the audit log are changed")
@pytest.mark.parametrize("tamper", thinned(TAMPERED, one_in=3))
def test_a_record_that_was_tampered_with_is_found_and_named(daemon: Any, tamper: Any) -> None:
    daemon.start()
    with daemon.client() as client:
        for number in range(12):
            save_nothing(client, f"key {number}")
        assert client.call(m.VerifyAudit()) == m.AuditVerified(12)
    assert daemon.stop() == 0
    catalog = RocksCatalog(daemon.home / "meta")
    batch = Batch()
    broken_at = tamper(catalog, batch)
    catalog.write(batch)
    catalog.close()
    daemon.start()
    with daemon.client() as client:
        found = client.call(m.VerifyAudit())
        assert found.broken_at == broken_at, found
        assert found.records == broken_at - 1
        assert found.reason
        records = client.call(m.ReadAudit()).records
        assert [line.seq for line in records] == sorted({line.seq for line in records}, reverse=True)
        # It stays visible, whatever is added to it; where it was the last, as what the next does not follow from.
        save_nothing(client, "later")
        if tamper is not last_one_edited_and_its_hash_removed:  # the next record takes the last one as it is
            assert client.call(m.VerifyAudit()).broken_at in (broken_at, broken_at + (tamper is last_one_edited))
    assert daemon.stop() == 0
