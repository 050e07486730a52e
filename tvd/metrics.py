"""Names that metrics will have, and what each is made of: reserved now, so that dashboards need not change later.

Each is tied to a figure of `GetStatistics` or a field of `GetActivity`; what neither provides has no name here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Kinds of metrics, as Prometheus has them."""

    GAUGE = "gauge"
    COUNTER = "counter"


class Source(StrEnum):
    """Where a value comes from."""

    STATISTICS = "statistics"
    """A figure, by name."""
    ACTIVITY = "activity"
    """A field of `Activity`."""
    OPERATION = "operation"
    """A field of each `Operation` in `Activity`, labelled with its name."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One name."""

    name: str
    kind: Kind
    unit: str
    source: Source
    field: str
    """Figure or field that it is made of."""
    meaning: str
    labels: tuple[str, ...] = ()


def _of_statistics(field: str, unit: str, meaning: str, *, name: str | None = None) -> Metric:
    return Metric(f"taskvault_{name or field}", Kind.GAUGE, unit, Source.STATISTICS, field, meaning)


def _of_activity(field: str, kind: Kind, unit: str, meaning: str, *, name: str | None = None) -> Metric:
    return Metric(f"taskvault_{name or field}", kind, unit, Source.ACTIVITY, field, meaning)


def _of_operations(field: str, kind: Kind, unit: str, meaning: str, *, name: str) -> Metric:
    return Metric(f"taskvault_{name}", kind, unit, Source.OPERATION, field, meaning, ("request",))


METRICS = (
    _of_statistics("capacity_bytes", "bytes", "the most that the vault may take of the disk"),
    _of_statistics("used_bytes", "bytes", "what the vault takes of the disk"),
    _of_statistics("used_packs_bytes", "bytes", "of that, packs"),
    _of_statistics("used_staging_bytes", "bytes", "of that, files written and not sealed yet"),
    _of_statistics("used_meta_bytes", "bytes", "of that, the catalog"),
    _of_statistics("reserved_bytes", "bytes", "promised to writers beside what is used"),
    _of_statistics("live_bytes", "bytes", "records in packs that are in the index"),
    _of_statistics("logical_bytes", "bytes", "sum of the sizes of all files in all entries"),
    _of_statistics("packs", "packs", "packs that hold committed content"),
    _of_statistics("entries", "entries", "saved keys, run results, named snapshots"),
    _of_statistics("logical_files", "files", "files in all entries"),
    _of_statistics("leased_chunks", "chunks", "chunks that some connection was promised"),
    _of_statistics("staged_files", "files", "files written under the mount and not sealed yet"),
    _of_statistics("runs", "runs", "calls of `tv run`, ever", name="runs"),
    _of_statistics("run_hits", "runs", "of those, replays"),
    _of_statistics("run_saved_s", "seconds", "computing that replays saved", name="run_saved_seconds"),
    _of_statistics("uptime_s", "seconds", "since the daemon was started", name="uptime_seconds"),
    _of_activity("hits", Kind.COUNTER, "look-ups", "look-ups of keys that found something", name="hits_total"),
    _of_activity("misses", Kind.COUNTER, "look-ups", "look-ups of keys that found nothing", name="misses_total"),
    _of_activity("read_bytes", Kind.COUNTER, "bytes", "read through the mount", name="read_bytes_total"),
    _of_activity("written_bytes", Kind.COUNTER, "bytes", "written through the mount", name="written_bytes_total"),
    _of_activity("dirty_bytes", Kind.GAUGE, "bytes", "staged and not sealed"),
    _of_activity("open_files", Kind.GAUGE, "files", "handles to files that the kernel has open"),
    _of_activity("connections", Kind.GAUGE, "connections", "clients connected to the control socket"),
    _of_operations("count", Kind.COUNTER, "requests", "requests by kind", name="requests_total"),
    _of_operations("total_s", Kind.COUNTER, "seconds", "time spent serving them", name="request_seconds_total"),
    _of_operations(
        "slowest_s", Kind.GAUGE, "seconds", "the slowest of the last minute", name="request_slowest_seconds"
    ),
)
"""Every name, in the order of the reference."""
