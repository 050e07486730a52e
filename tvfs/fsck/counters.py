"""Counters: none may lie behind a number that is in use."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tvfs.catalog.catalog import Batch, Family
from tvfs.filesystem.directories import decode_dirent
from tvfs.filesystem.model import FIRST_FREE
from tvfs.filesystem.ranges import AttachedRange
from tvfs.filesystem.staged_file import StagedRow
from tvfs.fsck.examination import Examination
from tvfs.fsck.finding import Finding, Step
from tvfs.packs.pack_row import pack_number
from tvfs.vault.counters import NEXT_INO, NEXT_PACK, NEXT_SEQ

CHECK = "counters"
_IMPLAUSIBLE = 1 << 56
"""A number above this was never given out: whatever holds it is damaged, and must not drag the counter along."""


def check_counters(exam: Examination) -> Iterator[Step]:
    """Yield what raises counters; one that is beyond what is used is as it should be."""
    least = {NEXT_INO: FIRST_FREE, NEXT_SEQ: 1, NEXT_PACK: 1}
    used = _numbers_in_use(exam)
    for name, minimum in least.items():
        row = exam.catalog.get(Family.SYS, name.encode())
        readable = row is not None and len(row) == 8
        stands = int.from_bytes(row or b"", "big") if readable else 0
        wanted = max(minimum, used[name] + 1)
        missing = row is None and used[name] < minimum
        if missing or (readable and wanted <= stands < _IMPLAUSIBLE):
            continue
        batch = Batch()
        batch.put(Family.SYS, name.encode(), wanted.to_bytes(8, "big"))
        what = f"it is {stands}, and {used[name]} is in use" if readable else "it cannot be read"
        if row is None:
            what = f"it is not there, and {used[name]} is in use"
        # A power loss may take the mark, or that of the first pack, and leave the file of the pack.
        after_stop = name == NEXT_PACK and not exam.clean and (readable or row is None)
        yield Step(Finding(CHECK, f"counter {name}", what, f"set to {wanted}", after_stop=after_stop), batch)


def _numbers_in_use(exam: Examination) -> dict[str, int]:
    ino = seq = 0
    last = exam.catalog.last(Family.INODE, (_IMPLAUSIBLE - 1).to_bytes(8, "big"))
    if last is not None:
        ino = int.from_bytes(last[0], "big")
    for key, row in exam.catalog.scan(Family.RANGE):
        try:
            attached = msgspec.msgpack.decode(row, type=AttachedRange)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        if attached.first.to_bytes(8, "big") == key:
            ino = max(ino, _plausible(attached.end - 1))
    for _, row in exam.catalog.scan(Family.DIRENT):
        if len(row) == 20:
            dirent = decode_dirent(row)
            ino, seq = max(ino, _plausible(dirent.child)), max(seq, _plausible(dirent.seq))
    for _, row in exam.catalog.scan(Family.STAGING):
        try:
            seq = max(seq, _plausible(msgspec.msgpack.decode(row, type=StagedRow).generation))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
    rows = [pack_number(key) for key, _ in exam.catalog.scan(Family.PACK) if len(key) == 8]
    pack = max((_plausible(number) for number in [*rows, *exam.packs.numbers()]), default=0)
    return {NEXT_INO: ino, NEXT_SEQ: seq, NEXT_PACK: pack}


def _plausible(number: int) -> int:
    return number if number < _IMPLAUSIBLE else 0
