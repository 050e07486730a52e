"""The catalog on disk: RocksDB, through `rocksdict`, which no other module imports.

What shapes this file, all measured: `rocksdict` holds the interpreter lock in every call but `get([..])`, `flush_wal`
and `close`, so calls are inline and short and only the fsync is in a thread; a column family object flushes its
memtable when it is collected, so each is fetched once and kept; its errors are plain `Exception`s told apart by their
text; its `items()` ends silently at a damaged block, so scans use `iter()` and ask for its status.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from rocksdict import (
    AccessType,
    BlockBasedIndexType,
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
)

from tvfs.catalog.ballast import Ballast
from tvfs.catalog.catalog import Batch, Delete, DeleteRange, DiskUse, Family, Put
from tvfs.catalog.group_commit import FlushFailed, GroupCommit
from tvfs.errors import TaskVaultError

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class RocksSettings:
    """What RocksDB may use."""

    memtable_bytes: int = 48 * MIB
    """Rows not yet in files, all families together."""
    block_cache_bytes: int = 64 * MIB
    """Blocks of files, indexes and filters among them."""
    max_wal_bytes: int = 64 * MIB
    """Log kept for recovery; at most 1/16 of the vault, since it counts as used."""
    background_jobs: int = 2
    """Flushes and compactions at a time: one of each."""


class CatalogLocked(TaskVaultError):
    """Another process has the catalog open."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"Another process has the catalog {path} open; stop it with `tv down`, or use the running daemon."
        )
        self.path = path


class CatalogCorrupt(TaskVaultError):
    """The catalog's files do not check."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"The catalog {path} is damaged ({reason}); nothing was changed."
            " Repair it with `tv fsck`, or restore the vault from a copy."
        )
        self.path = path


class CatalogFull(TaskVaultError):
    """The disk has no room for the catalog."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"The disk that holds {path} is full; free some space on it and try again.")
        self.path = path


class CatalogFailed(TaskVaultError):
    """RocksDB reported something else."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"The catalog {path} could not be used: {reason}; check the disk and its permissions.")
        self.path = path


COMPACTION_MAX_BYTES = 192 * MIB
"""What one compaction may take beside its input, with a margin of two: measured 98 MiB in a catalog of 600 MiB.  A
smaller catalog may be written anew as a whole."""
_LEVEL_BASE_BYTES = 64 * MIB
_TABLE_BYTES = 8 * MIB
_COMPACTION_BYTES = 100 * MIB
"""The three together are why a compaction takes no more; they cost no speed."""
_WAL_OVERSHOOT = 1.25
"""How much longer than `max_wal_bytes` the log gets before the families in it are flushed; measured 1.22."""
_ROW_OVERHEAD_BYTES = 24
"""Of a row in the log, beside its key and value."""
_DELETIONS_WINDOW = 4096
"""Where half of so many rows in succession only say that others were removed, a table is written anew."""
_DELETIONS_WORTH_A_TABLE = 256
_FEW_ROWS = 32
"""So many rows are removed one by one rather than as a range."""
_ROWS_OF_A_RANGE = 16
"""How many rows a range that is removed is taken to have."""
_REOPENING_BYTES = MIB
"""What opening the catalog anew takes beside the rows of its log, which become tables."""
_LIVE_TABLES = "rocksdb.live-sst-files-size"
_BLOCK_BYTES = 512
"""Unit of `st_blocks`."""


_UNCOMPRESSED = frozenset({Family.SYS, Family.CHUNK, Family.PACK, Family.BLOB, Family.PAGE, Family.ORPHAN})
"""Families whose values are hashes or counters: compressing them costs time and saves nothing."""


class RocksCatalog:
    """A `Catalog` in a directory.  One at a time may be open on it, in this process or any other.

    Finish or drop every scan before `close`: an open iterator keeps RocksDB's lock on the directory.
    """

    def __init__(
        self,
        path: Path,
        *,
        settings: RocksSettings | None = None,
        read_only: bool = False,
        ballast: Ballast | None = None,
    ) -> None:
        """Open or make the catalog; raise `CatalogLocked`, `CatalogCorrupt`, `CatalogFull` or `CatalogFailed`.

        With `read_only` it must be there, only family `sys` can be read, and nothing of it is changed.  On a full disk
        `ballast` gives way.
        """
        if read_only and not (path / "CURRENT").exists():
            raise CatalogCorrupt(path, "it has no file CURRENT")
        self._path = path
        self._read_only = read_only
        self.ballast = ballast
        """What gives way when the disk is full."""
        self._settings = settings or RocksSettings()
        self._db: Any = None
        self._stuck = False
        self._written_bytes = 0
        self._deleted = dict.fromkeys(Family, 0)
        try:
            self._open()
        except CatalogFull:
            if ballast is None or not ballast.give_all():
                raise
            self._stuck = False
            self._open()
        self._flushing = GroupCommit(self._sync_wal, retryable=CatalogFull)

    def get(self, family: Family, key: bytes) -> bytes | None:
        """Return the row's value, or None."""
        try:  # spelled out instead of `with self._translated()`, which would cost as much as the look-up
            value: bytes | None = self._families[family].get(key)
        except Exception as exc:  # noqa: BLE001 - rocksdict raises nothing narrower
            self._raise_translated(exc)
        return value

    def get_many(self, family: Family, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of several rows, in the order of the keys; other threads run meanwhile."""
        if not keys:
            return []
        with self._translated():
            values: list[bytes | None] = self._families[family].get(list(keys))
        return values

    def scan(self, family: Family, start: bytes = b"", end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yield the rows with `start <= key < end` in key order, as they were when the scan began."""
        bounds = ReadOptions()
        if end is not None:
            if end <= start:
                return iter(())
            bounds.set_iterate_upper_bound(end)
        with self._translated():
            # Positioned now and not at the first `next`: the iterator pins the state of this moment.
            cursor = self._families[family].iter(bounds)
            cursor.seek(start)
        return self._rows(cursor, bounds)

    def last(self, family: Family, end: bytes) -> tuple[bytes, bytes] | None:
        """Return the row with the greatest key that is `<= end`, or None."""
        with self._translated():
            cursor = self._families[family].iter()
            cursor.seek_for_prev(end)
            if cursor.valid():
                return cursor.key(), cursor.value()
            cursor.status()
        return None

    def write(self, batch: Batch) -> None:
        """Apply a batch atomically.  It survives the death of this process, not yet a power loss.

        Raises `FlushFailed` once a sync has failed: the vault is read-only until it is opened again.
        """
        if not batch.changes:
            return
        if self._flushing.failure is not None:
            raise FlushFailed(self._flushing.failure)
        if self.ballast is not None:
            self.ballast.look()
        try:
            self._write(batch)
        except CatalogFull:
            # Others took what there was between our look and the write.
            if self.ballast is None or not self.ballast.give_all():
                raise
            self._write(batch)

    def _write(self, batch: Batch) -> None:
        self._recover_from_full_disk()
        # The hottest lines of a program that makes files: no pattern matching, and no context manager.
        try:
            rows = WriteBatch(raw_mode=True)
            handles, deleted = self._handles, self._deleted
            written_bytes = _ROW_OVERHEAD_BYTES * len(batch.changes)
            for position, change in enumerate(batch.changes):
                if type(change) is Put:
                    key, value = change.key, change.value
                    written_bytes += len(key) + len(value)
                    rows.put(key, value, handles[change.family])
                elif type(change) is Delete:
                    deleted[change.family] += 1
                    rows.delete(change.key, handles[change.family])
                elif type(change) is DeleteRange and change.start < change.end:
                    self._delete_range(rows, batch.changes[:position], change)
            # Never with sync=True: it would hold the interpreter lock through the fsync.
            self._db.write(rows)
        except Exception as exc:  # noqa: BLE001 - rocksdict raises nothing narrower
            self._raise_translated(exc)
        self._written_bytes += written_bytes

    def _delete_range(self, rows: Any, before: Sequence[Put | Delete | DeleteRange], gone: DeleteRange) -> None:
        family = gone.family
        self._deleted[family] += _ROWS_OF_A_RANGE
        few = self._few_rows(before, family, gone.start, gone.end)
        if few is None:
            rows.delete_range(gone.start, gone.end, self._handles[family])
        else:
            for key in few:
                rows.delete(key, self._handles[family])

    def _few_rows(
        self, before: Sequence[Put | Delete | DeleteRange], family: Family, start: bytes, end: bytes
    ) -> list[bytes] | None:
        """Return the keys in a range if they are few, else None.

        Every look-up in a family sorts the removed ranges that are still in memory: after thousands of removals of
        small trees one took milliseconds, though hardly any of these ranges had a row in it.
        """
        if any(type(each) is Put and each.family is family and start <= each.key < end for each in before):
            return None  # what the same batch puts into the range is not seen here
        found = [key for key, _ in islice(self.scan(family, start, end), _FEW_ROWS + 1)]
        return found if len(found) <= _FEW_ROWS else None

    async def flush(self) -> None:
        """Return when everything written before survives a power loss; raise `FlushFailed` or `CatalogFull`."""
        self._recover_from_full_disk()
        await self._flushing.wait()

    def flush_blocking(self) -> None:
        """Do what `flush` does where no event loop runs yet: while a vault is made."""
        with self._translated():
            self._sync_wal()

    @property
    def failure(self) -> str | None:
        """Why nothing more is accepted; None while all is well."""
        return self._flushing.failure

    def fail(self, reason: str) -> None:
        """Accept nothing more, until the catalog is opened anew."""
        self._flushing.fail(reason)

    def disk_bytes(self) -> int:
        """What the catalog's directory and files take on the disk, in bytes."""
        return self.disk_use().used_bytes

    def drop_deleted(self) -> None:
        """Write out memtables that say that rows were removed; RocksDB then drops them with what they cover.

        Tables that mostly remove are written anew in the background (`compact_on_deletion`), but only tables: what is
        in memory would wait for as many other rows.
        """
        for family, count in self._deleted.items():
            if count >= _DELETIONS_WORTH_A_TABLE:
                with self._translated():
                    self._families[family].flush(False)
                self._deleted[family] = 0

    @property
    def written_bytes(self) -> int:
        """Bytes of rows written since the catalog was opened."""
        return self._written_bytes

    def disk_use(self) -> DiskUse:
        """Look at every file: 0.2 ms, and 60 µs for what RocksDB says itself."""
        used = os.stat(self._path).st_blocks * _BLOCK_BYTES
        wal_used = wal_bytes = tables = 0
        with os.scandir(self._path) as files:
            for file in files:
                try:
                    found = file.stat(follow_symlinks=False)
                except FileNotFoundError:  # RocksDB removed it in the background
                    continue
                used += found.st_blocks * _BLOCK_BYTES
                if file.name.endswith(".log"):
                    wal_used += found.st_blocks * _BLOCK_BYTES
                    wal_bytes += found.st_size
                elif file.name.endswith(".sst"):
                    tables += found.st_blocks * _BLOCK_BYTES
        # What is in the log will be in tables, and all tables together are written anew, or as much of them as one
        # compaction takes, while the old ones are still there.  Files that RocksDB no longer counts are temporary.
        live = min(tables, self._live_table_bytes()) + wal_bytes
        log = max(wal_used, int(self._settings.max_wal_bytes * _WAL_OVERSHOOT))
        peak = live + min(live, COMPACTION_MAX_BYTES) + log + (used - wal_used - tables)
        return DiskUse(used, max(used, peak))

    def _live_table_bytes(self) -> int:
        with self._translated():
            return sum(family.property_int_value(_LIVE_TABLES) for family in self._families.values())

    def close(self) -> None:
        """Release everything; what was written but not flushed may be lost with the power only."""
        assert not self._flushing.busy, "close() while somebody waits for flush()"
        with self._translated():
            self._close()

    def _open(self) -> None:
        with self._translated():
            cache = Cache(self._settings.block_cache_bytes)
            options = _database_options(self._settings, cache)
            opened = (Family.SYS,) if self._read_only else tuple(Family)
            families = {family.value: _family_options(family, self._settings, cache) for family in opened}
            access = AccessType.read_only() if self._read_only else AccessType.read_write()
            self._db = Rdict(str(self._path), options, families, access)
            self._families: dict[Family, Any] = {family: self._db.get_column_family(family.value) for family in opened}
            self._handles: dict[Family, Any] = {
                family: self._db.get_column_family_handle(family.value) for family in opened
            }

    def _close(self) -> None:
        self._handles.clear()
        objects = [*self._families.values(), self._db]
        self._families.clear()
        self._db = None
        while objects:
            try:
                objects.pop(0).close()
            # Any: the library has no type for it.  A stuck database could not write its memtables; their rows are in
            # the log and come back with the next opening.
            except Exception:
                if not self._stuck:
                    raise

    def _recover_from_full_disk(self) -> None:
        # After a write that found the disk full RocksDB takes no more, also when there is space again; only opening it
        # anew helps.  That replays the log and writes it out, for which there must be room.
        if not self._stuck:
            return
        disk = os.statvfs(self._path)
        log_bytes = sum(path.stat().st_size for path in self._path.glob("*.log"))
        if self._flushing.busy or disk.f_bavail * disk.f_frsize < log_bytes + _REOPENING_BYTES:
            raise CatalogFull(self._path)
        self._close()
        self._open()
        self._stuck = False

    def _sync_wal(self) -> None:
        try:
            self._db.flush_wal(True)
        except Exception as exc:
            if self._stuck:  # a write failed meanwhile: nothing that was written before is lost
                raise CatalogFull(self._path) from exc
            raise

    def _rows(self, cursor: Any, bounds: Any) -> Iterator[tuple[bytes, bytes]]:
        # RocksDB reads the upper bound out of `bounds` at every step, and the cursor does not keep it alive: were it
        # freed, the scan would end early and say nothing.  As a parameter it lives as long as this generator.
        assert bounds is not None
        valid: Callable[[], bool] = cursor.valid
        try:
            while valid():
                yield cursor.key(), cursor.value()
                cursor.next()
            # An iterator that meets a damaged block becomes invalid, as at the end; only its status tells.
            cursor.status()
        except Exception as exc:  # noqa: BLE001 - rocksdict raises nothing narrower
            self._raise_translated(exc)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except Exception as exc:  # noqa: BLE001 - rocksdict raises nothing narrower
            self._raise_translated(exc)

    def _raise_translated(self, exc: Exception) -> NoReturn:
        if self._db is None and self._stuck:
            raise CatalogFull(self._path) from exc
        if type(exc) is not Exception:  # a TypeError, say, is our own bug
            raise exc
        text = str(exc)
        if "/LOCK:" in text or "lock hold by current process" in text:
            raise CatalogLocked(self._path) from exc
        if "No space left on device" in text or "space limit reached" in text:
            self._stuck = True
            raise CatalogFull(self._path) from exc
        if text.startswith(("Corruption", "Invalid argument")):
            raise CatalogCorrupt(self._path, text) from exc
        raise CatalogFailed(self._path, text) from exc


def _database_options(settings: RocksSettings, cache: Any) -> Any:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    options.set_db_write_buffer_size(settings.memtable_bytes)
    options.set_max_total_wal_size(settings.max_wal_bytes)
    options.set_max_background_jobs(settings.background_jobs)
    options.set_max_open_files(256)
    options.set_wal_bytes_per_sync(MIB)
    options.set_bytes_per_sync(MIB)
    options.set_keep_log_file_num(3)
    # Files that only grow, and the log's own limit says how small the vault is.
    options.set_max_log_file_size(max(settings.max_wal_bytes // 16, 64 << 10))
    options.set_max_manifest_file_size(max(settings.max_wal_bytes // 16, MIB))
    options.set_stats_dump_period_sec(0)
    options.set_manifest_preallocation_size(64 << 10)
    options.set_paranoid_checks(True)
    _set_table(options, cache)
    return options


def _family_options(family: Family, settings: RocksSettings, cache: Any) -> Any:
    options = Options(raw_mode=True)
    options.set_write_buffer_size(settings.memtable_bytes // 3)
    # The default block of 1 MiB, times 16 families, would be a third of the budget before anything is in it.
    options.set_arena_block_size(128 << 10)
    options.set_level_compaction_dynamic_level_bytes(True)
    options.set_max_bytes_for_level_base(_LEVEL_BASE_BYTES)
    options.set_target_file_size_base(_TABLE_BYTES)
    options.set_max_compaction_bytes(_COMPACTION_BYTES)
    # Rows that were removed give their room back soon, not when as many others have come.
    options.add_compact_on_deletion_collector_factory(_DELETIONS_WINDOW, _DELETIONS_WINDOW // 2, 0.5)
    options.set_compression_type(DBCompressionType.none() if family in _UNCOMPRESSED else DBCompressionType.lz4())
    _set_table(options, cache)
    return options


def _set_table(options: Any, cache: Any) -> None:
    table = BlockBasedOptions()
    table.set_block_cache(cache)
    table.set_cache_index_and_filter_blocks(True)
    table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    table.set_bloom_filter(10, False)
    # Index and filter in pieces: whole ones are larger than a shard of the cache, and among a million rows they were
    # read again for every twentieth look-up, 100 us each; 16 KiB were read a look-up, now 0.7.
    table.set_index_type(BlockBasedIndexType.two_level_index_search())
    table.set_partition_filters(True)
    table.set_pin_top_level_index_and_filter(True)
    table.set_format_version(5)
    options.set_block_based_table_factory(table)
