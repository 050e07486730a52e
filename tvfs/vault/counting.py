"""A catalog that keeps count of references: every change of a row brings the counts of what the row refers to.

It stands between the vault and its catalog, so no writer knows of counts, and they are true after any crash: they are
in the batch that makes them so (docs/design/reclaim.md §2).
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator, Sequence

from tvfs.catalog.catalog import Batch, Catalog, Delete, DeleteRange, DiskUse, Family, Put
from tvfs.clock import Clock
from tvfs.errors import RowDamaged
from tvfs.vault.batch_effect import Effect, count_manifests, note_chunk, note_object
from tvfs.vault.references import (
    REFERRING,
    Kind,
    blob_key_prefix,
    describe,
    inode_reference,
    object_of_row,
    references_of,
)
from tvfs.vault.unwanted import MOST_NEWBORN, Unwanted

_log = logging.getLogger(__name__)

COUNTED = b"counted"
"""Row of family `sys`: the counts are kept.  A start without it counts anew."""

_COUNT = struct.Struct(">BxxxI")
_VERSION = 1
_WATCHED = REFERRING | {Family.CHUNK}
_MANIFESTS = frozenset({Family.BLOB, Family.PAGE, Family.DOOMED})
_FEW = 4
"""Up to this many rows are looked up one by one: `get_many` has the other threads run in between."""

_MOST_INODES = 8192
"""Inodes whose references are remembered: 1.5 MB."""

_Rows = dict[tuple[Family, bytes], bytes | None]


class CountingCatalog:
    """A `Catalog` around another.  Nobody else may write to that one, nor to families `ref` and `doomed` of this."""

    def __init__(self, inner: Catalog, *, function: str, clock: Clock) -> None:
        """`function` names the vault's own hash function."""
        self._inner = inner
        self.function = function
        self._blob_prefix = blob_key_prefix(function)
        self._clock = clock
        self.unwanted = Unwanted()
        self._inodes: dict[bytes, bytes | None] = {}
        """What the inode rows that were written last refer to: a directory's is written with each name in it."""

    def count(self, key: bytes) -> int:
        """Return how many references from rows there are to an object; `key` as in family `ref`."""
        return decode_count(self._inner.get(Family.REF, key))

    def counts(self, keys: Sequence[bytes]) -> list[int]:
        """Return the counts of several objects, in order."""
        return [decode_count(value) for value in self._many(Family.REF, keys)]

    def write(self, batch: Batch) -> None:
        """Apply a batch atomically, with what it does to the counts."""
        self._write(batch, inherit_age=False)

    def let_go(self, batch: Batch) -> list[bytes]:
        """Apply a batch of the collector's; return what nothing refers to any more because of it.

        That has been unwanted for as long as what referred to it.
        """
        return self._write(batch, inherit_age=True)

    def doom(self, keys: Sequence[bytes]) -> None:
        """Note that nothing refers to these objects, in rows."""
        batch = Batch()
        for key in keys:
            batch.put(Family.DOOMED, key, b"")
        self.write(batch)
        now_s = self._clock.monotonic_s()
        for key in keys:
            self.unwanted.doomed(key, now_s)

    def spill(self, count: int) -> int:
        """Write rows for up to `count` newborn objects, the oldest; return how many: for a stop in order."""
        effect = Effect()
        self._spill(effect, count)
        self._inner.write(Batch(effect.changes))
        self._note(effect, inherit_age=False)
        return len(effect.spilled)

    # What every catalog does.

    def get(self, family: Family, key: bytes) -> bytes | None:
        """Return the row's value, or None."""
        return self._inner.get(family, key)

    def get_many(self, family: Family, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of several rows, in the order of the keys."""
        return self._inner.get_many(family, keys)

    def scan(self, family: Family, start: bytes = b"", end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yield the rows with `start <= key < end` in key order, as they were when the scan began."""
        return self._inner.scan(family, start, end)

    def last(self, family: Family, end: bytes) -> tuple[bytes, bytes] | None:
        """Return the row with the greatest key that is `<= end`, or None."""
        return self._inner.last(family, end)

    async def flush(self) -> None:
        """Return when everything written before the call survives a power loss."""
        await self._inner.flush()

    @property
    def failure(self) -> str | None:
        """Why nothing more is accepted; None while all is well."""
        return self._inner.failure

    def fail(self, reason: str) -> None:
        """Accept nothing more."""
        self._inner.fail(reason)

    def disk_bytes(self) -> int:
        """What the catalog takes on the disk now, in bytes."""
        return self._inner.disk_bytes()

    def drop_deleted(self) -> None:
        """Let rows that were removed give back their room soon."""
        self._inner.drop_deleted()

    def disk_use(self) -> DiskUse:
        """What the catalog takes on the disk now, and for a moment at most."""
        return self._inner.disk_use()

    @property
    def written_bytes(self) -> int:
        """Bytes of rows written since the catalog was opened."""
        return self._inner.written_bytes

    def close(self) -> None:
        """Release everything."""
        self._inner.close()

    # Counting.

    def _write(self, batch: Batch, *, inherit_age: bool) -> list[bytes]:
        rows = self._watched(batch)
        if self._counts_stay(rows):
            self._inner.write(batch)
            return []
        effect = self._effect(rows)
        if effect.deltas or effect.born or effect.gone:
            self._settle(effect, rows)
        self._inner.write(Batch([*batch.changes, *effect.changes]) if effect.changes else batch)
        self._note(effect, inherit_age=inherit_age)
        return effect.doomed

    def _watched(self, batch: Batch) -> _Rows:
        """Return the rows that count as the batch leaves them."""
        rows: _Rows = {}
        for change in batch.changes:
            family = change.family
            if family not in _WATCHED:
                continue
            if type(change) is Put:
                rows[family, change.key] = change.value
            elif type(change) is Delete:
                rows[family, change.key] = None
            elif type(change) is DeleteRange and change.start < change.end:
                for key, _ in self._inner.scan(family, change.start, change.end):
                    rows[family, key] = None
                for row in rows:
                    if row[0] is family and change.start <= row[1] < change.end:
                        rows[row] = None
        return rows

    def _counts_stay(self, rows: _Rows) -> bool:
        """Whether it is plain that the rows refer to what they did before: nearly all that programs do is so."""
        made = []
        for (family, key), new in rows.items():
            if new is None:
                return False
            if family is Family.INODE:
                reference = inode_reference(new, self._blob_prefix)
                if key in self._inodes:
                    if self._inodes[key] != reference:
                        return False
                    continue
                made.append(key)
                refers = reference is not None
            else:
                refers = family is not Family.STAGING or bool(references_of(family, key, new, self.function))
            if refers or self._inner.get(family, key) is not None:
                return False
        if len(self._inodes) + len(made) > _MOST_INODES:
            self._inodes.clear()
        # True whether or not the batch is written: there are none.
        self._inodes.update(dict.fromkeys(made))
        return True

    def _effect(self, rows: _Rows) -> Effect:
        effect = Effect()
        manifests: dict[bytes, list[tuple[bytes, bytes]]] = {}
        olds = self._old_values(rows)
        for (family, key), new in rows.items():
            if family is Family.INODE:
                self._count_inode(effect, key, new)
                continue
            if family is Family.CHUNK:
                note_chunk(effect, key, new)
                continue
            old = olds[family, key]
            if old == new:
                continue
            if family in _MANIFESTS:
                whose = key if family is Family.DOOMED else object_of_row(family, key)
                assert whose is not None, "blobs and pages are objects"
                manifests.setdefault(whose, []).append((old or b"", new or b""))
            else:
                for each in references_of(family, key, old, self.function) if old else ():
                    effect.add(each, -1)
                for each in references_of(family, key, new, self.function) if new else ():
                    effect.add(each, 1)
            note_object(effect, family, key, old, new)
        for changes in manifests.values():
            count_manifests(effect, changes)
        return effect

    def _count_inode(self, effect: Effect, key: bytes, new: bytes | None) -> None:
        after = None if new is None else inode_reference(new, self._blob_prefix)
        inodes = self._inodes
        if key in inodes:
            before = inodes[key]
        else:
            old = self._inner.get(Family.INODE, key)
            before = None if old is None else inode_reference(old, self._blob_prefix)
            if len(inodes) >= _MOST_INODES:
                inodes.clear()
        if before != after or key not in inodes:
            effect.inodes[key] = after
        if before != after:
            if before is not None:
                effect.add(before, -1)
            if after is not None:
                effect.add(after, 1)

    def _old_values(self, rows: _Rows) -> _Rows:
        wanted = [row for row in rows if row[0] is not Family.CHUNK and row[0] is not Family.INODE]
        if len(wanted) <= _FEW:
            return {row: self._inner.get(*row) for row in wanted}
        by_family: dict[Family, list[bytes]] = {}
        for family, key in wanted:
            by_family.setdefault(family, []).append(key)
        olds: _Rows = {}
        for family, keys in by_family.items():
            for key, value in zip(keys, self._many(family, keys), strict=True):
                olds[family, key] = value
        return olds

    def _settle(self, effect: Effect, rows: _Rows) -> None:
        """Find out what becomes wanted and unwanted, and add the rows that say so."""
        keys = [key for key, delta in effect.deltas.items() if delta]
        keys += [key for key in effect.born if not effect.deltas.get(key)]
        changes, newborn = effect.changes, self.unwanted.newborn
        turned: list[bytes] = []
        for key, value in zip(keys, self._many(Family.REF, keys), strict=True):
            count, delta = decode_count(value), effect.deltas.get(key, 0)
            if count + delta < 0:
                self._distrust(effect, key)
                continue
            if not count + delta:
                if delta:
                    changes.append(Delete(Family.REF, key))
                    effect.doomed.append(key)
                    turned.append(key)
                continue
            effect.born.pop(key, None)
            if delta:
                changes.append(Put(Family.REF, key, encode_count(count + delta)))
            if not count:
                effect.wanted.append(key)
                if key[0] != Kind.CHUNK or key not in newborn:
                    turned.append(key)
        self._settle_doomed(effect, turned, rows)
        overflow = len(newborn) + len(effect.born) - MOST_NEWBORN
        if overflow > 0:
            self._spill(effect, overflow)

    def _settle_doomed(self, effect: Effect, turned: list[bytes], rows: _Rows) -> None:
        doomed = set(effect.doomed)
        for key, value in zip(turned, self._many(Family.DOOMED, turned), strict=True):
            if (Family.DOOMED, key) in rows:
                continue  # the batch says what becomes of it
            # The rest of a manifest is not the object: it stays until it has been let go.
            if key in doomed and value is None:
                effect.changes.append(Put(Family.DOOMED, key, b""))
            elif key not in doomed and value == b"":
                effect.changes.append(Delete(Family.DOOMED, key))

    def _spill(self, effect: Effect, count: int) -> None:
        effect.spilled = self.unwanted.oldest_newborn(count)
        for key, value in zip(effect.spilled, self._many(Family.DOOMED, effect.spilled), strict=True):
            if value is None:
                effect.changes.append(Put(Family.DOOMED, key, b""))

    def _distrust(self, effect: Effect, key: bytes) -> None:
        # Never free on doubt: the object stays, and the next start counts anew.
        _log.error("the count of %s is too low; restart the daemon to count anew", describe(key))
        effect.changes.append(Delete(Family.SYS, COUNTED))

    def _note(self, effect: Effect, *, inherit_age: bool) -> None:
        """Remember what was written."""
        self._inodes.update(effect.inodes)
        unwanted = self.unwanted
        now_s = self._clock.monotonic_s()
        for key in effect.gone:
            unwanted.forget(key)
        for key in effect.wanted:
            unwanted.forget(key)
        for key in effect.spilled:
            unwanted.spilled(key, now_s)
        for key in effect.born:
            unwanted.born(key, now_s)
        for key in effect.doomed:
            if inherit_age:
                unwanted.forget(key)
            else:
                unwanted.doomed(key, now_s)

    def _many(self, family: Family, keys: Sequence[bytes]) -> list[bytes | None]:
        if len(keys) <= _FEW:
            return [self._inner.get(family, key) for key in keys]
        return self._inner.get_many(family, keys)


def encode_count(count: int) -> bytes:
    """Return the value of a row of family `ref`."""
    return _COUNT.pack(_VERSION, count)


def decode_count(value: bytes | None) -> int:
    """Return what such a row says; no row means 0.  Raise `RowDamaged`."""
    if value is None:
        return 0
    if len(value) != _COUNT.size:
        raise RowDamaged("A count's row in the catalog")
    count: int = _COUNT.unpack(value)[1]
    return count
