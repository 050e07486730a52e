"""The history of runs: rows in family `run`, numbered from 1; and in family `sys` where to find them, and their sums.

    runtag:<tag 8><number 8>   nothing: the run has this tag, a hash of what it is looked for by
    runtags:<number 8>         its tags, so that they can go with it
    runsum:<name>              RunSum of all runs of that name, also of those that are forgotten
    runstate                   RunState

The oldest are forgotten when there are too many: history must not fill the vault.  A number is never given twice, even
if rows were lost: tags, and what the mount shows, lead to runs by number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
from msgspec.structs import astuple

from tvfs.catalog.catalog import Batch, Catalog, Family, prefix_end

MOST_RUNS = 200_000
MOST_BYTES = 1 << 30
TAG_BYTES = 8
MOST_NAMES = 500
"""Sums are kept for so many names; what is beyond that is summed as `OTHERS`."""
OTHERS = "others"
TAG = b"runtag:"
TAGS = b"runtags:"
_SUM = b"runsum:"
STATE = b"runstate"
_FORGOTTEN_AT_ONCE = 8
"""So that whoever adds a short record need not remove very many."""
_END = (1 << 64) - 1
_MOST = 1 << 62
"""Of a sum; a caller may say anything."""


class RunSum(msgspec.Struct, frozen=True, array_like=True):
    """All runs of one command."""

    runs: int = 0
    hits: int = 0
    stored: int = 0
    failed: int = 0
    """Those whose command failed."""
    duration_ns: int = 0
    """What they took, replays included."""
    saved_ns: int = 0

    def plus(self, other: RunSum) -> RunSum:
        """Return the sums of both."""
        return RunSum(*(min(a + b, _MOST) for a, b in zip(astuple(self), astuple(other), strict=True)))


class RunState(msgspec.Struct, array_like=True):
    """What is left of the history."""

    first: int
    """The first number that may be left."""
    bytes_: int
    """Of the records from `counted_from` on."""
    counted_from: int = 0
    """Those before were written when nothing was counted; they go first."""
    last: int = 0
    """The last number that was given."""


class RunHistory:
    """Appends records, whose meaning is their writer's, and reads them back latest first."""

    def __init__(self, catalog: Catalog, *, most: int = MOST_RUNS, most_bytes: int = MOST_BYTES) -> None:
        self._catalog = catalog
        self._most = most
        self._most_bytes = most_bytes
        self._sums: dict[str, RunSum] | None = None
        self._known: RunState | None = None

    def append(self, record: bytes, *, tags: Sequence[bytes] = (), name: str = "", counts: RunSum | None = None) -> int:
        """Store a record and return its number.  It is history: nobody waits for the disk.

        `tags` have 8 bytes each; `counts` is added to the sums of `name`.
        """
        state = self._known if self._known is not None else self._state()
        # As long as it is not written it is not known what the rows say.
        self._known = None
        seq = state.last + 1
        number = seq.to_bytes(8, "big")
        batch = Batch()
        batch.put(Family.RUN, number, record)
        if tags:
            batch.put(Family.SYS, TAGS + number, b"".join(tags))
            for tag in tags:
                batch.put(Family.SYS, TAG + tag + number, b"")
        sums = self.sums()
        if counts is not None:
            name = name if name in sums or len(sums) < MOST_NAMES else OTHERS
            counts = sums.get(name, RunSum()).plus(counts)
            batch.put(Family.SYS, _SUM + name.encode("utf-8", "replace"), msgspec.msgpack.encode(counts))
        state.last, state.bytes_ = seq, state.bytes_ + len(record)
        self._forget(batch, state)
        if state.first == seq:
            state.counted_from, state.bytes_ = seq, len(record)
        batch.put(Family.SYS, STATE, msgspec.msgpack.encode(state))
        self._catalog.write(batch)
        self._known = state
        if counts is not None:
            sums[name] = counts
        return seq

    def get(self, seq: int) -> bytes | None:
        """Return one record."""
        return self._catalog.get(Family.RUN, seq.to_bytes(8, "big")) if 0 < seq < 1 << 64 else None

    def latest_first(self, *, before: int | None = None, tag: bytes | None = None) -> Iterator[tuple[int, bytes]]:
        """Yield `(number, record)` from the latest, or from the one before `before`, down to the first.

        Each step looks the next row up anew, so a caller may stop, or await between two steps.  Records that were
        written without tags are not found by one.
        """
        family, prefix = (Family.RUN, b"") if tag is None else (Family.SYS, TAG + tag)
        end = _END if before is None else before - 1
        while end > 0:
            row = self._catalog.last(family, prefix + end.to_bytes(8, "big"))
            if row is None or not row[0].startswith(prefix):
                return
            seq = int.from_bytes(row[0][len(prefix) :], "big")
            record = row[1] if tag is None else self.get(seq)
            if record is not None:
                yield seq, record
            end = seq - 1

    def sums(self) -> dict[str, RunSum]:
        """Return the sums by name; not to be changed."""
        if self._sums is None:
            self._sums = {}
            for key, row in self._catalog.scan(Family.SYS, _SUM, prefix_end(_SUM)):
                try:
                    self._sums[key[len(_SUM) :].decode("utf-8", "replace")] = msgspec.msgpack.decode(row, type=RunSum)
                except msgspec.MsgspecError:
                    continue  # counted anew from here on: it is a figure to look at
        return self._sums

    def _state(self) -> RunState:
        """Return what is left, as the rows tell it."""
        found = self._catalog.last(Family.RUN, b"\xff" * 8)
        last = 0 if found is None else int.from_bytes(found[0], "big")
        row = self._catalog.get(Family.SYS, STATE)
        if row is not None:
            try:
                state = msgspec.msgpack.decode(row, type=RunState)
            except msgspec.MsgspecError:
                pass
            else:
                state.last = max(state.last, state.first - 1, last)
                return state
        first = next(self._catalog.scan(Family.RUN), None)
        return RunState(1 if first is None else int.from_bytes(first[0][:8], "big"), 0, last + 1, last)

    def _forget(self, batch: Batch, state: RunState) -> None:
        last = state.last
        for _ in range(_FORGOTTEN_AT_ONCE):
            if state.first >= last or (last - state.first < self._most and state.bytes_ <= self._most_bytes):
                return
            number = state.first.to_bytes(8, "big")
            if state.first >= state.counted_from:
                state.bytes_ = max(0, state.bytes_ - len(self.get(state.first) or b""))
            batch.delete(Family.RUN, number)
            tags = self._catalog.get(Family.SYS, TAGS + number) or b""
            for at in range(0, len(tags), TAG_BYTES):
                batch.delete(Family.SYS, TAG + tags[at : at + TAG_BYTES] + number)
            batch.delete(Family.SYS, TAGS + number)
            state.first += 1
