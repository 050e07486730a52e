"""`tv fsck`."""

from __future__ import annotations

import click

from taskvault.cli.answers import VaultChecked, VaultFinding
from taskvault.cli.context import Context, json_option, notes, pass_context
from taskvault.cli.exit_codes import ExitCode
from taskvault.cli.output import show

_IN_USE = 3
"""Exit status of `tvd --fsck`: a daemon has the vault."""
_FINDINGS = 1


@click.command(
    epilog=notes(
        "tv down && tv fsck --dry-run\ntv down && tv fsck",
        "0 nothing found, 1 findings (repaired, or proposed), 4 a daemon uses the vault, 5 it could not be repaired.",
    )
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
@click.option("--content", is_flag=True, help="Read all content and verify its hashes: as slow as the disk.")
@json_option
@pass_context
def fsck(context: Context, dry_run: bool, content: bool, as_json: bool) -> int:
    """Check a stopped vault whole, and repair it.

    Index, counts, names and trees are made again from packs and from each other.  Nothing is deleted that somebody may
    need: what does not belong is set aside, what lost its name is in work/lost+found.  Stopped in the middle, it is
    run again.
    """
    from taskvault.cli.daemon_process import tvd_lines
    from taskvault.cli.errors import HostTrouble, Refusal

    options = ["--dry-run"] * dry_run + ["--content"] * content
    findings: list[VaultFinding] = []
    count = 0
    with tvd_lines(["--home", str(context.home), "--fsck", *options]) as check:
        for line in check:
            if "count" in line:
                count = int(line["count"])
                continue
            finding = VaultFinding(**line)
            findings.append(finding)
            if not as_json:
                click.echo(_line(finding, dry_run))
    if check.status == _IN_USE:
        raise Refusal(check.sentence)
    if check.status not in (0, _FINDINGS):
        raise HostTrouble(check.sentence)
    value = VaultChecked(home=str(context.home), dry_run=dry_run, count=count, findings=findings)
    summary = (
        "Nothing is wrong." if not count else f"{count} findings, {'nothing was changed' if dry_run else 'repaired'}."
    )
    show(as_json, value, summary)
    return ExitCode.NO if count else ExitCode.OK


def _line(finding: VaultFinding, dry_run: bool) -> str:
    after_stop = " (left by a stop without order)" if finding.after_stop else ""
    arrow = "would be" if dry_run and finding.repairable else "→"
    return f"{finding.where}: {finding.what}{after_stop} {arrow} {finding.remedy}"
