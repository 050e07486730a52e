from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tvfs.catalog.catalog import Batch, Family
from tvfs.catalog.memory import MemoryCatalog
from tvfs.catalog.rocks import CatalogCorrupt, CatalogFailed, CatalogLocked, RocksCatalog, RocksSettings


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "meta"


def filled(path: Path, rows: int) -> RocksCatalog:
    catalog = RocksCatalog(path)
    batch = Batch()
    for number in range(rows):
        batch.put(Family.INODE, number.to_bytes(8, "big"), bytes([number % 251]) * 100)
    catalog.write(batch)
    return catalog


def test_rows_survive_closing_and_opening(path: Path) -> None:
    filled(path, 10).close()
    catalog = RocksCatalog(path)
    assert len(list(catalog.scan(Family.INODE))) == 10
    catalog.close()


def test_rows_survive_the_death_of_the_process(path: Path) -> None:
    program = (
        "import os, sys, pathlib\n"
        "from tvfs.catalog.rocks import RocksCatalog\n"
        "from tvfs.catalog.catalog import Batch, Family\n"
        "catalog = RocksCatalog(pathlib.Path(sys.argv[1]))\n"
        "batch = Batch(); batch.put(Family.SYS, b'a', b'1'); catalog.write(batch)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, path], env=dict(os.environ, PYTHONPATH=".")).returncode == -9
    catalog = RocksCatalog(path)
    assert catalog.get(Family.SYS, b"a") == b"1"
    catalog.close()


def test_a_second_opener_is_told_so_and_disturbs_nothing(path: Path) -> None:
    catalog = filled(path, 10)
    with pytest.raises(CatalogLocked, match="tv down"):
        RocksCatalog(path)
    assert len(list(catalog.scan(Family.INODE))) == 10
    catalog.close()


def test_a_damaged_manifest_is_reported(path: Path) -> None:
    filled(path, 10).close()
    for manifest in path.glob("MANIFEST-*"):
        manifest.write_bytes(b"garbage" * 100)
    with pytest.raises(CatalogCorrupt, match="damaged"):
        RocksCatalog(path)


def test_a_damaged_block_is_an_error_and_not_the_end_of_a_scan(path: Path) -> None:
    filled(path, 20_000).close()
    table = max(path.glob("*.sst"), key=lambda file: file.stat().st_size)
    with table.open("r+b") as file:
        file.seek(table.stat().st_size // 2)
        file.write(bytes(2_000))
    catalog = RocksCatalog(path)
    with pytest.raises(CatalogCorrupt):
        list(catalog.scan(Family.INODE))
    catalog.close()


def test_a_catalog_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CatalogFailed, match="check the disk"):
        RocksCatalog(tmp_path / "file" / "meta")


def test_a_torn_configuration_file_of_the_binding_does_not_matter(path: Path) -> None:
    filled(path, 10).close()
    (path / "rocksdict-config.json").write_bytes(b"")
    catalog = RocksCatalog(path)
    assert len(list(catalog.scan(Family.INODE))) == 10
    catalog.close()


def test_disk_bytes_is_what_du_says(path: Path) -> None:
    catalog = filled(path, 20_000)
    trio.run(catalog.flush)
    said = subprocess.run(["du", "-x", "-s", "--block-size=1", path], capture_output=True, text=True, check=True)
    assert catalog.disk_bytes() == int(said.stdout.split()[0])
    catalog.close()


def test_the_peak_covers_what_is_written_anew_and_never_less_than_is_used(path: Path) -> None:
    catalog = RocksCatalog(path, settings=RocksSettings(max_wal_bytes=1 << 20))
    draw = random.Random(1)
    promised, written = catalog.disk_use().peak_bytes, catalog.written_bytes
    for number in range(3000):
        batch = Batch()
        batch.put(Family.INODE, draw.randbytes(16), draw.randbytes(3000))
        catalog.write(batch)
        if number % 20 == 0:
            use = catalog.disk_use()
            # What was said at the last look covers it, with twice what was written since.
            assert use.used_bytes <= promised + 2 * (catalog.written_bytes - written)
            promised, written = use.peak_bytes, catalog.written_bytes
            assert promised >= use.used_bytes
    assert catalog.written_bytes >= 3000 * 3016
    live = 9 << 20
    # In tables, in newer tables, and, as long as they are being written, in the log.
    assert 2 * live < catalog.disk_use().peak_bytes < 4 * live
    catalog.close()


def test_rows_that_were_removed_give_their_room_back_soon(path: Path) -> None:
    catalog = RocksCatalog(path)
    draw = random.Random(1)
    for number in range(1000):
        batch = Batch()
        batch.put(Family.INODE, number.to_bytes(8, "big"), draw.randbytes(4000))
        catalog.write(batch)
    for number in range(1000):
        batch = Batch()
        batch.delete(Family.INODE, number.to_bytes(8, "big"))
        catalog.write(batch)
    assert catalog.disk_use().used_bytes > 4 << 20
    catalog.drop_deleted()
    deadline = time.monotonic() + 20
    while catalog.disk_use().used_bytes > 1 << 20:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    catalog.close()


def test_the_memtables_of_a_fresh_catalog_take_little(path: Path) -> None:
    catalog = RocksCatalog(path)
    used = sum(catalog._families[family].property_int_value("rocksdb.cur-size-all-mem-tables") for family in Family)
    catalog.close()
    assert used < 1 << 20


def test_every_range_with_few_rows_in_a_batch_goes_row_by_row(path: Path) -> None:
    catalog = filled(path, 100)
    keys = [key for key, _ in catalog.scan(Family.INODE)]
    catalog._families[Family.INODE].flush()
    batch = Batch()
    batch.put(Family.INODE, keys[50], b"elsewhere")
    batch.delete_range(Family.INODE, keys[0], keys[4])
    batch.delete_range(Family.INODE, keys[2], keys[8])
    catalog.write(batch)
    assert [key for key, _ in catalog.scan(Family.INODE)] == keys[8:]
    assert catalog._families[Family.INODE].property_int_value("rocksdb.num-deletes-active-mem-table") >= 8
    catalog.close()


KEYS = st.binary(max_size=3)
FAMILIES = st.sampled_from([Family.SYS, Family.DIRENT, Family.CHUNK])
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("put"), FAMILIES, KEYS, st.binary(max_size=5)),
        st.tuples(st.just("delete"), FAMILIES, KEYS),
        st.tuples(st.just("delete_range"), FAMILIES, KEYS, KEYS),
    ),
    max_size=6,
)


def machine(directory: Path) -> type[RuleBasedStateMachine]:
    numbers: Iterator[int] = iter(range(1_000_000))

    class RocksBesideMemory(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.path = directory / str(next(numbers))
            self.rocks = RocksCatalog(self.path)
            self.memory = MemoryCatalog()

        @rule(changes=CHANGES)
        def write(self, changes: list[tuple[str, ...]]) -> None:
            batch = Batch()
            for kind, *arguments in changes:
                getattr(batch, kind)(*arguments)
            self.rocks.write(batch)
            self.memory.write(batch)

        @rule()
        def reopen(self) -> None:
            self.rocks.close()
            self.rocks = RocksCatalog(self.path)
            self.memory = self.memory.crash_copy(durable_only=False)

        @rule(family=FAMILIES)
        def move_rows_to_files(self, family: Family) -> None:
            self.rocks._families[family].flush()

        @rule(family=FAMILIES, end=KEYS)
        def last(self, family: Family, end: bytes) -> None:
            assert self.rocks.last(family, end) == self.memory.last(family, end)

        @rule(family=FAMILIES, start=KEYS, end=st.none() | KEYS)
        def scan(self, family: Family, start: bytes, end: bytes | None) -> None:
            assert list(self.rocks.scan(family, start, end)) == list(self.memory.scan(family, start, end))

        @rule(family=FAMILIES, keys=st.lists(KEYS, max_size=4))
        def get(self, family: Family, keys: list[bytes]) -> None:
            expected = self.memory.get_many(family, keys)
            assert self.rocks.get_many(family, keys) == expected
            assert [self.rocks.get(family, key) for key in keys] == expected

        @invariant()
        def equal(self) -> None:
            for family in (Family.SYS, Family.DIRENT, Family.CHUNK):
                assert list(self.rocks.scan(family)) == list(self.memory.scan(family))

        def teardown(self) -> None:
            self.rocks.close()

    return RocksBesideMemory


@pytest.mark.parametrize("examples", [5, pytest.param(40, marks=pytest.mark.slow)])
def test_rocks_and_memory_agree_on_everything(tmp_path: Path, examples: int) -> None:
    tried = settings(max_examples=examples, stateful_step_count=25, deadline=None, derandomize=True)
    run_state_machine_as_test(machine(tmp_path), settings=tried)
