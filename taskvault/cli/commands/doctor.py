"""`tv doctor`."""

from __future__ import annotations

import click

from taskvault.cli.context import Context, json_option, notes, pass_context
from taskvault.cli.exit_codes import ExitCode
from taskvault.cli.output import show

_SIGNS = {"ok": "ok  ", "warning": "warn", "failed": "FAIL"}


@click.command(
    epilog=notes("tv doctor", "0 nothing is wrong, or only what has a way around; 1 something must be put right.")
)
@json_option
@pass_context
def doctor(context: Context, as_json: bool) -> int:
    """Check that this machine can run and mount a vault; says what to do about each thing that is wrong.

    It needs neither a vault nor a daemon, and changes nothing; one file is written where the vault is or would be, to
    see whether fsync works, and is gone again.
    """
    from taskvault.cli.diagnosis import examine

    findings = examine(context.home)
    lines = []
    for finding in findings:
        lines.append(f"{_SIGNS[finding.state]}  {finding.name}: {finding.fact}")
        if finding.remedy and finding.state != "ok":
            lines.append(f"      → {finding.remedy}")
    show(as_json, findings, lines)
    return ExitCode.NO if any(finding.state == "failed" for finding in findings) else ExitCode.OK
