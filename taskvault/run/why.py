"""Why a run hit, missed or was not stored: the difference between two records of the history.  Pure."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from taskvault.protocol.messages import RunRecord
from taskvault.protocol.runs import NOT_SHOWN

STORED = ("stored", "hit")
"""Outcomes after which a result is there."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is in the key and differs; None where it is not there."""

    kind: str
    """`root`, `input`, `environment`, `program`, `platform`, `working directory`, `inputs`, `outputs`, `argument`."""
    name: str
    before: str | None
    now: str | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is to be said of one run."""

    record: RunRecord
    nearest: RunRecord | None = None
    """The known run that differs least; None for a hit, or if there is none."""
    changes: list[Change] = field(default_factory=list)
    """What differs from it."""
    unsteady: str = ""
    """Why the result under its key is not used any more; empty if it is."""


def explain(record: RunRecord, others: Iterable[RunRecord]) -> Explanation:
    """Return why `record` was no hit: what differs from the nearest of the runs before it that left a result."""
    if record.outcome == "hit":
        return Explanation(record)
    # A hit that follows another of the same is recorded without what it looked at: there is nothing to compare with.
    known = (o for o in others if _number(o) < _number(record) and o.outcome in STORED and (o.facts or o.key == ""))
    before = _with_reasons(known)
    candidates = [(differences(other, record), other) for other in before]
    if not candidates:
        return Explanation(record)
    here = [candidate for candidate in candidates if candidate[1].root == record.root] or candidates
    # Of those that differ equally little the latest: its state is what the caller remembers.
    changes, nearest = min(here, key=lambda candidate: (len(candidate[0]), -_number(candidate[1])))
    return Explanation(record, nearest, changes)


def _with_reasons(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Return the records; a replay gets the reason for which its result is bound from the run that made it."""
    found = list(records)
    reasons = {record.key: record.facts["bound"] for record in found if record.key and "bound" in record.facts}
    return [
        replace(record, facts={**record.facts, "bound": reasons[record.key]}) if record.key in reasons else record
        for record in found
    ]


def differences(before: RunRecord, now: RunRecord) -> list[Change]:
    """Return everything in the key of one run that is not so in the other's."""
    changes = [
        *_root(before, now),
        *_arguments(before.command, now.command),
        *_facts(before.facts, now.facts),
        *_named("environment", before.environment, now.environment),
        *_named("input", before.inputs, now.inputs),
    ]
    if not changes and NOT_SHOWN in before.environment.values():
        return [Change("environment", "(values)", NOT_SHOWN, "yours, which may be others")]
    return changes


def described(explanation: Explanation, *, most: int = 20) -> Iterator[str]:
    """Yield the explanation as lines for people; at most `most` changes."""
    record = explanation.record
    yield f"run {record.run}: {' '.join(record.command)}"
    yield f"  in {os.path.join(record.root, record.workdir) if record.workdir else record.root}"
    yield f"  {_outcome(record)}"
    if explanation.unsteady and explanation.unsteady.partition(": ")[2] not in record.reason:
        yield f"  its result is not used: {explanation.unsteady}"
    nearest = explanation.nearest
    if record.outcome == "hit":
        return
    if nearest is None:
        if record.key:
            yield "  no earlier run of this command left a result"
        return
    if not explanation.changes:
        yield f"  the same as run {nearest.run}, whose result is gone or was not to be used"
        return
    where = "" if nearest.root == record.root else f" in {nearest.root}"
    where += "" if nearest.user == record.user else f" of user {nearest.user}"
    yield f"  what differs from run {nearest.run}{where}:"
    for change in explanation.changes[:most]:
        yield f"    {_change(change)}"
    if len(explanation.changes) > most:
        yield f"    … and {len(explanation.changes) - most} more (--json lists all)"


def _outcome(record: RunRecord) -> str:
    if record.outcome == "hit":
        return f"hit: replayed, saved {record.saved_ns / 1e9:.1f} s"
    if record.outcome == "stored":
        return f"miss: ran {record.duration_ns / 1e9:.1f} s, stored"
    return f"not stored: {record.reason}"


def _change(change: Change) -> str:
    title = f"{change.kind} {change.name}".strip()
    if change.before is None:
        return f"{title}: added ({change.now})"
    if change.now is None:
        return f"{title}: removed (was {change.before})"
    return f"{title}: {change.before} → {change.now}"


def _root(before: RunRecord, now: RunRecord) -> Iterator[Change]:
    bound = before.facts.get("bound")
    if bound and before.root != now.root:
        yield Change("root", f"(its result holds only there: {bound})", before.root, now.root)


def _arguments(before: Sequence[str], now: Sequence[str]) -> Iterator[Change]:
    for position in range(max(len(before), len(now))):
        old = before[position] if position < len(before) else None
        new = now[position] if position < len(now) else None
        if old != new:
            yield Change("argument", str(position), old, new)


def _facts(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Change]:
    for kind in ("program", "platform"):
        yield from _named(kind, _with_prefix(before, f"{kind} "), _with_prefix(now, f"{kind} "))
    for name in ("working directory", "outputs"):
        if before.get(name, "") != now.get(name, ""):
            yield Change(name, "", before.get(name), now.get(name))


def _with_prefix(facts: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {name.removeprefix(prefix): value for name, value in facts.items() if name.startswith(prefix)}


def _named(kind: str, before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Change]:
    for name in sorted(before.keys() | now.keys()):
        values = (before.get(name), now.get(name))
        if values[0] != values[1] and not (NOT_SHOWN in values and None not in values):
            yield Change(kind, name, before.get(name), now.get(name))


def _number(record: RunRecord) -> int:
    return int(record.run) if record.run.isdigit() else 0
