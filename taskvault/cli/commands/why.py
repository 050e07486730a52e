"""`tv why` and `tv runs`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from taskvault.cli import answers
from taskvault.cli.answers import run_answer
from taskvault.cli.context import Context, Name, json_option, notes, pass_context
from taskvault.cli.errors import NoSuch
from taskvault.cli.output import moment, saved_line, seconds, show, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from taskvault.client import Client
    from taskvault.protocol.messages import RunRecord, RunSum

MOST_COMMANDS = 20
LOOKED_AT = 50
"""How many earlier runs of the command are compared."""


@click.command(epilog=notes("tv why", "0, 1 if there is no such run, 3 if no daemon answers."))
@click.argument("run", required=False, metavar="[RUN]", type=Name("run"))
@json_option
@pass_context
def why(context: Context, run: str | None, as_json: bool) -> None:
    """Why a run hit, missed or was not stored: what differs from the nearest known run.

    RUN is a number that `tv run` or `tv runs` printed; without one, the newest run below this root.
    """
    from taskvault.protocol.messages import FindRuns, GetEntry
    from taskvault.run.why import described, explain

    with context.connect() as client:
        record = _record(client, run)
        others = client.call(FindRuns(command=record.command, limit=LOOKED_AT)).runs
        mark = client.call(GetEntry(record.scope, record.key)).unsteady if record.key else None
    explanation = replace(explain(record, others), unsteady=mark.text if mark else "")
    value = answers.Why(
        run=run_answer(record),
        nearest=explanation.nearest.run if explanation.nearest else None,
        changes=[msgspec.convert(change, answers.Change, from_attributes=True) for change in explanation.changes],
        unsteady=explanation.unsteady or None,
    )
    show(as_json, value, described(explanation))


@click.command(epilog=notes("tv runs --limit 50", "0, or 3 if no daemon answers."))
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many, latest first.")
@json_option
@pass_context
def runs(context: Context, limit: int, as_json: bool) -> None:
    """History of runs, latest first; by command how often they hit, what they took and what they saved."""
    from taskvault.protocol.messages import FindRuns, GetRunSums

    with context.connect() as client:
        found = client.call(FindRuns(limit=limit, brief=True)).runs
        sums = client.call(GetRunSums()).sums
    rows = [
        (
            r.run,
            moment(r.started_ns),
            r.outcome,
            seconds(r.duration_ns / 1e9),
            seconds(r.saved_ns / 1e9),
            " ".join(r.command),
        )
        for r in found
    ]
    lines = [*table(rows, ("run", "started", "outcome", "took", "saved", "command"))]
    lines += ["", *_by_command(sums)] if found else ["No runs yet."]
    show(as_json, [run_answer(record) for record in found], lines)


def _by_command(sums: Mapping[str, RunSum]) -> Iterator[str]:
    """Yield what all runs there ever were came to, those that saved the most first."""
    ordered = sorted(sums.items(), key=lambda item: (-item[1].saved_ns, item[0]))
    rows = [
        (name, str(s.runs), f"{s.hits / s.runs:.0%}", seconds(s.duration_ns / 1e9), seconds(s.saved_ns / 1e9))
        for name, s in ordered[:MOST_COMMANDS]
    ]
    yield from table(rows, ("command", "runs", "hits", "took", "saved"))
    whole = sums.values()
    yield saved_line(sum(s.runs for s in whole), sum(s.hits for s in whole), sum(s.saved_ns for s in whole) / 1e9)


def _record(client: Client, run: str | None) -> RunRecord:
    from taskvault.protocol.messages import FindRuns
    from taskvault.run.as_text import text
    from taskvault.run.root import find_place

    if run is not None:
        found = client.call(FindRuns(run=run)).runs
        missing = f"There is no run {run!r}; `tv runs` lists those there are."
    else:
        root = find_place(Path(os.getcwd()), None).root
        found = client.call(FindRuns(root=text(str(root)), limit=1)).runs or client.call(FindRuns(limit=1)).runs
        missing = "There are no runs yet; start one with `tv run`."
    if not found:
        raise NoSuch(missing)
    return found[0]
