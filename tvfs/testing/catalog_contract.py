"""What every catalog promises.  Subclass it and say how one is made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import pytest
import trio

from tvfs.catalog.catalog import Batch, Catalog, Family, prefix_end


class CatalogContract(ABC):
    """The promises of `Catalog`."""

    @abstractmethod
    def make_catalog(self) -> Catalog:
        """Return a new, empty catalog."""

    @pytest.fixture
    def catalog(self) -> Iterator[Catalog]:
        """One catalog, closed after the test."""
        catalog = self.make_catalog()
        yield catalog
        catalog.close()

    def test_an_absent_row_is_none(self, catalog: Catalog) -> None:
        """An empty catalog has nothing."""
        assert catalog.get(Family.SYS, b"x") is None
        assert catalog.get_many(Family.SYS, [b"x", b"y"]) == [None, None]
        assert catalog.get_many(Family.SYS, []) == []
        assert list(catalog.scan(Family.SYS)) == []
        assert catalog.last(Family.SYS, b"\xff") is None

    def test_a_written_row_is_read_back_exactly(self, catalog: Catalog) -> None:
        """Empty values, zero bytes and 0xff bytes are nothing special."""
        rows = {b"\x00": b"", b"\x00\x00": b"\x00", b"\xff" * 40: b"\xff" * 10_000, b"k": b"v"}
        _put(catalog, Family.INODE, rows)
        assert {key: catalog.get(Family.INODE, key) for key in rows} == rows
        assert catalog.get_many(Family.INODE, [b"k", b"absent", b"\x00"]) == [b"v", None, b""]

    def test_families_do_not_mix(self, catalog: Catalog) -> None:
        """The same key in every family holds that family's value."""
        for family in Family:
            _put(catalog, family, {b"k": family.value.encode()})
        for family in Family:
            assert list(catalog.scan(family)) == [(b"k", family.value.encode())]

    def test_changes_of_a_batch_happen_in_order(self, catalog: Catalog) -> None:
        """A later change of the same row wins, across kinds of change."""
        _put(catalog, Family.DIRENT, {b"a": b"0", b"b": b"0", b"c": b"0"})
        batch = Batch()
        batch.put(Family.DIRENT, b"a", b"1")
        batch.delete(Family.DIRENT, b"a")
        batch.delete_range(Family.DIRENT, b"b", b"c")
        batch.put(Family.DIRENT, b"b", b"2")
        batch.put(Family.DIRENT, b"d", b"3")
        batch.delete_range(Family.DIRENT, b"d", b"e")
        catalog.write(batch)
        assert list(catalog.scan(Family.DIRENT)) == [(b"b", b"2"), (b"c", b"0")]

    def test_a_batch_spans_families(self, catalog: Catalog) -> None:
        """One batch, several families."""
        batch = Batch()
        batch.put(Family.INODE, b"i", b"1")
        batch.put(Family.DIRENT, b"d", b"2")
        catalog.write(batch)
        assert (catalog.get(Family.INODE, b"i"), catalog.get(Family.DIRENT, b"d")) == (b"1", b"2")

    def test_empty_batches_and_empty_ranges_change_nothing(self, catalog: Catalog) -> None:
        """Nor do ranges whose end is before their start."""
        _put(catalog, Family.RUN, {b"a": b"1"})
        catalog.write(Batch())
        batch = Batch()
        batch.delete_range(Family.RUN, b"a", b"a")
        batch.delete_range(Family.RUN, b"b", b"a")
        batch.delete(Family.RUN, b"absent")
        catalog.write(batch)
        assert list(catalog.scan(Family.RUN)) == [(b"a", b"1")]

    def test_a_scan_includes_its_start_and_excludes_its_end(self, catalog: Catalog) -> None:
        """Half-open, in bytewise order."""
        _put(catalog, Family.ENTRY, dict.fromkeys((b"a", b"b", b"b\x00", b"b\xff", b"c"), b""))
        assert [key for key, _ in catalog.scan(Family.ENTRY, b"b", b"c")] == [b"b", b"b\x00", b"b\xff"]
        assert [key for key, _ in catalog.scan(Family.ENTRY, b"b\x01")] == [b"b\xff", b"c"]
        assert list(catalog.scan(Family.ENTRY, b"c", b"a")) == []

    def test_a_prefix_is_scanned_whole(self, catalog: Catalog) -> None:
        """`prefix_end` bounds it, also for prefixes that end in 0xff."""
        _put(catalog, Family.ENTRY, dict.fromkeys((b"p", b"p\xff", b"p\xff\xff", b"q", b"\xff", b"\xff\xff1"), b""))
        assert [k for k, _ in catalog.scan(Family.ENTRY, b"p\xff", prefix_end(b"p\xff"))] == [b"p\xff", b"p\xff\xff"]
        assert [k for k, _ in catalog.scan(Family.ENTRY, b"\xff", prefix_end(b"\xff"))] == [b"\xff", b"\xff\xff1"]

    def test_a_long_scan_yields_every_row_before_its_end(self, catalog: Catalog) -> None:
        """However much memory is used and freed while it goes on."""
        rows = {number.to_bytes(8, "big"): b"v" * 50 for number in range(3000)}
        _put(catalog, Family.DIRENT, rows)
        for end in (2999, 1500):
            found = []
            for key, _ in catalog.scan(Family.DIRENT, (0).to_bytes(8, "big"), end.to_bytes(8, "big")):
                found.append(key)
                _ = [bytes([255]) * 8 for _ in range(50)]
            assert found == list(rows)[:end]

    def test_a_scan_shows_the_rows_of_the_moment_it_began(self, catalog: Catalog) -> None:
        """Also if its first row is asked for only later."""
        _put(catalog, Family.ENTRY, {b"a": b"1", b"b": b"1"})
        scan = catalog.scan(Family.ENTRY)
        batch = Batch()
        batch.put(Family.ENTRY, b"a", b"2")
        batch.delete(Family.ENTRY, b"b")
        batch.put(Family.ENTRY, b"c", b"2")
        catalog.write(batch)
        assert list(scan) == [(b"a", b"1"), (b"b", b"1")]
        assert list(catalog.scan(Family.ENTRY)) == [(b"a", b"2"), (b"c", b"2")]

    def test_last_finds_the_greatest_key_up_to_the_end(self, catalog: Catalog) -> None:
        """Including the end itself; deleted rows do not count."""
        _put(catalog, Family.RANGE, {b"b": b"1", b"d": b"2"})
        assert catalog.last(Family.RANGE, b"a") is None
        assert catalog.last(Family.RANGE, b"b") == (b"b", b"1")
        assert catalog.last(Family.RANGE, b"c\xff") == (b"b", b"1")
        assert catalog.last(Family.RANGE, b"\xff") == (b"d", b"2")
        batch = Batch()
        batch.delete(Family.RANGE, b"d")
        catalog.write(batch)
        assert catalog.last(Family.RANGE, b"\xff") == (b"b", b"1")

    def test_a_written_batch_may_be_reused_by_its_maker(self, catalog: Catalog) -> None:
        """The catalog keeps no reference to it."""
        batch = Batch()
        batch.put(Family.SYS, b"a", b"1")
        catalog.write(batch)
        batch.changes.clear()
        assert catalog.get(Family.SYS, b"a") == b"1"

    async def test_many_may_flush_at_once(self, catalog: Catalog) -> None:
        """Every flush returns, and what was written stays readable."""

        async def write_and_flush(number: int) -> None:
            _put(catalog, Family.SYS, {b"%d" % number: b"v"})
            await catalog.flush()

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(write_and_flush, number)
        assert len(list(catalog.scan(Family.SYS))) == 20

    async def test_reading_from_another_thread_sees_what_was_written(self, catalog: Catalog) -> None:
        """`get` and `get_many` are for any thread."""
        _put(catalog, Family.CHUNK, {b"a": b"1"})
        assert await trio.to_thread.run_sync(catalog.get, Family.CHUNK, b"a") == b"1"
        assert await trio.to_thread.run_sync(catalog.get_many, Family.CHUNK, [b"a", b"b"]) == [b"1", None]

    def test_disk_use_is_a_number_of_bytes(self, catalog: Catalog) -> None:
        """Zero for what is not on disk."""
        assert catalog.disk_bytes() >= 0


def _put(catalog: Catalog, family: Family, rows: dict[bytes, bytes]) -> None:
    batch = Batch()
    for key, value in rows.items():
        batch.put(family, key, value)
    catalog.write(batch)
