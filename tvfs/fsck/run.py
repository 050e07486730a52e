"""One run of fsck: takes the vault's lock, opens what can be opened, and goes through the table of checks.

Checks are in the order in which what is found is built upon: files, chunks, manifests, trees, entries, names, counts.
Each yields steps, and each step is applied before the check goes on.  A step is one batch, and files are changed only
when the rows are proof against a power loss; so a run that is killed leaves a vault that is no worse, and the next run
does the rest.  Memory: rows are read in order and not kept; see `Examination.objects_at_a_time`, `Damage` and
`NumberSet` for what is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tvfs.catalog.catalog import Batch, Family
from tvfs.catalog.rocks import RocksCatalog
from tvfs.clock import Clock, SystemClock
from tvfs.errors import TaskVaultError
from tvfs.filesystem.change import LAST_REQUEST
from tvfs.fsck import (
    chunks,
    content,
    counters,
    entries,
    evictables,
    history,
    manifests,
    names,
    pack_files,
    pack_rows,
    ranges,
    references,
    staging,
    superblock,
    trees,
    views,
)
from tvfs.fsck.examination import Examination
from tvfs.fsck.examined_packs import ExaminedPacks
from tvfs.fsck.finding import Finding, Step
from tvfs.fsck.opening import OpenedCatalog, opened_catalog
from tvfs.plugin_api import PluginRegistry
from tvfs.vault.audit import AuditLog
from tvfs.vault.counting import COUNTED
from tvfs.vault.create import VaultMissing, check_format
from tvfs.vault.layout import Layout
from tvfs.vault.lock import VaultLock
from tvfs.vault.recount import SEARCHING
from tvfs.vault.recovery import CLEAN, REBUILDING
from tvfs.vault.references import REFERRING
from tvfs.vault.superblock import FORMAT, KEY, decode_superblock


class Check(NamedTuple):
    """One line of the table."""

    name: str
    run: Callable[[Examination], Iterator[Step]]


CHECKS = (
    Check("counters", counters.check_counters),
    Check("pack files", pack_files.check_pack_files),
    Check("chunks", chunks.check_chunks),
    Check("manifests", manifests.check_manifests),
    Check("chunks wanted", content.check_chunks_wanted),
    Check("trees", trees.check_trees),
    Check("chunks of trees", content.check_chunks_wanted),
    Check("content", content.check_content),
    Check("entries", entries.check_entries),
    Check("usage", entries.check_usage),
    Check("ranges", ranges.check_ranges),
    Check("staging", staging.check_staging),
    Check("names", names.check_names),
    Check("evictable", evictables.check_evictables),
    Check("views", views.check_views),
    Check("staging files", staging.check_staging_files),
    Check("packs", pack_rows.check_pack_rows),
    Check("references", references.check_references),
    Check("history", history.check_history),
)

_ACTS_AT_A_TIME = 256


class NothingToCheck(TaskVaultError):
    """The directory holds no vault, nor what is left of one."""

    def __init__(self, home: Path) -> None:
        super().__init__(f"There is no vault in {home}; name the vault with --home or TASKVAULT_HOME.")


@dataclass(slots=True)
class FsckReport:
    """What a run found."""

    findings: list[Finding] = field(default_factory=list)
    """The first thousands; `count` has all."""
    count: int = 0
    lasting: int = 0
    """Of them, those that are reported and never repaired."""
    clean: bool = False
    """The last owner had stopped in order."""

    def add(self, finding: Finding) -> None:
        """Count a finding."""
        self.count += 1
        self.lasting += not finding.repairable
        if len(self.findings) < _KEPT:
            self.findings.append(finding)


_KEPT = 4096


def fsck(  # noqa: PLR0913  # a vault, what to do, and the world
    home: Path,
    registry: PluginRegistry,
    *,
    dry: bool = False,
    content: bool = False,
    told: Callable[[Finding], None] = lambda finding: None,
    clock: Clock | None = None,
    objects_at_a_time: int | None = None,
    scratch: Path | None = None,
) -> FsckReport:
    """Check a vault that nobody uses and put it right; `told` hears of each finding when it has been dealt with.

    With `dry` not a byte of the vault is changed: a copy of the catalog, in `scratch` or where temporary files are, is
    repaired instead, whose tables are links to the vault's.  Raises `VaultInUse`, `NothingToCheck`, `FormatTooNew`,
    what plugins and the catalog raise, and `OSError`.
    """
    layout = Layout(home)
    clock = clock or SystemClock()
    report = FsckReport()
    with ExitStack() as stack:
        stack.enter_context(_locked(layout, dry=dry))

        def tell(finding: Finding) -> None:
            report.add(finding)
            told(finding)

        for finding in _check_home(layout, dry=dry):
            tell(finding)
        opened = stack.enter_context(opened_catalog(layout, dry=dry, scratch=scratch))
        for finding in opened.findings:
            tell(finding)
        report.clean = opened.catalog.get(Family.SYS, CLEAN) is not None
        run = _Run(opened.catalog, tell, dry=dry)
        run.go_through(superblock.check_superblock(opened.catalog, layout, registry, clock))
        exam = _examination(layout, opened, registry, clock, dry=dry, content=content)
        exam.clean, exam.counted = report.clean, run.counted
        stack.callback(exam.packs.close)
        stack.callback(exam.close)
        if objects_at_a_time is not None:
            exam.objects_at_a_time = objects_at_a_time
        for check in CHECKS:
            exam.references_changed, exam.references_damaged = run.references_changed, run.references_damaged
            run.go_through(check.run(exam))
        run.finish()
    return report


class _Run:
    """Applies steps."""

    def __init__(self, catalog: RocksCatalog, tell: Callable[[Finding], None], *, dry: bool) -> None:
        self._catalog = catalog
        self._tell = tell
        self._dry = dry
        self.counted = catalog.get(Family.SYS, COUNTED) is not None
        self._changed = catalog.get(Family.SYS, CLEAN) is None or catalog.get(Family.SYS, REBUILDING) is not None
        self._marks_gone = False
        self.references_changed = False
        self.references_damaged = False

    def go_through(self, steps: Iterator[Step]) -> None:
        """Apply the steps of one check; files are changed after the rows have lasted."""
        acts: list[Callable[[], None]] = []
        told: list[Finding] = []
        for step in steps:
            if step.batch:
                self._begin_changes()
                self._catalog.write(step.batch)
                if any(change.family in REFERRING for change in step.batch.changes):
                    self.references_changed = True
                    self.references_damaged |= step.finding is None or not step.finding.after_stop
            if step.finding is not None:
                told.append(step.finding)
            if step.act is not None:
                acts.append(step.act)
            if len(acts) >= _ACTS_AT_A_TIME or len(told) >= _ACTS_AT_A_TIME:
                self._settle(acts, told)
        self._settle(acts, told)

    def finish(self) -> None:
        """Note that the vault is in order."""
        if not self._changed or self._dry:
            return
        batch = Batch()
        if self.counted:
            batch.put(Family.SYS, COUNTED, b"")
            batch.delete(Family.SYS, SEARCHING)
        batch.delete(Family.SYS, REBUILDING)
        batch.put(Family.SYS, CLEAN, b"1")
        self._catalog.write(batch)
        self._catalog.flush_blocking()

    def _begin_changes(self) -> None:
        if self._marks_gone:
            return
        # Until all is done, whoever opens the vault must take it for one that was not stopped, and count anew.
        batch = Batch()
        batch.delete(Family.SYS, CLEAN)
        batch.delete(Family.SYS, COUNTED)
        # A mount that is kept for the next daemon knows nothing of what is changed here: it is not taken over.
        batch.delete(Family.SYS, LAST_REQUEST)
        self._catalog.write(batch)
        self._marks_gone = self._changed = True

    def _settle(self, acts: list[Callable[[], None]], told: list[Finding]) -> None:
        if acts and not self._dry:
            self._begin_changes()
            self._catalog.flush_blocking()
            for act in acts:
                act()
        acts.clear()
        for finding in told:
            self._tell(finding)
        told.clear()


def _examination(  # what there is
    layout: Layout,
    opened: OpenedCatalog,
    registry: PluginRegistry,
    clock: Clock,
    *,
    dry: bool,
    content: bool,
) -> Examination:
    catalog = opened.catalog
    block = decode_superblock(catalog.get(Family.SYS, KEY))
    return Examination(
        layout=layout,
        catalog=catalog,
        packs=ExaminedPacks(layout.packs, block.uuid),
        superblock=block,
        hash_function=registry.hash_function(block.hash),
        codecs=registry.codecs(),
        audit=AuditLog(catalog, clock),
        clock=clock,
        dry=dry,
        content=content,
        rebuilt=catalog.get(Family.SYS, REBUILDING) is not None,
    )


@contextmanager
def _locked(layout: Layout, *, dry: bool) -> Iterator[None]:
    if not layout.home.is_dir() or not (layout.packs.is_dir() or layout.meta.is_dir()):
        raise NothingToCheck(layout.home)
    if dry and not layout.lock.exists():
        yield  # nobody can have it, and a dry run makes no file
        return
    lock = VaultLock(layout.lock, note_pid=not dry)
    try:
        yield
    finally:
        lock.release()


def _check_home(layout: Layout, *, dry: bool) -> Iterator[Finding]:
    try:
        check_format(layout)
        damaged = not layout.format.read_text(encoding="ascii").strip().isdigit()
        what = "it cannot be read"
    except (VaultMissing, UnicodeDecodeError):
        damaged, what = True, "it is gone, and the vault is there"
    if damaged:
        if not dry:
            layout.format.write_text(f"{FORMAT}\n", encoding="ascii")
        yield Finding("home", "format", what, "written anew")
    for directory in (layout.packs, layout.staging):
        if not directory.is_dir():
            if not dry:
                directory.mkdir(mode=0o700)
            yield Finding("home", directory.name, "the directory is gone", "made anew, empty")
