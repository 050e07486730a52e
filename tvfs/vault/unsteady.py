"""Keys whose run did not make the same again: marks, which outlive the entries that they are about.  Family `sys`:

    unsteady:<scope> 0x00 <key>     msgpack `UnsteadyMark`
    unsteadyseq:<number 8>          <scope> 0x00 <key>, in the order in which they were marked

The oldest are forgotten when there are too many.  That serves nothing wrong: a key that is marked has no entry.
"""

from __future__ import annotations

import msgspec

from tvfs.catalog.catalog import Batch, Catalog, Family, prefix_end
from tvfs.errors import TaskVaultError
from tvfs.vault.stored_entry import entry_row_key

MOST_MARKS = 4096
"""A few hundred bytes each."""
_MARK = b"unsteady:"
_ORDER = b"unsteadyseq:"


class KeyUnsteady(TaskVaultError):
    """A run that does not make the same each time is not bound to its key, unless somebody insists."""

    def __init__(self, scope: str, key: str, how: str) -> None:
        super().__init__(f"It does not make the same each time: {how}; `tv run --refresh` stores it all the same.")
        self.scope = scope
        self.key = key


class UnsteadyMark(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a key that did not reproduce."""

    seq: int
    """Of its row in the order of marks."""
    marked_ns: int
    run: str
    """Whose result was compared; a number of the history."""
    how: str
    """What differed, as part of a sentence."""


class UnsteadyKeys:
    """The marks of one vault.  A change is added to its caller's batch; write that before the next `await`."""

    def __init__(self, catalog: Catalog, *, most: int = MOST_MARKS) -> None:
        self._catalog = catalog
        self._most = most

    def get(self, scope: str, key: str) -> UnsteadyMark | None:
        """Return the mark of a key; raise `NameInvalid`.  One that cannot be read still marks."""
        row = self._catalog.get(Family.SYS, _MARK + entry_row_key(scope, key))
        return None if row is None else _decoded(row)

    def add_to(self, batch: Batch, scope: str, key: str, *, marked_ns: int, run: str, how: str) -> None:
        """Mark a key, or anew; raise `NameInvalid`."""
        row_key = entry_row_key(scope, key)
        self.remove_in(batch, scope, key)
        last = self._catalog.last(Family.SYS, _ORDER + b"\xff" * 8)
        seq = 1 + (_number(last[0]) if last is not None and last[0].startswith(_ORDER) else 0)
        mark = UnsteadyMark(seq, marked_ns, run, how)
        batch.put(Family.SYS, _MARK + row_key, msgspec.msgpack.encode(mark))
        batch.put(Family.SYS, _order_row(seq), row_key)
        first = next(self._catalog.scan(Family.SYS, _ORDER, prefix_end(_ORDER)), None)
        # One goes for each that comes, so they never become more.
        if first is not None and seq - _number(first[0]) >= self._most and first[1] != row_key:
            batch.delete(Family.SYS, first[0])
            batch.delete(Family.SYS, _MARK + first[1])

    def remove_in(self, batch: Batch, scope: str, key: str) -> None:
        """Take the mark of a key away, if it has one; raise `NameInvalid`."""
        mark = self.get(scope, key)
        if mark is not None:
            batch.delete(Family.SYS, _MARK + entry_row_key(scope, key))
            if mark.seq:
                batch.delete(Family.SYS, _order_row(mark.seq))


def _order_row(seq: int) -> bytes:
    return _ORDER + seq.to_bytes(8, "big")


def _number(row_key: bytes) -> int:
    return int.from_bytes(row_key[len(_ORDER) :], "big")


def _decoded(row: bytes) -> UnsteadyMark:
    try:
        return msgspec.msgpack.decode(row, type=UnsteadyMark)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return UnsteadyMark(0, 0, "", "what differed cannot be read any more")
