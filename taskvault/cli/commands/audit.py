"""`tv audit`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from taskvault.cli.answers import AuditChecked, AuditEntry, RunAudited, RunsAudited
from taskvault.cli.context import Context, Name, json_option, notes, pass_context
from taskvault.cli.exit_codes import ExitCode
from taskvault.cli.output import moment, show, table

if TYPE_CHECKING:
    from taskvault.run.audit import Audit, Audited

PAGE = 1000
TIMEOUT_S = 3600.0
"""Checking a log of a million records takes about ten seconds."""


@click.group(
    invoke_without_command=True,
    epilog=notes("tv audit --limit 20 --scope main\ntv audit verify", "0, or 3 if no daemon answers."),
)
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="The latest so many.")
@click.option("--scope", type=Name("scope"), help="Only records about this scope.")
@click.option("--key", type=Name("key"), help="Only records about this key.")
@json_option
@click.pass_context
def audit(ctx: click.Context, limit: int, scope: str | None, key: str | None, as_json: bool) -> None:
    """List what was done to entries, and what damage was found, latest first."""
    if ctx.invoked_subcommand is not None:
        return
    context: Context = ctx.find_object(Context) or Context("")
    found = _records(context, limit, scope, key)
    rows = [
        (str(record.seq), moment(record.time_ns), record.action, f"{record.scope}/{record.key}" if record.scope
         else record.key, record.who, record.detail)
        for record in found
    ]  # fmt: skip
    lines = list(table(rows, ("record", "time", "action", "what", "who", "detail"))) or ["No records."]
    show(as_json, found, lines)


@audit.command("verify", epilog=notes("tv audit verify", "0 the log is whole, 1 it is not, 3 no daemon answers."))
@json_option
@pass_context
def verify_audit(context: Context, as_json: bool) -> int:
    """Check that no record was changed, removed, added or moved since it was written."""
    from taskvault.cli.progress import waiting
    from taskvault.protocol.messages import VerifyAudit

    with context.connect() as client, waiting("checking"):
        found = client.call(VerifyAudit(), timeout_s=TIMEOUT_S)
    value = AuditChecked(records=found.records, broken_at=found.broken_at, reason=found.reason)
    if found.broken_at is None:
        show(as_json, value, f"All {found.records} records are as they were written.")
        return ExitCode.OK
    show(
        as_json,
        value,
        f"The log was changed at record {found.broken_at}: {found.reason}."
        " Compare the vault with a copy before you trust its entries.",
    )
    return ExitCode.NO


@audit.command(
    "runs",
    epilog=notes(
        "tv audit runs --sample 20 --limit 300",
        "0 all that were repeated made the same, 1 some did not, 3 no daemon answers, 5 runs cannot be repeated here.",
    ),
)
@click.option("--sample", type=click.IntRange(1), default=10, show_default=True, help="Repeat so many runs.")
@click.option("--limit", type=click.FloatRange(0), default=600.0, show_default=True, help="Stop after SECONDS.",
              metavar="SECONDS")  # fmt: skip
@click.option("--run", type=Name("run"), help="Repeat this run only.")
@json_option
@pass_context
def audit_runs(context: Context, sample: int, limit: float, run: str | None, as_json: bool) -> int:
    """Repeat stored runs, chosen at random, and stop using the results of those that do not make the same again.

    They are repeated over a view of their root, at low priority: nothing there changes.  Runs whose inputs have
    changed, and those that cannot be repeated, are skipped.
    """
    import os
    import random

    from taskvault.cli.progress import waiting
    from taskvault.run.audit import Auditor
    from taskvault.run.low_priority import lower_priority

    lower_priority()
    auditor = Auditor(context.home, dict(os.environ), random.SystemRandom())
    with waiting("repeating runs"):
        found = auditor.audit(sample=sample, limit_s=limit, run=run)
    show(as_json, _runs_audited(found), _told(found))
    return ExitCode.NO if any(each.judged.verdict == "differs" for each in found.repeated) else ExitCode.OK


def _runs_audited(found: Audit) -> RunsAudited:
    repeated, skipped = ([_run_audited(each) for each in part] for part in (found.repeated, found.skipped))
    return RunsAudited(repeated=repeated, skipped=skipped, over=found.is_over)


def _run_audited(each: Audited) -> RunAudited:
    record, judged = each.record, each.judged
    return RunAudited(
        run=record.run,
        command=record.command,
        root=record.root,
        scope=record.scope,
        key=record.key,
        verdict=judged.verdict.value,
        how=judged.how,
    )


def _told(found: Audit) -> Iterator[str]:
    differing = [each for each in found.repeated if each.judged.verdict == "differs"]
    yield f"Repeated {len(found.repeated)} runs: {len(differing)} did not make the same, and are not used any more."
    for each in differing:
        yield f"  run {each.record.run}: {' '.join(each.record.command)}: {each.judged.how}"
    for reason, runs in Counter(each.judged.how for each in found.skipped).most_common():
        yield f"Skipped {runs}: {reason}."
    if found.is_over:
        yield "The time was over before the sample was complete."


def _records(context: Context, limit: int, scope: str | None, key: str | None) -> list[AuditEntry]:
    from taskvault.protocol.messages import ReadAudit

    found: list[AuditEntry] = []
    before: int | None = None
    with context.connect() as client:
        while len(found) < limit:
            page = client.call(ReadAudit(before, PAGE)).records
            for line in page:
                if scope in (None, line.scope) and key in (None, line.key) and len(found) < limit:
                    found.append(
                        AuditEntry(
                            seq=line.seq,
                            time_ns=line.time_ns,
                            action=line.action,
                            scope=line.scope,
                            key=line.key,
                            who=line.who,
                            detail=line.detail,
                        )
                    )
            if len(page) < PAGE:
                break
            before = page[-1].seq
    return found
