"""`tv audit`."""

from __future__ import annotations

import click

from taskvault.cli.answers import AuditChecked, AuditEntry
from taskvault.cli.context import Context, Name, json_option, notes, pass_context
from taskvault.cli.exit_codes import ExitCode
from taskvault.cli.output import moment, show, table

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
