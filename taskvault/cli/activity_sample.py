"""What the daemon did between two looks at its counters.  Pure."""

from __future__ import annotations

from taskvault.cli.answers import LiveRequest, OperationRate, Sample
from taskvault.protocol.maintenance import Activity, Operation

SLOWEST = 10
"""How many of the slowest kinds of request are shown."""


def sample(before: Activity, after: Activity) -> Sample:
    """Return the rates of the time between; counters of another life of the daemon are taken to begin at 0."""
    if after.time_s <= before.time_s or _total(after) < _total(before):
        before = Activity(0.0, [], [], 0, 0, 0, 0, 0, 0, 0)
    interval_s = max(after.time_s - before.time_s, 1e-9)
    earlier = {operation.name: operation for operation in before.operations}
    rates = [_rate(earlier.get(operation.name), operation, interval_s) for operation in after.operations]
    happened = sorted((rate for rate in rates if rate.per_s), key=lambda rate: (-rate.per_s, rate.name))
    slowest = sorted((rate for rate in rates if rate.slowest_s), key=lambda rate: -rate.slowest_s)
    return Sample(
        interval_s=interval_s,
        operations=happened,
        slowest=slowest[:SLOWEST],
        live=[LiveRequest(name=live.name, subject=live.subject, age_s=live.age_s) for live in after.live],
        hits=after.hits,
        misses=after.misses,
        hit_rate=_hit_rate(after, before),
        read_bytes_per_s=(after.read_bytes - before.read_bytes) / interval_s,
        written_bytes_per_s=(after.written_bytes - before.written_bytes) / interval_s,
        dirty_bytes=after.dirty_bytes,
        open_files=after.open_files,
        connections=after.connections,
    )


def _total(activity: Activity) -> int:
    return sum(operation.count for operation in activity.operations)


def _rate(before: Operation | None, after: Operation, interval_s: float) -> OperationRate:
    count = after.count - (before.count if before else 0)
    total_s = after.total_s - (before.total_s if before else 0.0)
    return OperationRate(
        name=after.name,
        per_s=count / interval_s,
        mean_s=total_s / count if count else 0.0,
        slowest_s=after.slowest_s,
    )


def _hit_rate(after: Activity, before: Activity) -> float | None:
    hits, misses = after.hits - before.hits, after.misses - before.misses
    if not hits + misses:
        hits, misses = after.hits, after.misses
    return hits / (hits + misses) if hits + misses else None
