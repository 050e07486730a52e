"""What a start puts right: packs that are longer or shorter than what was committed, and counters.

O(dirty): one `stat` a pack, and no record is read.  Staging files, orphans and the trash are the filesystem's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tvfs.catalog.catalog import Batch, Catalog, Family
from tvfs.errors import TaskVaultError
from tvfs.packs.pack_directory import PackDirectory
from tvfs.packs.pack_row import decode_pack_row, pack_number
from tvfs.vault.audit import AuditLog
from tvfs.vault.counters import NEXT_INO, NEXT_PACK, Counters

CLEAN = b"clean"
"""Row of family `sys`: there while nobody has the vault open, if the last owner stopped in order."""
REBUILDING = b"rebuilding"
"""Row of family `sys`: rows were lost, and fsck has not found again yet all that packs hold.  Until it has, a pack
without a row is not one in which nothing was committed."""


class RepairUnfinished(TaskVaultError):
    """A catalog that was lost is not yet made again: a start would take what it does not know of for left-overs."""

    def __init__(self) -> None:
        super().__init__("The catalog of this vault was lost and is being made again; finish that with `tv fsck`.")


@dataclass(slots=True)
class RecoveryReport:
    """What a start found and did."""

    clean: bool = False
    """The last owner stopped in order."""
    truncated_packs: dict[int, int] = field(default_factory=dict)
    """Bytes cut off, by pack: appended, never committed."""
    removed_packs: list[int] = field(default_factory=list)
    """Packs in which nothing was committed."""
    short_packs: dict[int, int] = field(default_factory=dict)
    """Bytes that are missing at the end, by pack: the disk lost what it had promised to keep."""
    missing_packs: list[int] = field(default_factory=list)
    """Packs that have a row and no file."""
    raised_counters: list[str] = field(default_factory=list)
    """Counters that lay behind the rows that use them."""

    @property
    def damaged(self) -> bool:
        """Whether committed bytes are gone; what is left is served, and what is gone is found out chunk by chunk."""
        return bool(self.short_packs or self.missing_packs or self.raised_counters)


def recover(catalog: Catalog, packs: PackDirectory, counters: Counters, audit: AuditLog) -> RecoveryReport:
    """Bring packs and counters in line with the rows; the same again changes nothing.  Before anything is served."""
    report = RecoveryReport(clean=catalog.get(Family.SYS, CLEAN) is not None)
    committed = {pack_number(key): decode_pack_row(row).committed_bytes for key, row in catalog.scan(Family.PACK)}
    present = packs.numbers()
    _raise_counters(catalog, counters, [*committed, *present], report)
    for number in present:
        _recover_pack(packs, number, committed.get(number), report)
    report.missing_packs = sorted(committed.keys() - set(present))
    _begin(catalog, audit, report)
    return report


def mark_clean(catalog: Catalog) -> None:
    """Note that the owner stops in order."""
    batch = Batch()
    batch.put(Family.SYS, CLEAN, b"1")
    catalog.write(batch)


def _recover_pack(packs: PackDirectory, number: int, committed_bytes: int | None, report: RecoveryReport) -> None:
    if committed_bytes is None:
        packs.remove(number)
        report.removed_packs.append(number)
        return
    surplus = packs.size(number) - committed_bytes
    if surplus > 0:
        packs.truncate(number, committed_bytes)
        report.truncated_packs[number] = surplus
    elif surplus < 0:
        report.short_packs[number] = -surplus


def _raise_counters(catalog: Catalog, counters: Counters, packs: list[int], report: RecoveryReport) -> None:
    last_inode = catalog.last(Family.INODE, b"\xff" * 8)
    minimum = {
        # A pack without a row may be numbered beyond the mark after a power loss; its number is not used again.
        NEXT_PACK: max(packs, default=0) + 1,
        NEXT_INO: int.from_bytes(last_inode[0], "big") + 1 if last_inode else 0,
    }
    for name, number in minimum.items():
        if counters.raise_to(name, number) and name != NEXT_PACK:
            report.raised_counters.append(name)


def _begin(catalog: Catalog, audit: AuditLog, report: RecoveryReport) -> None:
    batch = Batch()
    if report.clean:
        batch.delete(Family.SYS, CLEAN)
    if report.damaged:
        detail = (
            f"short packs {sorted(report.short_packs)}, missing packs {report.missing_packs},"
            f" counters {report.raised_counters}"
        )
        audit.append_to(batch, action="damage found at start", who="tvd", detail=detail)
    catalog.write(batch)
